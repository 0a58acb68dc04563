"""Groups, optimizers and schedules."""

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from attnlab.attention import attach, attention_modules
from attnlab.errors import AttnlabError
from attnlab.models import build_segmenter
from attnlab.tasks import OptimizerConfig, ScheduleConfig
from attnlab.tasks.optimization import (
    Schedule,
    apply_config,
    batch_factor,
    build_optimizer,
    parameter_groups,
)


def schedule(total=100, **options):
    result = Schedule(ScheduleConfig(**options))
    result.start(total)
    return result


class TestSchedule:
    def test_poly(self):
        f = schedule(name="poly", power=0.9)
        assert [f(s) for s in (0, 50, 100)] == pytest.approx([1, 0.5**0.9, 0])

    def test_cosine_with_a_floor(self):
        f = schedule(name="cosine", min_factor=0.01)
        assert [f(s) for s in (0, 50, 100)] == pytest.approx([1, 0.5, 0.01])

    def test_step(self):
        f = schedule(name="step", milestones=[0.3, 0.6, 0.9], gamma=0.1)
        assert [f(s) for s in (0, 29, 30, 59, 60, 95)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])

    def test_constant_needs_no_length(self):
        f = schedule(total=math.inf, name="constant")
        assert f(10**9) == 1

    def test_warmup_rises_linearly_and_leaves_the_rest_to_the_curve(self):
        f = schedule(total=110, name="poly", power=1.0, warmup_steps=10, warmup_factor=0.1)
        assert [f(s) for s in (0, 5, 10, 60, 110)] == pytest.approx([0.1, 0.55, 1, 0.5, 0])

    def test_cosine_that_ends_at_a_share(self):
        f = schedule(name="cosine", final_factor=0.01)
        assert [f(s) for s in (0, 50, 100)] == pytest.approx([1, 0.505, 0.01])

    def test_quadratic_warmup_in_epochs(self):
        f = Schedule(ScheduleConfig(name="constant", warmup_epochs=2, warmup_factor=0.0, warmup_power=2))
        f.start(100, epoch_steps=5)
        assert [f(s) for s in (0, 5, 10, 50)] == pytest.approx([0, 0.25, 1, 1])
        with pytest.raises(AttnlabError, match="warmup_epochs"):
            f.start(100)
        with pytest.raises(AttnlabError, match="one of the two"):
            Schedule(ScheduleConfig(warmup_epochs=1, warmup_steps=5))

    def test_never_falls_below_zero_after_the_end(self):
        assert schedule(name="poly")(250) == 0
        assert schedule(total=5, name="poly", warmup_steps=10)(10) == 0

    def test_an_endless_training_has_no_poly(self):
        with pytest.raises(AttnlabError, match=r"--trainer\.max_epochs"):
            schedule(total=math.inf, name="poly")


def network():
    result = build_segmenter("DeepLabV3Plus", "resnet18", 3).network
    attach(result, "ela_t", at="resnet.block", mode="rezero")
    return result


def groups_of(net, config):
    new = [p for _, site in attention_modules(net) for p in site.new_parameters()]
    return {g["name"]: g for g in parameter_groups(net, net.encoder.parameters(), new, config)}


def test_every_parameter_is_in_one_group():
    net = network()
    groups = groups_of(net, OptimizerConfig(lr=1.0, backbone_lr_factor=0.1, attention_lr_factor=0.5))
    ids = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(ids) == sorted({id(p) for p in net.parameters()})
    assert {name: group["lr"] for name, group in groups.items()} == {
        "head": 1.0,
        "backbone": 0.1,
        "attention": 0.5,
    }
    new = {id(p) for _, site in attention_modules(net) for p in site.new_parameters()}
    assert {id(p) for p in groups["attention"]["params"]} == new
    assert len(new) == 8 * 4  # convolution, two of GroupNorm, alpha


def test_frozen_parameters_are_left_out():
    net = network()
    net.encoder.requires_grad_(False)
    assert set(groups_of(net, OptimizerConfig())) == {"head"}


@pytest.mark.parametrize("name", ["SGD", "sgd", "AdamW", "RMSprop"])
def test_any_optimizer_of_torch(name):
    optimizer = build_optimizer(OptimizerConfig(name=name), [{"params": [nn.Parameter(torch.ones(1))]}])
    assert type(optimizer).__name__.lower() == name.lower()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "AdmW"}, "Did you mean 'AdamW'"),
        ({"name": "SGD", "options": {"momentun": 0.9}}, "Did you mean 'momentum'"),
        ({"name": "SGD", "options": {"momentum": -1}}, "Invalid momentum"),
    ],
)
def test_what_torch_does_not_have(config, message):
    with pytest.raises(AttnlabError, match=message):
        build_optimizer(OptimizerConfig(**config), [{"params": [nn.Parameter(torch.ones(1))]}])


def test_a_restored_optimizer_takes_the_configured_values_again():
    def build(lr, momentum):
        config = OptimizerConfig(name="SGD", lr=lr, options={"momentum": momentum})
        optimizer = build_optimizer(
            config, [{"params": [nn.Parameter(torch.ones(1))], "name": "head", "lr": lr}]
        )
        curve = schedule(name="poly")
        return optimizer, LambdaLR(optimizer, lambda step: curve(step))

    old, old_schedule = build(1.0, 0.9)
    for _ in range(30):
        old.step()
        old_schedule.step()
    for lr, momentum in ((1.0, 0.9), (0.5, 0.8)):
        new, new_schedule = build(lr, momentum)
        configured = [{k: v for k, v in g.items() if k != "params"} for g in new.param_groups]
        new.load_state_dict(old.state_dict())
        new_schedule.load_state_dict(old_schedule.state_dict())
        apply_config(new, new_schedule, configured)
        assert new.param_groups[0]["momentum"] == momentum
        assert new.param_groups[0]["lr"] == lr * old.param_groups[0]["lr"]  # to the bit, for lr 1
        old.step()
        new.step()
        old_schedule.step()
        new_schedule.step()
        assert new.param_groups[0]["lr"] == lr * old.param_groups[0]["lr"]


class TestDecay:
    def test_norms_and_biases_are_spared_on_request(self):
        net = network()
        groups = groups_of(net, OptimizerConfig(weight_decay=0.1, decay_norms_and_biases=False))
        ids = [id(p) for group in groups.values() for p in group["params"]]
        assert sorted(ids) == sorted({id(p) for p in net.parameters()})
        flat = {id(p) for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        spared = {id(p) for g in groups.values() if g["weight_decay"] == 0 for p in g["params"]}
        assert flat <= spared
        assert all(p.ndim > 1 for g in groups.values() if g["weight_decay"] == 0.1 for p in g["params"])
        assert {"head", "backbone_no_decay", "attention", "attention_no_decay"} <= set(groups)

    def test_everything_decays_by_default(self):
        groups = groups_of(network(), OptimizerConfig(weight_decay=0.1))
        assert {group["weight_decay"] for group in groups.values()} == {0.1}
        assert set(groups) == {"head", "backbone", "attention"}


class TestBatchFactor:
    @pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
    def test_rules(self, rule, factor):
        assert batch_factor(OptimizerConfig(lr_scaling=rule, lr_batch_size=256), 1024) == factor

    def test_a_batch_of_nothing(self):
        with pytest.raises(AttnlabError, match="lr_batch_size"):
            batch_factor(OptimizerConfig(lr_scaling="linear", lr_batch_size=0), 8)
