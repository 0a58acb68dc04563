"""Which implementation of the raw strip operations works on a tensor: plain torch or Triton."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from functools import cache
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from attnlab.attention.kernels import strips
from attnlab.errors import AttnlabError, unknown

Implementation = Literal["auto", "formula", "fused", "triton"]

_logger = logging.getLogger(__name__)


class Backend(Protocol):
    """The raw operations; `attnlab.attention.kernels.strips` says what each does."""

    def means(self, x: Tensor) -> tuple[Tensor, Tensor]: ...  # noqa: D102

    def gate(self, x: Tensor, gate_h: Tensor, gate_w: Tensor) -> Tensor: ...  # noqa: D102

    def gate_gradients(  # noqa: D102
        self, dy: Tensor, x: Tensor, gate_h: Tensor, gate_w: Tensor
    ) -> tuple[Tensor, Tensor]: ...

    def input_gradient(  # noqa: D102
        self, dy: Tensor, gate_h: Tensor, gate_w: Tensor, dmean_h: Tensor, dmean_w: Tensor
    ) -> Tensor: ...


def check_implementation(name: str) -> None:
    """Refuse what cannot work here, before any tensor is there.

    Args:
        name: An `Implementation`.

    Raises:
        AttnlabError: For an unknown name, and for ``triton`` where Triton is not installed.
    """
    if name not in get_args(Implementation):
        raise unknown("implementation", name, get_args(Implementation))
    if name == "triton" and not has_triton():
        raise AttnlabError(
            "implementation='triton' needs Triton, which is not installed: pip install triton, or take "
            "implementation='auto', which uses Triton where there is one."
        )


def backend_for(name: str, device: torch.device) -> Backend:
    """The raw operations for a device; logged once for every choice.

    Args:
        name: ``auto``, ``fused`` or ``triton``.
        device: Where the map is.

    Returns:
        A module with the operations of `Backend`.

    Raises:
        AttnlabError: If ``triton`` is asked for and cannot work on this device.
    """
    if name == "triton":
        check_implementation(name)
        if device.type != "cuda" and not _interprets():
            raise AttnlabError(
                f"implementation='triton' works on GPUs, and this map is on '{device.type}'. Take "
                "implementation='auto', or set TRITON_INTERPRET=1 before the start to test the kernels here."
            )
    if name == "triton" or (name == "auto" and device.type == "cuda" and has_triton()):
        _say("Triton kernels", name, device.type)
        return importlib.import_module("attnlab.attention.kernels.strips_triton")
    _say("fused function on plain torch", name, device.type)
    return strips


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def _interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@cache
def _say(chosen: str, asked: str, device: str) -> None:
    _logger.info("ELA on '%s' (implementation='%s'): %s.", device, asked, chosen)
