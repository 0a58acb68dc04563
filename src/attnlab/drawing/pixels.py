"""Images as arrays, resized for viewing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

# RGB, uint8 (H, W, 3); and the RGB colour of each class, 0..255.
Pixels = NDArray[np.uint8]
Palette = Sequence[Sequence[int]]
Colour = tuple[int, int, int]


def denormalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (3, H, W) of a normalised image (3, H, W)."""
    image = image * image.new_tensor(std)[:, None, None] + image.new_tensor(mean)[:, None, None]
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


def resized(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """uint8 (C, *size) of uint8 (C, H, W); ``mode`` is ``nearest``, ``bilinear`` or ``bicubic``."""
    return F.resize(image, list(size), InterpolationMode(mode), antialias=True)


def drawn_to(image: Tensor, size: tuple[int, int], max_side: int) -> Pixels:
    """An image uint8 (3, h, w) resized to (height, width), fitted to ``max_side``.

    A larger image is shrunk smoothly, a smaller one enlarged by an integer factor to squares.
    """
    factor = max_side / max(size)
    factor = int(factor) if factor >= 1 else factor
    size = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    return as_pixels(resized(image, size, "nearest" if size[0] > image.shape[1] else "bilinear"))


def thumbnail(image: Tensor, max_side: int) -> Pixels:
    """An image uint8 (3, H, W) resized to at most ``max_side`` pixels per side, see ``drawn_to``."""
    return drawn_to(image, (image.shape[1], image.shape[2]), max_side)


def fitted_to(image: Tensor, smallest: int, largest: int) -> tuple[Pixels, tuple[float, float]]:
    """An image (3, h, w) in 0..1 resized to a longest side in bounds; and the factors of x and y."""
    height, width = image.shape[1:]
    factor = min(max(height, width, smallest), largest) / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    whole = denormalise(image.detach().float().cpu(), (0, 0, 0), (1, 1, 1))
    return as_pixels(resized(whole, size, "bicubic")), (size[1] / width, size[0] / height)


def as_pixels(image: Tensor) -> Pixels:
    """(H, W, 3) of uint8 (3, H, W)."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def percent(share: float) -> str:
    """A share in 0..1 as a percentage, with a decimal below ten: ``93%``, ``2.5%``, ``<0.1%``, ``NaN``."""
    value = 100 * share
    if value != value or 0 < value < 0.1:
        return "<0.1%" if value > 0 else "NaN"
    return f"{value:.1f}%" if 0 < value < 9.95 else f"{value:.0f}%"
