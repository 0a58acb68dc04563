"""The memory format of a network: the same results up to rounding, faster."""

from __future__ import annotations

from typing import Literal

import torch

HALVES = ("16", "bf16")


def memory_format(
    wanted: Literal["auto"] | bool, attention: str, device: str, precision: str
) -> torch.memory_format:
    """The memory format of images and weights.

    ``auto`` is channels_last on a CPU, where steps of thirteen networks changed by +4 % to -25 %
    (docs/benchmarks.md), and on a GPU in half precision, as tensor cores prefer. Elsewhere nothing was
    measured, and a user's own attention may not support it (``x.view(b * c, h, w)`` fails): these keep the
    default.

    Args:
        wanted: The option.
        attention: The attention module's name; an import path is a user's own module.
        device: Device type.
        precision: Lightning's name for it, e.g. ``bf16-mixed``.
    """
    last = wanted
    if wanted == "auto":
        half = str(precision).startswith(HALVES)
        last = "." not in attention and (device == "cpu" or (device == "cuda" and half))
    return torch.channels_last if last else torch.contiguous_format
