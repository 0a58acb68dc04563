"""What is not finite: losses, weights, outputs; tests/tasks/test_base.py has it within each task."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from attnlab.errors import AttnlabError
from attnlab.tasks.finite import FiniteLoss, MeanLoss, OutputWatch, broken_weights, refuse_to_load


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_no_number_is_refused(value: str) -> None:
    loss = torch.tensor(float(value))
    with pytest.raises(AttnlabError, match=f"in epoch 2, step 7: boxes {value}, classes 1") as caught:
        FiniteLoss().look_at({"loss": loss, "boxes": loss, "classes": torch.ones(())}, {}, 2, 7)
    assert "Images" not in str(caught.value)


def test_the_images_are_named() -> None:
    with pytest.raises(AttnlabError, match=r"loss nan\. Images of the batch: a, b\."):
        FiniteLoss().look_at({"loss": torch.tensor(float("nan"))}, {"name": ["a", "b"]}, 0, 0)


def test_any_other_is_not() -> None:
    guard = FiniteLoss()
    for loss in (0.0, -3.0, 1e38):
        guard.look_at({"loss": torch.tensor(loss)}, {}, 0, 0)
        guard.look_back()


class TestWeights:
    @pytest.fixture
    def module(self) -> nn.Module:
        module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        module.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        return module

    def test_finite_ones_pass_and_so_does_a_mask_of_infinities(self, module: nn.Module) -> None:
        assert broken_weights(module, module.state_dict()) is None

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("name", ["0.weight", "1.running_mean", "1.running_var", "1.bias"])
    def test_others_are_refused(self, module: nn.Module, name: str, value: float) -> None:
        state = module.state_dict()
        state[name].view(-1)[1] = value
        assert broken_weights(module, state) == f"1 of 7 tensors hold NaN or infinite values ({name})"
        with pytest.raises(AttnlabError, match="weights are not finite"):
            refuse_to_load(module, state)

    def test_a_constant_may_not_be_nan(self, module: nn.Module) -> None:
        state = module.state_dict()
        state["mask"][0] = math.nan
        assert "mask" in str(broken_weights(module, state))


class TestMeanLoss:
    def test_it_is_the_weighted_mean(self) -> None:
        loss = MeanLoss()
        loss.update(torch.tensor(2.0), 3)
        loss.update(6.0, torch.tensor(1))
        assert loss.compute() == 3
        loss.reset()
        loss.update(4.0)
        assert loss.compute() == 4

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_not_finite_is_not_averaged_away(self, value: float) -> None:
        loss = MeanLoss()
        loss.update(torch.tensor(1.0), 2)
        loss.update(torch.tensor(value), 0)
        assert loss.compute() == 1
        loss.update(torch.tensor(value), 1)
        assert not loss.compute().isfinite()


def test_images_without_output_are_counted_and_named() -> None:
    watch = OutputWatch()
    watch.note(torch.tensor([False, True, True]), ["a", "b", None])
    watch.note([True], ["c"])
    assert watch.result() == (["b", "c"], 3)
    assert watch.result() == ([], 0)
