"""How a network is laid out in memory: the same numbers but for rounding, sooner."""

from __future__ import annotations

from typing import Literal

import torch

HALVES = ("16", "bf16")


def memory_format(
    wanted: Literal["auto"] | bool, attention: str, device: str, precision: str
) -> torch.memory_format:
    """The layout of images and weights.

    ``auto`` puts the channels innermost on a CPU, where the steps of thirteen networks took from four
    hundredths more to a quarter less (docs/benchmarks.md), and on a GPU in half precision, which its tensor
    cores want so. It keeps the usual layout elsewhere, where nothing was measured, and for attention of one's
    own, which was perhaps never tried on such maps: ``x.view(b * c, h, w)`` is an error there.

    Args:
        wanted: The option.
        attention: The attention module's name; an import path is one's own.
        device: Type of the device.
        precision: Lightning's name of it, e.g. ``bf16-mixed``.
    """
    last = wanted
    if wanted == "auto":
        half = str(precision).startswith(HALVES)
        last = "." not in attention and (device == "cpu" or (device == "cuda" and half))
    return torch.channels_last if last else torch.contiguous_format
