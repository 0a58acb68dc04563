"""No registered name without its proofs, and the tester on a module that is not attnlab's."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention import list_attentions
from attnlab.attention.testing import AttentionTester

PROOFS = Path(__file__).parent / "modules"


def proven_names() -> set[str]:
    """The values of ``name = ...`` in the test classes of the modules' folder."""
    assignments = (
        node
        for file in PROOFS.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    )
    return {
        str(node.value.value)  # type: ignore[attr-defined]
        for node in assignments
        if any(isinstance(target, ast.Name) and target.id == "name" for target in node.targets)
    }


def test_every_name_has_its_proofs() -> None:
    missing = set(list_attentions()) - proven_names()
    assert not missing, (
        f"give each of these a tester in {PROOFS}, with the line name = ...: {sorted(missing)}"
    )


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
