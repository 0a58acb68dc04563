"""Costs against counts done by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attnlab.attention import attach, attention_modules, macs
from attnlab.models import build_detector, build_segmenter
from attnlab.models.cost import measure_cost

SMALL = {"min_size": 64, "max_size": 64}


class Gate(nn.Module):
    """A 1x1 convolution on the pooled map: C*C multiply-accumulates and parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv(x.mean((2, 3), keepdim=True)).sigmoid()


def test_counts_convolutions_and_the_attention_in_them():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    attach(network, Gate, at=["0", "2"])
    modules = [site.attention for _, site in attention_modules(network)]
    found = measure_cost(network, modules, (10, 12))
    plain = 120 * (3 * 8 * 9 + 8 * 4)
    assert found.attention_macs == 8 * 8 + 4 * 4
    assert found.macs == plain + found.attention_macs
    assert found.attention_parameters == 8 * 8 + 4 * 4
    assert found.parameters == (3 * 8 * 9 + 8) + (8 * 4 + 4) + found.attention_parameters


def test_leaves_the_network_as_it_is():
    network = build_segmenter("DeepLabV3Plus", "resnet18", 3).network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = measure_cost(network, [], (64, 64))
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.attention_macs == found.attention_parameters == 0
    assert network.training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("retinanet", {"backbone": "resnet18", **SMALL}),
        ("fcos", {"backbone": "mobilenet_v2", **SMALL}),
        ("ssdlite", {"size": 96}),
        ("yolox_nano", {"size": 64}),
        ("yolof", {"backbone": "resnet18", **SMALL}),
    ],
)
def test_detectors_of_one_stage_are_counted_without_being_run(name, options, monkeypatch):
    """What follows their last weights counts nothing, so that it cannot be done on meta does not matter."""
    network = build_detector(name, 3, options).network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 128, 128))
    devices, count = [], macs._count
    monkeypatch.setattr(macs, "_count", lambda *args: devices.append(args[-1]) or count(*args))
    assert measure_cost(network, [], (128, 128)).macs == counter.get_total_flops() // 2
    assert devices == ["meta"]


def test_detectors_of_two_stages_are_run():
    network = build_detector("faster_rcnn", 3, {"backbone": "resnet18", **SMALL}).network
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, 64, 64))
    assert measure_cost(network, [], (64, 64)).macs == counter.get_total_flops() // 2
