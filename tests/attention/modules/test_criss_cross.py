from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from attnlab.attention.modules.criss_cross import CrissCrossAttention
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(cca: CrissCrossAttention, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    for _ in range(cca.recurrence):
        query, key, value = (naive.conv(x, layer) for layer in (cca.query, cca.key, cca.value))
        means = torch.zeros_like(x)
        for i in range(height):
            for j in range(width):
                cross = sorted({(i, w) for w in range(width)} | {(h, j) for h in range(height)})
                assert len(cross) == height + width - 1
                rows, columns = (list(each) for each in zip(*cross, strict=True))
                logits = torch.einsum("br,brn->bn", query[:, :, i, j], key[:, :, rows, columns])
                weights = naive.softmax(logits, dim=1)
                means[:, :, i, j] = torch.einsum("bn,bcn->bc", weights, value[:, :, rows, columns])
        x = cca.gamma * means + x
    return x


def count(channels: int, reduced: int) -> int:
    return 2 * channels * reduced + reduced + channels * channels + channels + 1


class TestCrissCross(AttentionProof):
    name = "criss_cross"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, channels // 8))
    symmetries = ("flip_height", "flip_width", "transpose")


class TestOnce(TestCrissCross):
    options = MappingProxyType({"recurrence": 1, "reduction": 16})
    count = staticmethod(lambda channels: count(channels, channels // 16))


def test_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 6, 5)
    torch.testing.assert_close(CrissCrossAttention(16)(x), x)


@pytest.mark.parametrize(("recurrence", "reached"), [(1, 6 + 5 - 1), (2, 6 * 5)])
def test_sees_the_cross_and_the_second_time_everything(recurrence: int, reached: int) -> None:
    module, x = CrissCrossAttention(16, recurrence=recurrence), torch.randn(1, 16, 6, 5, requires_grad=True)
    torch.nn.init.ones_(module.gamma)
    module(x)[0, :, 2, 3].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum(dim=1).count_nonzero() == reached


def test_alike_positions_are_weighted_alike_and_itself_once() -> None:
    module, x = CrissCrossAttention(16, recurrence=1), torch.randn(1, 16, 6, 5)
    torch.nn.init.ones_(module.gamma)
    for parameter in module.query.parameters():
        torch.nn.init.zeros_(parameter)
    value = module.value(x)
    cross = value[:, :, 2].sum(dim=2) + value[:, :, :, 3].sum(dim=2) - value[:, :, 2, 3]
    torch.testing.assert_close(module(x)[:, :, 2, 3], x[:, :, 2, 3] + cross / 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (8, 9)], ids=str)
def test_half_precision_is_finite_where_logits_overflow_it(dtype: torch.dtype, size: tuple[int, int]) -> None:
    module, x = CrissCrossAttention(64, recurrence=1), torch.randn(1, 64, *size) * 1e3
    torch.nn.init.ones_(module.gamma)
    x = x.to(dtype).requires_grad_()
    y = module.to(dtype)(x)
    y.sum().backward()
    assert x.grad is not None
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_recurrence_starts_at_one() -> None:
    with pytest.raises(AttnlabError, match="recurrence must be at least 1, got 0"):
        CrissCrossAttention(16, recurrence=0)
