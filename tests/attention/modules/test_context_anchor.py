from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.context_anchor import ContextAnchorAttention
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(caa: ContextAnchorAttention, x: Tensor, pool_size: int = 7) -> Tensor:
    height, width = x.shape[2:]
    means, reach = torch.empty_like(x), pool_size // 2
    for i in range(height):
        for j in range(width):
            window = x[:, :, max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
            means[:, :, i, j] = window.sum(dim=(2, 3)) / pool_size**2
    strips = naive.conv(naive.conv(naive.conv(means, caa.before), caa.row), caa.column)
    return x * naive.sigmoid(naive.conv(strips, caa.after))


def count(channels: int, *lengths: int) -> int:
    return 2 * (channels * channels + channels) + sum(channels * (length + 1) for length in lengths)


class TestCAA(AttentionProof):
    name = "caa"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, 11, 11))


class TestWithOtherKernels(TestCAA):
    options = MappingProxyType({"h_kernel_size": 5, "v_kernel_size": 3, "pool_size": 3})
    formula = staticmethod(lambda caa, x: formula(caa, x, pool_size=3))
    count = staticmethod(lambda channels: count(channels, 5, 3))


def test_the_first_strip_lies_along_the_row() -> None:
    caa = ContextAnchorAttention(8, h_kernel_size=13, v_kernel_size=9)
    assert caa.row.weight.shape == (8, 1, 1, 13)
    assert caa.column.weight.shape == (8, 1, 9, 1)


def test_a_gate_sees_the_strips_and_the_window() -> None:
    caa, x = ContextAnchorAttention(1).double(), torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    for parameter in caa.parameters():
        nn.init.constant_(parameter, 0.1)
    x = (x + 1).requires_grad_()
    caa(x)[0, 0, 20, 20].backward()
    assert x.grad is not None
    assert x.grad.count_nonzero() == 17 * 17  # 11 + 7 - 1 a side
    assert x.grad[0, 0, 12:29, 12:29].all()


@pytest.mark.parametrize(("bias", "gate"), [(0.0, 0.5), (50.0, 1.0), (-200.0, 0.0)])
def test_gates_go_from_zero_to_one(bias: float, gate: float) -> None:
    caa, x = ContextAnchorAttention(8), torch.randn(2, 8, 6, 5)
    nn.init.zeros_(caa.after.weight)
    nn.init.constant_(caa.after.bias, bias)
    torch.testing.assert_close(caa(x), gate * x)


@pytest.mark.parametrize("option", ["h_kernel_size", "v_kernel_size", "pool_size"])
def test_even_kernels_are_errors(option: str) -> None:
    with pytest.raises(AttnlabError, match="must be odd"):
        ContextAnchorAttention(8, **{option: 4})
