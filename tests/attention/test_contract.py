"""Every registered name, and the options that change a module's structure, through the one contract."""

from __future__ import annotations

import inspect
import sys
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

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


class ChannelScale(nn.Module):
    """The module of docs/add-an-attention.md.

    Args:
        channels: Channels C of the map.
        start: First value of the weights.
    """

    def __init__(self, channels: int, start: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), start))
        self.bias = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * (self.weight * means + self.bias).sigmoid().to(x.dtype)


class TestOwnModule(AttentionTester):
    name = f"{__name__}.ChannelScale"
    options = MappingProxyType({"start": 0.5})

    @pytest.fixture(autouse=True)
    def _importable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, __name__, inspect.getmodule(type(self)))
