from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention import build_attention
from attnlab.attention.modules.polarized import PolarizedSelfAttention
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def channel_gate(psa: PolarizedSelfAttention, x: Tensor) -> Tensor:
    weights = naive.softmax(naive.conv(x, psa.channel_query).flatten(2), dim=2)  # (B,1,N)
    value = naive.conv(x, psa.channel_value).flatten(2)  # (B,R,N)
    z = torch.einsum("brp,bp,cr->bc", value, weights[:, 0], psa.channel_out.weight[:, :, 0, 0])
    if isinstance(psa.norm, nn.LayerNorm):
        z = naive.group_norm(z, 1, psa.norm.weight, psa.norm.bias)
    return naive.sigmoid(z)


def spatial_gate(psa: PolarizedSelfAttention, x: Tensor) -> Tensor:
    query = naive.softmax(naive.conv(x, psa.spatial_query).mean(dim=(2, 3)), dim=1)
    return naive.sigmoid(torch.einsum("br,brhw->bhw", query, naive.conv(x, psa.spatial_value)))


def parallel(psa: PolarizedSelfAttention, x: Tensor) -> Tensor:
    by_channel = torch.einsum("bchw,bc->bchw", x, channel_gate(psa, x))
    return by_channel + torch.einsum("bchw,bhw->bchw", x, spatial_gate(psa, x))


def sequential(psa: PolarizedSelfAttention, x: Tensor) -> Tensor:
    x = torch.einsum("bchw,bc->bchw", x, channel_gate(psa, x))
    return torch.einsum("bchw,bhw->bchw", x, spatial_gate(psa, x))


class TestParallel(AttentionProof):
    name = "psa_parallel"
    formula = staticmethod(parallel)
    count = staticmethod(lambda channels: channels + 4 * channels * (channels // 2) + 2 * channels)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestSequential(TestParallel):
    name = "psa_sequential"
    formula = staticmethod(sequential)


class TestWithoutNorm(TestSequential):
    options = MappingProxyType({"norm": False})
    count = staticmethod(lambda channels: channels + 4 * channels * (channels // 2))


@pytest.mark.parametrize(("name", "factor"), [("psa_parallel", 0.5 + 0.5), ("psa_sequential", 0.5 * 0.5)])
def test_gates_of_weights_of_zero_are_a_half(name: str, factor: float) -> None:
    module, x = build_attention(name, 16), torch.randn(2, 16, 6, 5)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(module(x), x * factor)
