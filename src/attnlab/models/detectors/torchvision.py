"""torchvision's Faster R-CNN, RetinaNet and FCOS, on its ResNets and MobileNets.

Built from public parts of the library with its state-dict keys: its published detector weights fit if
backbone and number of classes are the same.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import (
    BackboneWithFPN,
    mobilenet_backbone,
    resnet_fpn_backbone,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from attnlab.errors import AttnlabError, unknown
from attnlab.models.built import BuiltNetwork, State
from attnlab.models.detectors.names import newer_names, newer_retinanet_names
from attnlab.models.detectors.recipe import Recipe, example_size
from attnlab.models.detectors.resizing import IMAGENET_MEAN, IMAGENET_STD

RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d"),
    *("resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
MOBILENETS = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
_RATIOS = ((0.5, 1.0, 2.0),) * 5


@dataclass(frozen=True)
class PyramidRecipe(Recipe):
    """A torchvision detector on a feature pyramid (arXiv 1612.03144).

    Attributes:
        backbone: A ResNet, ResNeXt, Wide ResNet or MobileNet.
        min_size: Shorter side that images are resized to, in pixels. If a list, training draws one per image,
            and evaluation uses the last.
        max_size: Longest side after resizing, in pixels; takes precedence over `min_size`.
    """

    min_size: int | tuple[int, ...] = 800
    max_size: int = 1333
    first_label: ClassVar[int] = 0
    class_layers: ClassVar[tuple[str, ...]] = ("head.classification_head.cls_logits",)
    renamings: ClassVar[tuple[Callable[[State], dict[str, Tensor]], ...]] = (newer_names,)

    def build(self) -> BuiltNetwork:
        """Build the network; it resizes images with `AnySizeTransform`."""
        sizes = [self.min_size] if isinstance(self.min_size, int) else list(self.min_size)
        if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes) or self.max_size < 1:
            raise AttnlabError(
                "min_size must be a number of pixels or a list of them, max_size a number, all above 0; got "
                f"min_size = {self.min_size!r} and max_size = {self.max_size!r}."
            )
        network = self.network()
        network.transform = AnySizeTransform(sizes, self.max_size, IMAGENET_MEAN, IMAGENET_STD)
        return BuiltNetwork(
            network,
            "backbone.body",
            self.class_layers,
            example_size=example_size(sizes[-1], self.max_size),
            first_label=self.first_label,
            renamings=self.renamings,
        )

    @abstractmethod
    def network(self) -> nn.Module:
        """Build the library's detector."""

    def dense(self, cls: type[nn.Module], anchors: AnchorGenerator) -> nn.Module:
        """A one-stage detector, on maps of strides 8 to 128."""
        network = cls(
            self.pyramid(finest=8),
            self.num_classes,
            anchor_generator=anchors,
            score_thresh=self.score_threshold,
            nms_thresh=self.nms_threshold,
            detections_per_img=self.max_detections,
        )
        give_float32(anchors, network.get_submodule("head"))
        return network

    def pyramid(self, finest: int) -> BackboneWithFPN:
        """The backbone with maps of stride `finest` (4 or 8) to 32, and one (or two) of larger strides."""
        first = finest // 4
        extra = LastLevelP6P7(256, 256) if finest == 8 else None
        norm: Callable[..., nn.Module] = FrozenBatchNorm2d if self.frozen_bn else nn.BatchNorm2d
        if self.backbone in RESNETS:
            return resnet_fpn_backbone(
                backbone_name=self.backbone,
                weights=None,
                norm_layer=norm,
                trainable_layers=self.trained_parts(5),
                returned_layers=[1, 2, 3, 4][first - 1 :],
                extra_blocks=extra,
            )
        if self.backbone not in MOBILENETS:
            raise unknown("backbone", self.backbone, (*RESNETS, *MOBILENETS))
        if self.backbone.startswith("mobilenet_v3"):
            # The library's epsilon, for which its published weights were trained.
            norm = partial(norm, eps=0.001, **({} if self.frozen_bn else {"momentum": 0.01}))
        return mobilenet_backbone(
            backbone_name=self.backbone,
            weights=None,
            fpn=True,
            norm_layer=norm,
            # The library's parts: five reductions by 2, and the last convolution.
            trainable_layers=self.trained_parts(6),
            # Of the maps 0 to 5 of strides 2, 4, 8, 16, 32, 32, the last of each stride.
            returned_layers=[*range(first, 4), 5],
            extra_blocks=extra,
        )


@dataclass(frozen=True)
class FasterRCNN(PyramidRecipe):
    """Faster R-CNN (arXiv 1506.01497), strides 4 to 64; internally the background is class 0.

    Attributes:
        smallest_anchor: Side of the finest map's anchors, in pixels; it doubles from map to map.
        proposals_trained: Proposals per image and step that train the second stage; at most a quarter are
            objects.
    """

    smallest_anchor: int = 32
    proposals_trained: int = 512
    first_label = 1
    class_layers = ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred")

    def network(self) -> nn.Module:
        """Build torchvision's."""
        if self.proposals_trained < 4:
            raise AttnlabError(f"proposals_trained is {self.proposals_trained}; it must be at least 4.")
        anchors = AnchorGenerator(tuple((self.smallest_anchor * 2**level,) for level in range(5)), _RATIOS)
        network = detection.FasterRCNN(
            self.pyramid(finest=4),
            self.num_classes + 1,
            rpn_anchor_generator=anchors,
            box_batch_size_per_image=self.proposals_trained,
            box_score_thresh=self.score_threshold,
            box_nms_thresh=self.nms_threshold,
            box_detections_per_img=self.max_detections,
        )
        give_float32(anchors, network.rpn.head, network.roi_heads.box_predictor)
        return network


@dataclass(frozen=True)
class RetinaNet(PyramidRecipe):
    """RetinaNet (arXiv 1708.02002): focal loss on a feature pyramid of strides 8 to 128.

    Attributes:
        smallest_anchor: Side of the finest map's smallest anchors, in pixels; the others are 2^(1/3) and
            2^(2/3) times as large. It doubles from map to map.
    """

    smallest_anchor: int = 32
    renamings = (newer_retinanet_names,)

    def network(self) -> nn.Module:
        """Build torchvision's."""
        sides = [self.smallest_anchor * 2**level for level in range(5)]
        sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in sides)
        return self.dense(detection.RetinaNet, AnchorGenerator(sizes, _RATIOS))


@dataclass(frozen=True)
class FCOS(PyramidRecipe):
    """FCOS (arXiv 1904.01355): no anchors, a feature pyramid of strides 8 to 128."""

    score_threshold: float = 0.2
    nms_threshold: float = 0.6

    def network(self) -> nn.Module:
        """Build torchvision's; its anchors are the strides, which assign objects to maps."""
        strides = ((8,), (16,), (32,), (64,), (128,))
        return self.dense(detection.FCOS, AnchorGenerator(strides, ((1.0,),) * 5))


class AnySizeTransform(GeneralizedRCNNTransform):
    """The library's resizing and normalisation, which also handles very elongated images.

    A longest side of 128 pixels leaves 0.64 of the short side of a 20 x 4000 image, and the library's own
    transform then raises. Here each side keeps at least a pixel.
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Resize an image (3, h, w), and the boxes of its target."""
        height, width = image.shape[-2:]
        if min(height, width) * self.max_size >= 2 * max(height, width):
            return super().resize(image, target)
        scale = self.max_size / max(height, width)
        size = [max(1, math.floor(side * scale)) for side in (height, width)]
        image = nn.functional.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        if target is not None:
            target["boxes"] = resize_boxes(target["boxes"], [height, width], size)
        return image, target


def give_float32(anchors: nn.Module, *heads: nn.Module) -> None:
    """Keep a detector's boxes in float32 whatever the precision of its maps, with hooks that copy and pickle.

    In the library, anchors have the dtype of the maps. Under bf16 autocast a coordinate of 1000 pixels is
    then off by up to 2, and so are the boxes that are matched, learnt and predicted.

    Args:
        anchors: The generator of anchors or default boxes.
        *heads: Modules that output classes and boxes, as a dict, tuple or list of maps.
    """
    anchors.register_forward_pre_hook(_maps_as_float32)
    for head in heads:
        head.register_forward_hook(_as_float32)


def _maps_as_float32(module: nn.Module, args: tuple[ImageList, list[Tensor]]) -> tuple[Any, ...]:
    """Maps of the same height and width; the library needs no more."""
    images, maps = args
    return images, [map_.new_empty((1, 1, *map_.shape[-2:]), dtype=torch.float32) for map_ in maps]


def _as_float32(module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {key: _as_float32(module, args, item) for key, item in output.items()}
    return type(output)(_as_float32(module, args, item) for item in output)
