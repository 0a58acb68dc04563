"""Boxes in full precision in torchvision's detectors, whatever the precision of their maps.

In the library, anchors have the dtype of the maps. Under bf16 autocast a coordinate of 1000 pixels is then
off by up to 2, and so are the boxes that are matched, learnt and predicted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList


class Float32Anchors(AnchorGenerator):
    """The library's anchors, in float32."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors (R, 4) of each image, xyxy in pixels."""
        return super().forward(image_list, _float32_twins(feature_maps))


class Float32DefaultBoxes(DefaultBoxGenerator):
    """The library's default boxes of SSD, in float32."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Default boxes (R, 4) of each image, xyxy in pixels."""
        return super().forward(image_list, _float32_twins(feature_maps))


def give_float32(head: nn.Module) -> None:
    """Let a head's outputs (a dict, a tuple, lists of maps) be float32, and so the boxes decoded from them.

    Args:
        head: Changed in place by a forward hook, which copies and pickles.
    """
    head.register_forward_hook(_outputs_as_float32)


def _outputs_as_float32(module: nn.Module, args: Any, output: Any) -> Any:
    return _as_float32(output)


def _as_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, dict):
        return {key: _as_float32(item) for key, item in value.items()}
    return type(value)(_as_float32(item) for item in value)


def _float32_twins(maps: list[Tensor]) -> list[Tensor]:
    """Maps of the same height and width; the library asks for no more."""
    return [map_.new_empty((1, 1, *map_.shape[-2:]), dtype=torch.float32) for map_ in maps]
