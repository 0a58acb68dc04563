from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn

from attnlab.attention.modules.multi_scale import EfficientMultiScaleAttention
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(ema: EfficientMultiScaleAttention, x: Tensor) -> Tensor:
    size, y = x.shape[1] // ema.groups, torch.empty_like(x)
    places = x.shape[2] * x.shape[3]
    for group in range(ema.groups):
        channels = slice(group * size, (group + 1) * size)
        part = x[:, channels]  # (B,D,H,W)
        rows = naive.sigmoid(naive.conv(part.sum(dim=3) / x.shape[3], ema.conv_strips))
        columns = naive.sigmoid(naive.conv(part.sum(dim=2) / x.shape[2], ema.conv_strips))
        gated = torch.einsum("bdij,bdi,bdj->bdij", part, rows, columns)
        u = naive.group_norm(gated, size, ema.norm.weight, ema.norm.bias)
        v = naive.conv(part, ema.conv_window)
        p = naive.softmax(u.sum(dim=(2, 3)) / places, dim=1)
        q = naive.softmax(v.sum(dim=(2, 3)) / places, dim=1)
        total = torch.einsum("bd,bdij->bij", p, v) + torch.einsum("bd,bdij->bij", q, u)
        y[:, channels] = part * naive.sigmoid(total)[:, None]
    return y


def count(size: int) -> int:
    return naive.parameters_of((size, size), (size,), (2, size), (size, size, 3, 3), (size,))


class TestEMA(AttentionProof):
    name = "ema"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count({16: 1, 64: 2, 200: 8}[channels]))  # 16, 32 and 25 groups
    symmetries = ("permute_channels",)  # one channel a group at the width of the test


class TestInFourGroups(AttentionProof):
    name = "ema"
    formula = staticmethod(formula)
    options = MappingProxyType({"groups": 4})
    count = staticmethod(lambda channels: count(channels // 4))


def test_groups_share_the_weights() -> None:
    ema, x = EfficientMultiScaleAttention(16, groups=4), torch.randn(2, 16, 6, 5)
    order = torch.tensor([2, 0, 3, 1])

    def changed(value: Tensor) -> Tensor:
        return value.unflatten(1, (4, 4))[:, order].flatten(1, 2)

    torch.testing.assert_close(ema(changed(x)), changed(ema(x)))


def test_turning_the_map_turns_the_output_if_the_window_is_turned() -> None:
    ema, turned = (EfficientMultiScaleAttention(16, groups=4) for _ in range(2))
    turned.load_state_dict(ema.state_dict())
    with torch.no_grad():
        turned.conv_window.weight.copy_(ema.conv_window.weight.transpose(2, 3))
    x = torch.randn(2, 16, 6, 5)
    torch.testing.assert_close(turned(x.transpose(2, 3)), ema(x).transpose(2, 3))


def test_one_pixel_is_gated_by_the_biases_and_the_middle_of_the_window() -> None:
    ema, x = EfficientMultiScaleAttention(8, groups=1), torch.randn(2, 8, 1, 1)
    nn.init.normal_(ema.norm.bias)
    v = naive.conv(x, ema.conv_window)[:, :, 0, 0]  # zeros around it
    bias = ema.norm.bias
    gate = (v @ bias.softmax(dim=0) + v.softmax(dim=1) @ bias).sigmoid()
    torch.testing.assert_close(ema(x), x * gate[:, None, None, None])


def test_without_weights_every_gate_is_a_half() -> None:
    ema, x = EfficientMultiScaleAttention(64), torch.randn(2, 64, 6, 5)
    for parameter in ema.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(ema(x), x / 2)
