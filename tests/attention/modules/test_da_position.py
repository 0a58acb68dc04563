from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from attnlab.attention.modules.da_position import PositionAttention
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(pam: PositionAttention, x: Tensor) -> Tensor:
    b, c, d = (naive.conv(x, layer).flatten(2) for layer in (pam.query, pam.key, pam.value))
    means = torch.zeros_like(d)
    for j in range(d.shape[2]):
        weights = naive.softmax((b[:, :, [j]] * c).sum(dim=1), dim=1)
        means[:, :, j] = (weights[:, None] * d).sum(dim=2)
    return pam.alpha * means.reshape(x.shape) + x


def count(channels: int, reduced: int) -> int:
    return 2 * channels * reduced + reduced + channels * channels + channels + 1


class TestPositionAttention(AttentionProof):
    name = "da_position"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, channels // 8))
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestWithoutReduction(TestPositionAttention):
    options = MappingProxyType({"reduction": 1})
    count = staticmethod(lambda channels: count(channels, channels))

    def build(self, channels: int = 16) -> torch.nn.Module:
        """Smaller queries: logits are sums of more terms here, and bfloat16 keeps 8 bits of them."""
        module = super().build(channels)
        assert isinstance(module, PositionAttention)
        torch.nn.init.normal_(module.query.weight, std=0.1)
        return module


def test_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 6, 5)
    torch.testing.assert_close(PositionAttention(16)(x), x)


def test_a_bias_of_the_keys_would_change_nothing() -> None:
    module, x = PositionAttention(16).double(), torch.randn(2, 16, 6, 5, dtype=torch.float64)
    torch.nn.init.ones_(module.alpha)
    before = module(x)
    module.key.bias = torch.nn.Parameter(torch.randn(2, dtype=torch.float64))
    torch.testing.assert_close(module(x), before)


def test_half_precision_is_finite_where_logits_overflow_it() -> None:
    module, x = PositionAttention(64), torch.randn(1, 64, 12, 12) * 1e3
    torch.nn.init.ones_(module.alpha)
    assert module.half()(x.half()).isfinite().all()
