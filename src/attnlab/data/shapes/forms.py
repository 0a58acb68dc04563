"""The forms that scenes are made of, each as a signed distance to its outline.

A form maps coordinates x, y, in units of its radius, to the distance from its outline in the same unit:
negative inside, exact along the edges. Area, smooth edge and border all come from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.floating[Any]]
"""One value per pixel, (H, W), or colours, (3,) or (H, W, 3). Float32 in practice, for speed."""

Form = Callable[[FloatMap, FloatMap], FloatMap]


def disc(x: FloatMap, y: FloatMap) -> FloatMap:
    """A filled circle."""
    return np.hypot(x, y) - 0.95


def ring(x: FloatMap, y: FloatMap) -> FloatMap:
    """A circle with a hole."""
    return np.abs(np.hypot(x, y) - 0.72) - 0.25


def triangle(x: FloatMap, y: FloatMap) -> FloatMap:
    """An equilateral triangle."""
    return _spiked(x, y, tips=3, notch=0.5)


def square(x: FloatMap, y: FloatMap) -> FloatMap:
    """A square."""
    return np.maximum(np.abs(x), np.abs(y)) - 0.78


def star(x: FloatMap, y: FloatMap) -> FloatMap:
    """A star of five tips."""
    return _spiked(x, y, tips=5, notch=0.42)


def cross(x: FloatMap, y: FloatMap) -> FloatMap:
    """A plus sign of thin bars."""
    across = np.maximum(np.abs(x) - 0.95, np.abs(y) - 0.27)
    down = np.maximum(np.abs(x) - 0.27, np.abs(y) - 0.95)
    return np.minimum(across, down)


def _spiked(x: FloatMap, y: FloatMap, tips: int, notch: float) -> FloatMap:
    """A polygon of alternating radii: 1 at the tips, ``notch`` half-way between them."""
    half = math.pi / tips
    angle = np.abs(np.mod(np.arctan2(y, x) + half, 2 * half) - half)
    radius = np.hypot(x, y)
    # Folded onto one half of a tip, the outline is the one edge from the tip (1, 0) to the notch.
    edge_x, edge_y = notch * math.cos(half) - 1, notch * math.sin(half)
    from_tip_x, from_tip_y = radius * np.cos(angle) - 1, radius * np.sin(angle)
    from_edge = (from_tip_x * edge_y - from_tip_y * edge_x) / math.hypot(edge_x, edge_y)
    return np.maximum(from_edge, radius - 1)  # Beyond a sharp tip the edge's line goes on, the form does not.


FORMS: dict[str, Form] = {form.__name__: form for form in (disc, ring, triangle, square, star, cross)}


@cache
def form_area(name: str) -> float:
    """Area of the form of radius 1, counted on a fine grid."""
    y, x = np.mgrid[-1.1:1.1:0.005, -1.1:1.1:0.005].astype(np.float32) + 0.0025
    return float((FORMS[name](x, y) < 0).sum()) * 0.005**2
