"""Small pictures of what a network was given."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.callbacks.drawing import Pixels


def denormalise(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (3, H, W) of a normalised image (3, H, W)."""
    scale = image.new_tensor(std)[:, None, None]
    shift = image.new_tensor(mean)[:, None, None]
    return ((image * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)


def resized(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """uint8 (C, *size) of uint8 (C, H, W); ``mode`` is that of ``interpolate``, bilinear antialiased."""
    if tuple(image.shape[-2:]) == size:
        return image
    options = {"align_corners": False, "antialias": True} if mode == "bilinear" else {}
    result = F.interpolate(image[None].float(), size=size, mode=mode, **options)[0]
    return result.round().clamp(0, 255).to(torch.uint8)


def thumbnail(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...], max_side: int) -> Pixels:
    """uint8 (h, w, 3), at most ``max_side`` pixels a side, of a normalised image (3, H, W).

    Larger images are shrunk; every pixel of a small one becomes a square of pixels.
    """
    picture = denormalise(image.detach().float(), mean, std)
    height, width = picture.shape[-2:]
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = resized(picture, size, "bilinear").permute(1, 2, 0).cpu().numpy()
    times = max(1, max_side // max(size))
    return pixels.repeat(times, 0).repeat(times, 1)
