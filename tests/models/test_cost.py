"""Costs against counts done by hand."""

import torch
from torch import nn

from attnlab.attention import attach, attention_modules
from attnlab.models import build_segmenter
from attnlab.models.cost import measure_cost


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
    cost = measure_cost(network, modules, (10, 12))
    plain = 120 * (3 * 8 * 9 + 8 * 4)
    assert cost.attention_macs == 8 * 8 + 4 * 4
    assert cost.macs == plain + cost.attention_macs
    assert cost.attention_parameters == 8 * 8 + 4 * 4
    assert cost.parameters == (3 * 8 * 9 + 8) + (8 * 4 + 4) + cost.attention_parameters


def test_leaves_the_network_as_it_is():
    network = build_segmenter("DeepLabV3Plus", "resnet18", 3).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    cost = measure_cost(network, [], (64, 64))
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.attention_macs == cost.attention_parameters == 0
    assert network.training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())
