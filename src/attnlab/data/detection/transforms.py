"""Transforms for detection that torchvision's v2 lacks; all take dicts of an image with its boxes."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from attnlab.errors import AttnlabError


class RandomHSV(v2.Transform):
    """Randomly rotate an image's hue and scale its saturation and value (brightness).

    The colour augmentation of YOLOX, arXiv:2107.08430, section 2.1 (there "ColorJitter"), with the default
    amounts of its first release. Saturation and value are multiplied, not shifted, so grey stays grey. All
    three changes take one pass, a fraction of the time of ``v2.ColorJitter``.

    Args:
        hue: Largest rotation of the hue in either direction, as a fraction of the colour circle, 0..0.5.
        saturation: The saturation is multiplied by 1 - saturation to 1 + saturation; 0..1.
        value: The value is multiplied by 1 - value to 1 + value; 0..1.

    Raises:
        AttnlabError: An amount is out of its range.
    """

    def __init__(self, hue: float = 0.015, saturation: float = 0.7, value: float = 0.4) -> None:
        super().__init__()
        for name, amount, most in (("hue", hue, 0.5), ("saturation", saturation, 1), ("value", value, 1)):
            if not 0 <= amount <= most:
                raise AttnlabError(f"RandomHSV's {name} is {amount}; it must be within 0..{most}.")
        self.hue = hue
        self.saturation = saturation
        self.value = value

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw ``hue``, as a fraction of the circle, and the factors ``saturation`` and ``value``."""
        return {
            "hue": random.uniform(-self.hue, self.hue),
            "saturation": random.uniform(1 - self.saturation, 1 + self.saturation),
            "value": random.uniform(1 - self.value, 1 + self.value),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change images; leave boxes, masks and labels unchanged."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        if inpt.dtype != torch.uint8 or inpt.ndim != 3 or inpt.shape[0] != 3:
            raise AttnlabError(
                f"RandomHSV takes uint8 images of three channels, not {inpt.dtype} of shape "
                f"{tuple(inpt.shape)}. Put it before transforms that convert images to floats."
            )
        return tv_tensors.wrap(changed_hsv(inpt.as_subclass(Tensor), **params), like=inpt)


def changed_hsv(image: Tensor, hue: float, saturation: float, value: float) -> Tensor:
    """Rotate an image's hue and scale its saturation and value.

    With V the largest channel and S the saturation, a channel is V (1 - S (1 - t)), where t, 0 to 1, depends
    on the hue H in sixths of the circle alone: |H - 3| - 1 for red, 2 - |H - 2| for green and 2 - |H - 4| for
    blue, cut off at 0 and 1 (A. R. Smith, Color gamut transform pairs, 1978).

    Args:
        image: (3, H, W) uint8, RGB.
        hue: Rotation, as a fraction of the colour circle.
        saturation: Factor, at least 0; the saturation is clipped at 1.
        value: Factor, at least 0; the value is clipped at 255.

    Returns:
        (3, H, W) uint8, channels innermost in memory.
    """
    planes = image.to(torch.float32, memory_format=torch.contiguous_format)
    sixths, largest, chroma = _hexcone(planes)
    sixths.add_(6 * hue)
    sixths.sub_((sixths / 6).floor_(), alpha=6)  # A quarter of the time of remainder_.
    lit = (largest * value).clamp_(max=255)
    depth = chroma.div_(largest.clamp_(min=1)).mul_(saturation).clamp_(max=1).mul_(lit)
    lit.add_(0.5)  # Rounds: conversion to bytes cuts off.
    tones = (
        (sixths - 3).abs_().sub_(1),
        (sixths - 2).abs_().neg_().add_(2),
        (sixths - 4).abs_().neg_().add_(2),
    )
    out = torch.empty(*image.shape[-2:], 3, dtype=torch.uint8)
    for channel, tone in enumerate(tones):
        out[..., channel] = tone.clamp_(0, 1).sub_(1).mul_(depth).add_(lit)
    return out.permute(2, 0, 1)


def _hexcone(planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in sixths of the circle, 0..6 (0 for grey), largest channel, and its distance to the smallest.

    The channels are sorted by minima and maxima, ten times as fast as ``torch.where``. The hue is |turn +
    (middle - smallest) / chroma|, where the turn depends on the swaps.

    Args:
        planes: (3, H, W), integers stored as floats.
    """
    red, green, blue = planes
    # Whole numbers: 1 where the two are in the wrong order, else 0.
    swapped = (blue - green).clamp_(0, 1)
    upper, lower = torch.maximum(green, blue), torch.minimum(green, blue)
    swapped_again = (upper - red).clamp_(0, 1)
    largest, middle = torch.maximum(red, upper), torch.minimum(red, upper)
    chroma = largest - torch.minimum(middle, lower)
    turn = swapped.mul_(-6)
    turn.addcmul_(swapped_again, turn.mul(-2).sub_(2))  # To -2 - turn, where swapped again.
    return turn.add_((middle - lower).div_(chroma.clamp(min=1))).abs_(), largest, chroma
