"""Which backend works on a tensor, plain torch or Triton, and the operations that both have."""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import cache
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from attnlab.attention.kernels import torch_backend
from attnlab.attention.kernels.strips import Layers, Strips
from attnlab.errors import AttnlabError, unknown

Implementation = Literal["auto", "formula", "fused", "triton"]

_logger = logging.getLogger(__name__)


class Backend(Protocol):
    """The operations that ELA stands on. None is differentiable; maps (B,C,H,W) may have any strides.

    Results of a map's size have its dtype; means, sums and gates are float32, for float64 maps float64. They
    are laid out as `empty_map` and `empty_strips` of `attnlab.attention.kernels.strips` have it.
    """

    def means(self, x: Tensor) -> Strips:
        """The mean of every row, over the width, and of every column, over the height."""

    def gate(self, x: Tensor, gates: Strips) -> Tensor:
        """``x · g_h · g_w``, with gates in any dtype."""

    def gate_gradients(self, dy: Tensor, x: Tensor, gates: Strips) -> Strips:
        """The gradients of the gates of `gate`: ``Σ_w dy · x · g_w`` and ``Σ_h dy · x · g_h``."""

    def input_gradient(self, dy: Tensor, gates: Strips, dmeans: Strips) -> Tensor:
        """That of a map that was gated and gave its means: ``dy · g_h · g_w + dz_h / W + dz_w / H``."""

    def strip_gates(self, means: Strips, layers: Layers) -> Strips:
        """The gates of both directions, in the dtype of the means."""

    def strip_gates_gradients(
        self, dgates: Strips, gates: Strips, means: Strips, layers: Layers
    ) -> tuple[Strips, list[Tensor]]:
        """The gradients of what `strip_gates` took, given the gates that it made.

        Returns:
            Those of the means, and those of the weight, the scale and the shift.
        """


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
    """The backend for a device; logged once for every choice.

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
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET", "0") != "1":
            raise AttnlabError(
                f"implementation='triton' works on GPUs, and this map is on '{device.type}'. Take "
                "implementation='auto', or set TRITON_INTERPRET=1 before the start to test the kernels here."
            )
    if name == "triton" or (name == "auto" and device.type == "cuda" and has_triton()):
        from attnlab.attention.kernels import triton_backend

        _say("Triton kernels", name, device.type)
        return triton_backend
    _say("fused function on plain torch", name, device.type)
    return torch_backend


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


@cache
def _say(chosen: str, asked: str, device: str) -> None:
    _logger.info("ELA on '%s' (implementation='%s'): %s.", device, asked, chosen)
