"""What a builder of a detector gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class BuiltDetector:
    """A detector, and what its user must know of it.

    Attributes:
        network: Images (a sequence of (3, h, w) in 0..1, or one (B, 3, h, w)) and, in training, targets ->
            losses by name in training, and else for each image a dict of ``boxes`` (M, 4) as x0, y0, x1, y1
            in its pixels, ``scores`` (M,), descending, and ``labels`` (M,).
        first_label: What class 0 is called in targets and detections: 1 where 0 is the background.
        trunk: Name of the submodule that weights of a classification network are for.
        example_size: Height and width of the image that MACs are counted for, in pixels.
    """

    network: nn.Module
    first_label: int
    trunk: str
    example_size: tuple[int, int]
