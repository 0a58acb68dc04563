from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.large_kernel import LargeKernelAttention
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError


def depthwise(x: Tensor, layer: nn.Conv2d, dilation: int) -> Tensor:
    """The sum over taps that lie around the centre; zeros outside."""
    height, width = x.shape[2:]
    taps = layer.weight.shape[2]
    y = torch.zeros_like(x) + layer.bias[:, None, None]
    for i in range(taps):
        for j in range(taps):
            # A tap looks this far down and right of the position that it serves.
            down, right = (round(dilation * (tap - (taps - 1) / 2)) for tap in (i, j))
            rows = [row for row in range(height) if 0 <= row + down < height]
            columns = [column for column in range(width) if 0 <= column + right < width]
            if rows and columns:
                seen = x[:, :, rows[0] + down : rows[-1] + down + 1][
                    :, :, :, columns[0] + right : columns[-1] + right + 1
                ]
                y[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += (
                    layer.weight[:, 0, i, j, None, None] * seen
                )
    return y


def formula(lka: LargeKernelAttention, x: Tensor, dilation: int = 3) -> Tensor:
    seen = depthwise(depthwise(x, lka.local, 1), lka.distant, dilation)
    mixed = torch.einsum("bihw,oi->bohw", seen, lka.mix.weight[:, :, 0, 0])
    return x * (mixed + lka.mix.bias[:, None, None])


def count(channels: int, local: int, distant: int) -> int:
    return channels * (local**2 + 1 + distant**2 + 1 + channels + 1)


class TestLKA(AttentionProof):
    name = "lka"

    def build(self, channels: int = 16) -> nn.Module:
        # No sigmoid bounds the gates: small parameters keep them about 1, which the tolerances are for.
        module = super().build(channels)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(0.5)
        return module

    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, local=5, distant=7))


class TestWithSmallKernel(TestLKA):
    """An even number of taps, which the paper's ablation has: 4 of dilation 2."""

    options = MappingProxyType({"kernel_size": 7, "dilation": 2})
    formula = staticmethod(lambda lka, x: formula(lka, x, dilation=2))
    count = staticmethod(lambda channels: count(channels, local=3, distant=4))


@pytest.mark.parametrize(("kernel_size", "dilation", "taps"), [(7, 2, 4), (14, 3, 5), (21, 3, 7), (28, 4, 7)])
def test_the_kernels_of_the_papers_ablation(kernel_size: int, dilation: int, taps: int) -> None:
    lka = LargeKernelAttention(8, kernel_size, dilation)
    assert lka.local.kernel_size == (2 * dilation - 1,) * 2
    assert lka.distant.kernel_size == (taps, taps)
    x = torch.randn(1, 8, 9, 4)
    assert lka(x).shape == x.shape


@pytest.mark.parametrize(("channels", "published"), [(32, 3392), (64, 8832)])
def test_has_as_many_weights_as_the_paper_counts(channels: int, published: int) -> None:
    weights = [p for name, p in LargeKernelAttention(channels).named_parameters() if name.endswith("weight")]
    assert sum(weight.numel() for weight in weights) == published


def test_a_gate_sees_23_positions_a_side() -> None:
    lka, x = LargeKernelAttention(1).double(), torch.ones(1, 1, 41, 41, dtype=torch.float64)
    for parameter in lka.parameters():
        nn.init.ones_(parameter)
    x[0, 0, 20, 20] = 2
    changed = lka(x) != lka(torch.ones_like(x))
    assert changed.sum() == 23 * 23
    assert changed[0, 0, 9:32, 9:32].all()


def test_initial_weights_are_those_of_the_authors() -> None:
    torch.manual_seed(0)
    lka = LargeKernelAttention(256)
    for layer, inputs in ((lka.local, 25), (lka.distant, 49), (lka.mix, 256)):
        torch.testing.assert_close(layer.weight.var().item(), 2 / inputs, rtol=0.05, atol=0)
        assert not layer.bias.any()


def test_with_a_gate_of_one_it_is_the_identity() -> None:
    lka, x = LargeKernelAttention(8), torch.randn(2, 8, 6, 5)
    nn.init.zeros_(lka.mix.weight)
    nn.init.ones_(lka.mix.bias)
    torch.testing.assert_close(lka(x), x)


@pytest.mark.parametrize(
    ("kernel_size", "dilation", "says"),
    [(0, 3, "at least 1"), (21, 0, "at least 1"), (12, 3, "4 taps over 10 positions, which have no centre")],
)
def test_kernels_that_cannot_be_are_errors(kernel_size: int, dilation: int, says: str) -> None:
    with pytest.raises(AttnlabError, match=says):
        LargeKernelAttention(8, kernel_size, dilation)
