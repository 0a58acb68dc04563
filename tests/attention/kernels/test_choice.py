"""Which backend works where, and that both offer the same."""

from __future__ import annotations

import inspect
import logging
from types import ModuleType

import pytest
import torch

from attnlab.attention import build_attention
from attnlab.attention.kernels import choice, torch_backend
from attnlab.errors import AttnlabError


def public(module: ModuleType) -> dict[str, str]:
    """Signatures of the functions that a module defines for others."""
    return {
        name: str(inspect.signature(function))
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def test_both_backends_offer_the_six_functions_of_the_protocol() -> None:
    offered = {
        name: str(inspect.signature(function)).replace("(self, ", "(")
        for name, function in inspect.getmembers(choice.Backend, inspect.isfunction)
        if not name.startswith("_")
    }
    assert len(offered) == 6
    assert public(torch_backend) == offered
    pytest.importorskip("triton", reason="Triton is not installed")
    from attnlab.attention.kernels import triton_backend

    assert public(triton_backend) == offered


def test_the_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    choice._say.cache_clear()
    with caplog.at_level(logging.INFO, logger="attnlab"):
        for _ in range(3):
            build_attention("ela_b", 16)(torch.randn(1, 16, 4, 4))
    assert [record.getMessage() for record in caplog.records] == [
        "ELA on 'cpu' (implementation='auto'): fused function on plain torch."
    ]


def test_triton_on_a_cpu_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    module = build_attention("ela_b", 16, implementation="triton")
    with pytest.raises(AttnlabError, match=r"works on GPUs.*'cpu'.*implementation='auto'"):
        module(torch.randn(1, 16, 4, 4))


def test_triton_that_is_not_installed_is_an_error_when_building(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "has_triton", lambda: False)
    with pytest.raises(AttnlabError, match=r"not installed: pip install triton"):
        build_attention("ela_b", 16, implementation="triton")


def test_an_unknown_implementation_is_an_error() -> None:
    with pytest.raises(AttnlabError, match="implementation"):
        build_attention("ela_b", 16, implementation="fast")
