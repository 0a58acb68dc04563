"""``attach`` on small networks written here: what it finds, what it refuses, what it leaves alone.

What `observe.py` sees of a network shows in the sites that are found and in the errors.
"""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18, resnet50

from attnlab.attention import (
    Attended,
    Site,
    attach,
    attention_modules,
)
from attnlab.attention.modules.squeeze_excite import SqueezeExcite
from attnlab.errors import AttnlabError


class Small(nn.Module):
    """Two convolutions and what may go wrong around them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.act = nn.ReLU()
        self.unused = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.second(self.act(self.first(x))))
        return self.head(x.mean(dim=(2, 3)))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("attention", "options", "millions"),
    [
        ("none", {}, "3.505"),
        ("eca", {}, "3.505"),
        ("sa", {"groups": 8}, "3.508"),
        ("cbam", {"reduction": 32}, "3.788"),
        ("se", {"reduction": 32}, "3.794"),
        ("ela_l", {}, "3.917"),
        ("ca", {}, "3.951"),
    ],
)
def test_parameters_of_mobilenet_v2_are_the_published_ones(
    attention: str, options: dict, millions: str
) -> None:
    with torch.device("meta"):
        network = mobilenet_v2()
    attach(network, attention, at="mobilenetv2.depthwise", options=options)
    assert f"{parameters(network) / 1e6:.3f}" == millions


def test_sites_say_name_channels_and_parameters() -> None:
    network = Small()
    before = parameters(network)
    sites = attach(network, "se", at="*st", options={"reduction": 4})
    assert sites == [Site("first", channels=8, parameters=8 * 2 + 2 + 2 * 8 + 8)]
    assert parameters(network) - before == sites[0].parameters


def test_sites_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="attnlab"):
        attach(Small(), "eca", at="second")
    assert "eca at 1 site of Small" in caplog.text
    assert "second  " in caplog.text


@pytest.mark.parametrize(
    ("at", "names"),
    [
        ("first", ["first"]),
        ("s*d", ["second"]),
        ("re:first|second", ["first", "second"]),
        (["second", "first", "f*"], ["second", "first"]),
    ],
)
def test_at_takes_names_patterns_and_lists(at: str | list[str], names: list[str]) -> None:
    assert [site.name for site in attach(Small(), "eca", at=at, mode="residual")] == names


def test_none_inserts_nothing() -> None:
    network = Small()
    assert attach(network, "none") == []
    assert not list(attention_modules(network))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("replace", lambda x, a, s: a),
        ("residual", lambda x, a, s: x + a),
        ("rezero", lambda x, a, s: x + s * (a - x)),
    ],
)
def test_modes(mode: str, expected) -> None:
    wrapper = Attended(nn.Identity(), SqueezeExcite(4, reduction=2), mode)
    if mode == "rezero":
        nn.init.constant_(wrapper.attention_alpha, 0.3)
    x = torch.randn(2, 4, 5, 3)
    torch.testing.assert_close(wrapper(x), expected(x, wrapper.attention(x), 0.3))


def test_before_attends_to_the_input() -> None:
    convolution = nn.Conv2d(4, 6, 1)
    wrapper = Attended(convolution, SqueezeExcite(4, reduction=2), before=True)
    x = torch.randn(2, 4, 5, 3)
    torch.testing.assert_close(wrapper(x), convolution(wrapper.attention(x)))


def test_the_wrapper_shows_in_print_and_answers_for_its_site() -> None:
    network = resnet18()
    attach(network, "ela_b", mode="rezero")
    assert "Attended(\n        mode=rezero\n        (site): BatchNorm2d" in str(network)
    wrapper = network.layer1[0].bn2
    assert wrapper.num_features == 64
    assert wrapper.weight is wrapper.site.weight
    with pytest.raises(AttributeError, match="'BatchNorm2d' object has no attribute 'nonsense'"):
        _ = wrapper.nonsense


def test_sharing_gives_one_attention_to_each_width() -> None:
    network = resnet18()
    sites = attach(network, "se", shared=True)
    modules = {id(site.attention) for _, site in attention_modules(network)}
    assert len(modules) == 4
    assert [site.parameters > 0 for site in sites] == [True, False] * 4
    assert sum(site.parameters for site in sites) == parameters(network) - parameters(resnet18())


def test_a_module_with_two_names_is_wrapped_under_both() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    network[1] = network[0]
    assert [site.name for site in attach(network, "eca", at="0")] == ["0"]
    assert network[0] is network[1]
    assert isinstance(network[1], Attended)
    assert set(network.state_dict()) == {
        f"{i}.{k}" for i in "01" for k in ("weight", "bias", "attention.conv.weight")
    }


def test_a_site_called_twice_with_one_width_is_fine() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
    network.append(network[1])
    assert attach(network, "eca", at="1") == [Site("1", 8, 3)]


def test_sites_inside_sites_attach_together_and_one_after_the_other() -> None:
    for calls in (
        [["layer1", "layer1.0.bn2"]],
        [["layer1"], ["layer1.0.bn2"]],
        [["layer1.0.bn2"], ["layer1"]],
    ):
        network = resnet18()
        for at in calls:
            attach(network, "eca", at=at)
        assert {name for name, _ in attention_modules(network)} == {"layer1", "layer1.0.bn2"}
        assert set(resnet18().state_dict()) < set(network.state_dict())
        network(torch.randn(2, 3, 32, 32))


def test_attention_takes_device_dtype_and_training_of_its_site() -> None:
    network = Small().double().eval()
    attach(network, "ca", at="second", mode="rezero")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float64}
    assert not any(module.training for module in network.modules())
    with torch.device("meta"):
        network = Small()
    attach(network, "ca", at="second", mode="rezero")
    assert all(parameter.is_meta for parameter in network.parameters())


def test_looking_leaves_no_trace() -> None:
    network = resnet18()
    network.layer2.eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    flags = {name: module.training for name, module in network.named_modules()}
    with pytest.raises(AttnlabError):
        attach(network, "eca", at="nothing")
    assert {name: module.training for name, module in network.named_modules()} == flags
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_module_class_is_an_attention() -> None:
    network = Small()
    attach(network, SqueezeExcite, at="second", options={"reduction": 4})
    assert isinstance(network.second.attention, SqueezeExcite)


class Fails(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(1, 3, 7, 7))


class MakesTensors(Small):
    """A constant on the CPU, and a branch on values: neither runs on ``meta``."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.zeros(3, 1, 1, device="cpu")
        return super().forward(x if x.sum() >= 0 else -x)


class TwoWidths(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))


class Tuples(Small):
    def __init__(self) -> None:
        super().__init__()
        self.split = Split()

    def forward(self, x: Tensor) -> Tensor:
        return self.split(self.first(x))[0]


class Split(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("network", "at", "message"),
    [
        (
            Small,
            "secnd",
            r"Unknown placement or module of Small 'secnd'\. Did you mean 'second'.*resnet\.block",
        ),
        (Small, "aspp", r"'aspp' finds nothing in Small.*atrous.*Modules: first, second"),
        (Small, "re:(", "not a valid regular expression"),
        (Small, [], "is empty"),
        (Small, "head", r"'head' \(Linear\) gives a tensor of shape \(1, 4\)"),
        (Small, "unused", r"'unused' \(Conv2d\) is never called by Small"),
        (Tuples, "split", r"'split' \(Split\) gives a tuple of 2"),
        (TwoWidths, "act", r"'act' \(ReLU\) is called with maps of 8, 16 channels"),
        (Fails, "first", r"Fails must run once.*fails on one 224 x 224 image: shape.*example="),
    ],
)
def test_what_cannot_work_is_an_error_and_changes_nothing(network: type, at: str, message: str) -> None:
    net = network()
    with pytest.raises(AttnlabError, match=message):
        attach(net, "eca", at=at)
    assert not list(attention_modules(net))


def test_attaching_twice_to_a_site_is_an_error() -> None:
    network = Small()
    attach(network, "eca", at="second")
    with pytest.raises(AttnlabError, match=r"'second' \(Attended\) already has attention: ECA"):
        attach(network, "se", at="second")


def test_input_and_output_of_one_site_are_an_error() -> None:
    with pytest.raises(AttnlabError, match=r"input and output of layer1\.0\.conv3"):
        attach(resnet50(), "eca", at=["resnet.conv2", "layer1.0.conv3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "residul"}, "Did you mean 'residual'"),
        ({"attention": "ela_bb"}, "Did you mean 'ela_b'"),
        ({"options": {"gama": 2}}, "Did you mean 'gamma'"),
    ],
)
def test_unknown_words_are_errors_before_anything_runs(arguments: dict, message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        attach(Fails(), **{"attention": "eca", "at": "first", **arguments})


def test_a_network_that_meta_cannot_run_is_run_for_real() -> None:
    assert attach(MakesTensors(), "eca", at="second") == [Site("second", 16, 3)]


def test_an_example_stands_for_the_image() -> None:
    assert attach(Fails(), "eca", at="first", example=torch.zeros(1, 3, 7, 7)) == [Site("first", 8, 3)]


def test_a_site_with_an_attention_of_its_own_is_refused() -> None:
    site = nn.Sequential()
    site.add_module("attention", nn.Conv2d(3, 3, 1))
    with pytest.raises(AttnlabError, match="child 'attention'"):
        attach(nn.Sequential(site), "eca", at="0")
