from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from segmentation_models_pytorch.base.modules import SCSEModule
from torch import Tensor, nn

from attnlab.attention import build_attention
from attnlab.attention.modules.scse import (
    ChannelSqueezeExcite,
    ConcurrentSqueezeExcite,
    SpatialSqueezeExcite,
)
from attnlab.attention.modules.squeeze_excite import SqueezeExcite
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def channel_formula(cse: ChannelSqueezeExcite, x: Tensor) -> Tensor:
    means = x.sum(dim=(2, 3)) / x.shape[2:].numel()
    hidden = naive.relu(torch.einsum("bc,rc->br", means, cse.reduce.weight[:, :, 0, 0]) + cse.reduce.bias)
    gate = naive.sigmoid(torch.einsum("br,cr->bc", hidden, cse.expand.weight[:, :, 0, 0]) + cse.expand.bias)
    return torch.einsum("bchw,bc->bchw", x, gate)


def spatial_formula(sse: SpatialSqueezeExcite, x: Tensor) -> Tensor:
    gate = naive.sigmoid(torch.einsum("bchw,c->bhw", x, sse.squeeze.weight[0, :, 0, 0]) + sse.squeeze.bias)
    return torch.einsum("bchw,bhw->bchw", x, gate)


def formula(scse: ConcurrentSqueezeExcite, x: Tensor) -> Tensor:
    return channel_formula(scse.channel, x) + spatial_formula(scse.spatial, x)


def max_formula(scse: ConcurrentSqueezeExcite, x: Tensor) -> Tensor:
    by_channel, by_place = channel_formula(scse.channel, x), spatial_formula(scse.spatial, x)
    return torch.where(by_channel > by_place, by_channel, by_place)


def count(channels: int, reduced: int) -> int:
    return 2 * channels * reduced + reduced + channels


class TestSCSE(AttentionProof):
    name = "scse"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, channels // 2) + channels + 1)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestWithMaximum(TestSCSE):
    options = MappingProxyType({"combine": "max", "reduction": 4})
    formula = staticmethod(max_formula)
    count = staticmethod(lambda channels: count(channels, channels // 4) + channels + 1)


class TestCSE(AttentionProof):
    name = "cse"
    formula = staticmethod(channel_formula)
    count = staticmethod(lambda channels: count(channels, channels // 2))
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestSSE(AttentionProof):
    name = "sse"
    formula = staticmethod(spatial_formula)
    count = staticmethod(lambda channels: channels + 1)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


@pytest.mark.parametrize(("combine", "factor"), [("add", 1.0), ("max", 0.5)])
def test_two_gates_of_a_half_make(combine: str, factor: float) -> None:
    scse = build_attention("scse", 8, combine=combine)
    for parameter in scse.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 8, 4, 5)
    torch.testing.assert_close(scse(x), factor * x)


def test_the_channel_half_is_squeeze_and_excitation() -> None:
    cse, se = ChannelSqueezeExcite(64), SqueezeExcite(64, reduction=2)
    se.load_state_dict(cse.state_dict())
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(cse(x), se(x))


def test_the_sum_is_that_of_segmentation_models_pytorch() -> None:
    ours, theirs = ConcurrentSqueezeExcite(64, reduction=16), SCSEModule(64, reduction=16)
    mine = (ours.channel.reduce, ours.channel.expand, ours.spatial.squeeze)
    for layer, other in zip(mine, (theirs.cSE[1], theirs.cSE[3], theirs.sSE[0]), strict=True):
        other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))
