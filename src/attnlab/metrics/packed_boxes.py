"""Boxes of a whole data set in a few arrays, for the detection metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class PackedDetections:
    """The detections of a data set, one row each.

    Attributes:
        boxes: (M, 4), x0 y0 x1 y1 in pixels, finite.
        scores: (M,), finite.
        labels: (M,), in 0..K-1.
        images: (M,), number of the image, from 0.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    images: IntArray


@dataclass(frozen=True)
class PackedTruths:
    """The annotated objects of a data set, one row each.

    Attributes:
        boxes: (N, 4), x0 y0 x1 y1 in pixels.
        labels: (N,), in 0..K-1.
        images: (N,), number of the image, from 0.
        area: (N,), the annotation's area in square pixels; not always that of the box.
        ignored: (N,), crowds and difficult objects: neither found nor missed.
    """

    boxes: FloatArray
    labels: IntArray
    images: IntArray
    area: FloatArray
    ignored: BoolArray


def rows_by_class(labels: IntArray, classes: int) -> list[IntArray]:
    """The rows of each class, in order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, classes)))
