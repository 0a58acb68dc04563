from __future__ import annotations

from torch import Tensor, nn

from attnlab.attention.testing import SYMMETRIES, AttentionProof


def formula(none: nn.Module, x: Tensor) -> Tensor:
    return x * 1


class TestNone(AttentionProof):
    name = "none"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 0)
    symmetries = tuple(SYMMETRIES)
