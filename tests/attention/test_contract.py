"""Every registered name, and the options that change a module's structure, through the one contract."""

from __future__ import annotations

import pytest

from attnlab.attention import list_attentions
from attnlab.attention.testing import AttentionTester

VARIANTS = [
    ("se", {"bias": False}),
    ("eca", {"kernel_size": 5}),
    ("cbam", {"bias": True, "reduction": 2}),
    ("ca", {"norm": "gn"}),
    ("ca", {"norm": "none", "reduction": 1}),
    ("sa", {"groups": 2}),
]


class TestEveryAttention(AttentionTester):
    @pytest.fixture(autouse=True, params=[*((name, {}) for name in list_attentions()), *VARIANTS], ids=str)
    def _attention(self, request: pytest.FixtureRequest) -> None:
        self.name, self.options = request.param
