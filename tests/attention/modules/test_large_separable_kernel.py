from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.large_kernel import LargeKernelAttention
from attnlab.attention.modules.large_separable_kernel import LargeSeparableKernelAttention
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError

SIZES = {7: (3, 3, 2), 11: (3, 5, 2), 23: (5, 7, 3), 35: (5, 11, 3), 41: (5, 13, 3), 53: (5, 17, 3)}


def along(x: Tensor, layer: nn.Conv2d, dim: int, dilation: int) -> Tensor:
    """A depthwise convolution along one dimension; zeros outside."""
    weight, length = layer.weight.flatten(1), x.shape[dim]
    y = torch.zeros_like(x) + layer.bias[:, None, None]
    for tap in range(weight.shape[1]):
        shift = dilation * (tap - weight.shape[1] // 2)
        for place in range(max(0, -shift), min(length, length - shift)):
            y.select(dim, place).add_(weight[:, tap, None] * x.select(dim, place + shift))
    return y


def formula(lska: LargeSeparableKernelAttention, x: Tensor, dilation: int = 3) -> Tensor:
    seen = along(along(x, lska.local_row, 3, 1), lska.local_column, 2, 1)
    seen = along(along(seen, lska.distant_row, 3, dilation), lska.distant_column, 2, dilation)
    mixed = torch.einsum("bihw,oi->bohw", seen, lska.mix.weight[:, :, 0, 0])
    return x * (mixed + lska.mix.bias[:, None, None])


def count(channels: int, local: int, distant: int) -> int:
    return channels * (2 * (local + 1) + 2 * (distant + 1) + channels + 1)


class TestLSKA(AttentionProof):
    name = "lska"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, local=5, distant=7))


class TestWithSmallKernel(TestLSKA):
    options = MappingProxyType({"kernel_size": 7})
    formula = staticmethod(lambda lska, x: formula(lska, x, dilation=2))
    count = staticmethod(lambda channels: count(channels, local=3, distant=3))


@pytest.mark.parametrize("kernel_size", SIZES)
def test_the_kernels_of_the_authors(kernel_size: int) -> None:
    local, distant, dilation = SIZES[kernel_size]
    lska = LargeSeparableKernelAttention(4, kernel_size)
    assert (lska.local_row.kernel_size, lska.local_column.kernel_size) == ((1, local), (local, 1))
    assert (lska.distant_row.kernel_size, lska.distant_column.kernel_size) == ((1, distant), (distant, 1))
    assert (lska.distant_row.dilation, lska.distant_column.dilation) == ((1, dilation), (dilation, 1))
    x = torch.randn(1, 4, 9, 6)
    torch.testing.assert_close(lska(x), formula(lska, x, dilation), atol=1e-4, rtol=1e-4)


def test_it_is_lka_with_kernels_that_are_products() -> None:
    torch.manual_seed(0)
    lska, lka = LargeSeparableKernelAttention(8, 23).double(), LargeKernelAttention(8, 21).double()
    pairs = (
        (lka.local, lska.local_row, lska.local_column),
        (lka.distant, lska.distant_row, lska.distant_column),
    )
    with torch.no_grad():
        for square, row, column in pairs:
            square.weight.copy_(torch.einsum("coi,coj->coij", column.weight[..., 0], row.weight[:, :, 0]))
        lka.mix.load_state_dict(lska.mix.state_dict())
    x = torch.randn(2, 8, 12, 9, dtype=torch.float64)
    torch.testing.assert_close(lska(x), lka(x))


def test_initial_weights_are_those_of_the_authors() -> None:
    torch.manual_seed(0)
    lska = LargeSeparableKernelAttention(256)
    layers = (lska.local_row, lska.local_column, lska.distant_row, lska.distant_column, lska.mix)
    for layer, inputs in zip(layers, (5, 5, 7, 7, 256), strict=True):
        torch.testing.assert_close(layer.weight.var().item(), 2 / inputs, rtol=0.15, atol=0)
        assert not layer.bias.any()


def test_with_a_gate_of_one_it_is_the_identity() -> None:
    lska, x = LargeSeparableKernelAttention(8), torch.randn(2, 8, 6, 5)
    nn.init.zeros_(lska.mix.weight)
    nn.init.ones_(lska.mix.bias)
    torch.testing.assert_close(lska(x), x)


def test_other_kernels_are_errors() -> None:
    with pytest.raises(AttnlabError, match=r"one of \[7, 11, 23, 35, 41, 53\], got 21"):
        LargeSeparableKernelAttention(8, 21)
