from __future__ import annotations

from types import MappingProxyType

import torch
from timm.layers.coord_attn import CoordAttn
from torch import Tensor, nn

from attnlab.attention.modules.coordinate import CoordinateAttention
from attnlab.attention.rules import GroupNorm
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(ca: CoordinateAttention, x: Tensor) -> Tensor:
    height = x.shape[2]
    narrow = naive.conv(torch.cat([x.mean(dim=3), x.mean(dim=2)], dim=2), ca.reduce)
    if isinstance(ca.norm, nn.BatchNorm1d):
        narrow = naive.batch_norm(narrow, ca.norm)
    elif isinstance(ca.norm, GroupNorm):
        narrow = naive.group_norm(narrow, ca.norm.num_groups, ca.norm.weight, ca.norm.bias)
    narrow = narrow * naive.hard_sigmoid(narrow)
    gate_h = naive.sigmoid(naive.conv(narrow[:, :, :height], ca.expand_h))
    gate_w = naive.sigmoid(naive.conv(narrow[:, :, height:], ca.expand_w))
    return torch.einsum("bchw,bch,bcw->bchw", x, gate_h, gate_w)


def count(channels: int, reduced: int, norm: int = 2) -> int:
    return channels * reduced + reduced + norm * reduced + 2 * (reduced * channels + channels)


class TestCA(AttentionProof):
    name = "ca"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, max(8, channels // 32)))
    symmetries = ("flip_height", "flip_width")


class TestWithGroupNorm(TestCA):
    options = MappingProxyType({"norm": "gn", "reduction": 4, "min_channels": 2, "norm_groups": 2})
    count = staticmethod(lambda channels: count(channels, channels // 4))


class TestWithoutNormAndReduction(TestCA):
    options = MappingProxyType({"norm": "none", "reduction": 1})
    count = staticmethod(lambda channels: count(channels, channels, norm=0))


def test_is_timms_whose_layers_have_no_biases() -> None:
    ours = CoordinateAttention(64, reduction=16).eval()
    theirs = CoordAttn(64, rd_ratio=1 / 16, rd_divisor=8, has_skip=False).eval()
    pairs = ((ours.reduce, theirs.conv1), (ours.expand_h, theirs.conv_h), (ours.expand_w, theirs.conv_w))
    for mine, other in pairs:
        nn.init.zeros_(mine.bias)
        other.load_state_dict({"weight": mine.weight[..., None]})
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))
