"""Each module against its paper's formula, written with loops and sums instead of layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention import CBAM, ECA, ELA, CoordinateAttention, ShuffleAttention, SqueezeExcite


def randomise(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def sigmoid(value: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-value))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 16, 5, 7, dtype=torch.float64)


@pytest.mark.parametrize("channels_per_group", [1, 8])
@pytest.mark.parametrize("norm_groups", [1, 4, 16])
def test_ela(x: Tensor, channels_per_group: int, norm_groups: int) -> None:
    ela = randomise(ELA(16, kernel_size=5, channels_per_group=channels_per_group, norm_groups=norm_groups))

    def gate(strip: Tensor) -> Tensor:
        convolved = torch.zeros_like(strip)
        for channel in range(16):
            first = channel // channels_per_group * channels_per_group
            for position in range(strip.shape[2]):
                for tap in range(5):
                    source = position + tap - 2
                    if 0 <= source < strip.shape[2]:
                        group = strip[:, first : first + channels_per_group, source]
                        convolved[:, channel, position] += group @ ela.conv.weight[channel, :, tap]
        grouped = convolved.unflatten(1, (norm_groups, -1))
        mean = grouped.mean(dim=(2, 3), keepdim=True)
        variance = (grouped - mean).square().mean(dim=(2, 3), keepdim=True)
        normal = ((grouped - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        return sigmoid(normal * ela.norm.weight[:, None] + ela.norm.bias[:, None])

    gate_h, gate_w = gate(x.sum(dim=3) / 7), gate(x.sum(dim=2) / 5)
    torch.testing.assert_close(ela(x), torch.einsum("bchw,bch,bcw->bchw", x, gate_h, gate_w))


@pytest.mark.parametrize("bias", [True, False])
def test_squeeze_excite(x: Tensor, bias: bool) -> None:
    se = randomise(SqueezeExcite(16, reduction=4, bias=bias))
    hidden = torch.einsum("bchw,rc->br", x, se.reduce.weight[:, :, 0, 0]) / 35
    hidden = (hidden + (se.reduce.bias if bias else 0)).clamp(min=0)
    gate = sigmoid(hidden @ se.expand.weight[:, :, 0, 0].T + (se.expand.bias if bias else 0))
    torch.testing.assert_close(se(x), torch.einsum("bchw,bc->bchw", x, gate))


def test_eca(x: Tensor) -> None:
    eca = randomise(ECA(16))
    weight, means, expected = eca.conv.weight[0, 0], x.mean(dim=(2, 3)), torch.empty_like(x)
    for channel in range(16):
        total = torch.zeros(2, dtype=torch.float64)
        for tap, offset in enumerate((-1, 0, 1)):
            if 0 <= channel + offset < 16:
                total += weight[tap] * means[:, channel + offset]
        expected[:, channel] = x[:, channel] * sigmoid(total)[:, None, None]
    torch.testing.assert_close(eca(x), expected)


@pytest.mark.parametrize(
    ("channels", "kernel_size"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_eca_kernel_grows_with_the_width(channels: int, kernel_size: int) -> None:
    exact = (math.log2(channels) + 1) / 2
    assert int(exact) <= kernel_size <= int(exact) + 1
    assert ECA(channels).conv.kernel_size == (kernel_size,)


def test_cbam(x: Tensor) -> None:
    cbam = randomise(CBAM(16, reduction=4, kernel_size=3))

    def mlp(pooled: Tensor) -> Tensor:
        return (pooled @ cbam.reduce.weight[:, :, 0, 0].T).clamp(min=0) @ cbam.expand.weight[:, :, 0, 0].T

    gate = sigmoid(mlp(x.flatten(2).mean(dim=2)) + mlp(x.flatten(2).max(dim=2).values))
    x = torch.einsum("bchw,bc->bchw", x, gate)
    padded = nn.functional.pad(torch.stack([x.mean(dim=1), x.max(dim=1).values], dim=1), (1, 1, 1, 1))
    places = torch.empty(2, 5, 7, dtype=torch.float64)
    for i in range(5):
        for j in range(7):
            places[:, i, j] = (padded[:, :, i : i + 3, j : j + 3] * cbam.spatial.weight[0]).sum(dim=(1, 2, 3))
    torch.testing.assert_close(
        cbam(x / gate[:, :, None, None]), torch.einsum("bchw,bhw->bchw", x, sigmoid(places))
    )


@pytest.mark.parametrize("norm", ["bn", "gn", "none"])
def test_coordinate_attention(x: Tensor, norm: str) -> None:
    ca = randomise(CoordinateAttention(16, reduction=4, min_channels=2, norm=norm, norm_groups=2))
    weight = ca.reduce.weight[:, :, 0]
    strips = [x.mean(dim=3), x.mean(dim=2)]
    narrow = torch.cat([torch.einsum("bcl,rc->brl", strip, weight) for strip in strips], dim=2)
    narrow = narrow + ca.reduce.bias[:, None]
    if norm == "bn":
        narrow = narrow / math.sqrt(1 + 1e-5) * ca.norm.weight[:, None] + ca.norm.bias[:, None]
    elif norm == "gn":
        grouped = narrow.reshape(2, 2, -1)
        grouped = grouped - grouped.mean(dim=2, keepdim=True)
        grouped = grouped / (grouped.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()
        narrow = grouped.reshape(narrow.shape) * ca.norm.weight[:, None] + ca.norm.bias[:, None]
    narrow = narrow * (narrow + 3).clamp(0, 6) / 6
    gates = [
        sigmoid(torch.einsum("brl,cr->bcl", part, expand.weight[:, :, 0]) + expand.bias[:, None])
        for part, expand in ((narrow[:, :, :5], ca.expand_h), (narrow[:, :, 5:], ca.expand_w))
    ]
    torch.testing.assert_close(ca(x), torch.einsum("bchw,bch,bcw->bchw", x, *gates))


def test_shuffle_attention(x: Tensor) -> None:
    sa = randomise(ShuffleAttention(16, groups=2))
    gated = torch.empty_like(x)
    for group in range(2):
        for unit in range(4):
            first, second = group * 8 + unit, group * 8 + 4 + unit
            mean = x[:, first].mean(dim=(1, 2), keepdim=True)
            gated[:, first] = x[:, first] * sigmoid(sa.channel_weight[unit] * mean + sa.channel_bias[unit])
            part = x[:, second]
            mean = part.mean(dim=(1, 2), keepdim=True)
            spread = ((part - mean).square().mean(dim=(1, 2), keepdim=True) + 1e-5).sqrt()
            normal = (part - mean) / spread * sa.norm.weight[unit] + sa.norm.bias[unit]
            gated[:, second] = part * sigmoid(sa.spatial_weight[unit] * normal + sa.spatial_bias[unit])
    expected = torch.empty_like(x)
    for channel in range(8):
        expected[:, 2 * channel], expected[:, 2 * channel + 1] = gated[:, channel], gated[:, 8 + channel]
    torch.testing.assert_close(sa(x), expected)
