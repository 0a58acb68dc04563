from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from timm.layers.global_context import GlobalContext as TimmGlobalContext
from torch import Tensor, nn

from attnlab.attention import build_attention
from attnlab.attention.modules.global_context import GlobalContext
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(gc: GlobalContext, x: Tensor) -> Tensor:
    places = x.flatten(2)
    if gc.key is None:
        context = places.sum(dim=2) / places.shape[2]
    else:
        scores = torch.einsum("bcp,c->bp", places, gc.key.weight[0, :, 0, 0])
        context = torch.einsum("bcp,bp->bc", places, naive.softmax(scores, dim=1))
    hidden = torch.einsum("bc,rc->br", context, gc.reduce.weight[:, :, 0, 0]) + gc.reduce.bias
    hidden = naive.relu(naive.group_norm(hidden, 1, gc.norm.weight, gc.norm.bias))
    change = torch.einsum("br,cr->bc", hidden, gc.expand.weight[:, :, 0, 0]) + gc.expand.bias
    y = torch.empty_like(x)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            place = x[:, :, i, j]
            y[:, :, i, j] = place + change if gc.fusion == "add" else place * naive.sigmoid(change)
    return y


def count(channels: int, reduced: int) -> int:
    key, bottleneck, norm = channels, 2 * channels * reduced + reduced + channels, 2 * reduced
    return key + bottleneck + norm


class TestGC(AttentionProof):
    name = "gc"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, max(4, channels // 16)))
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestWithScale(TestGC):
    options = MappingProxyType({"fusion": "scale", "reduction": 4})
    count = staticmethod(lambda channels: count(channels, channels // 4))


class TestWithMean(TestGC):
    options = MappingProxyType({"pooling": "mean"})
    count = staticmethod(lambda channels: count(channels, max(4, channels // 16)) - channels)


@pytest.mark.parametrize(("fusion", "factor"), [("add", 1.0), ("scale", 0.5)])
def test_starts_as(fusion: str, factor: float) -> None:
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(build_attention("gc", 64, fusion=fusion)(x), factor * x)


def test_the_context_is_of_the_position_that_stands_out() -> None:
    gc, x = GlobalContext(8), torch.randn(2, 8, 4, 5)
    assert gc.key is not None
    nn.init.constant_(gc.key.weight, 1.0)
    x[:, :, 2, 3] += 100.0
    torch.testing.assert_close(gc.context(x)[:, :, 0, 0], x[:, :, 2, 3])


def test_adds_the_same_vector_at_every_position() -> None:
    gc, x = GlobalContext(8), torch.randn(2, 8, 4, 5)
    nn.init.normal_(gc.expand.weight)
    change = gc(x) - x
    assert change.abs().max() > 0.01
    torch.testing.assert_close(change, change[:, :, :1, :1].expand_as(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["add", "scale"])
@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_is_timms_with_the_same_epsilon(fusion: str, pooling: str) -> None:
    ours = build_attention("gc", 64, reduction=8, fusion=fusion, pooling=pooling)
    theirs = TimmGlobalContext(
        64, use_attn=pooling == "attention", fuse_add=fusion == "add", fuse_scale=fusion == "scale"
    )
    mlp = theirs.mlp_add if fusion == "add" else theirs.mlp_scale
    mlp.norm.eps = 1e-5
    pairs = [(ours.reduce, mlp.fc1), (ours.norm, mlp.norm), (ours.expand, mlp.fc2)]
    for mine, other in pairs:
        for parameter in mine.parameters():
            nn.init.normal_(parameter)
        other.load_state_dict(mine.state_dict())
    if pooling == "attention":
        theirs.conv_attn.load_state_dict({"weight": ours.key.weight, "bias": torch.ones(1)})
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
