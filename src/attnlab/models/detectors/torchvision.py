"""torchvision's Faster R-CNN, RetinaNet and FCOS, on its ResNets and MobileNets.

They are built with random weights, from public parts of the library, and keep its state-dict keys: its
published weights of whole detectors fit where the backbone and the number of classes are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import (
    BackboneWithFPN,
    mobilenet_backbone,
    resnet_fpn_backbone,
)
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7

from attnlab.errors import AttnlabError, unknown
from attnlab.models.detectors.built import BuiltDetector
from attnlab.models.detectors.precision import Float32Anchors, give_float32

RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d"),
    *("resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
MOBILENETS = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
# The library's parts of a MobileNet that can be frozen: five reductions by 2, and the last convolution.
_MOBILENET_PARTS = 6
_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def faster_rcnn(
    num_classes: int,
    backbone: str = "resnet50",
    min_size: int | tuple[int, ...] = 800,
    max_size: int = 1333,
    frozen_bn: bool = False,
    trainable_layers: int | None = None,
    smallest_anchor: int = 32,
    proposals_trained: int = 512,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> BuiltDetector:
    """Faster R-CNN (arXiv 1506.01497) with a feature pyramid (arXiv 1612.03144), strides 4 to 64.

    Args:
        num_classes: Number of classes K, without the background, which is class 0 inside.
        backbone: A ResNet, ResNeXt, Wide ResNet or MobileNet of torchvision.
        min_size: Shorter side that images are resized to, in pixels. Of several, training draws one for each
            image, and evaluation takes the last.
        max_size: Longest side after resizing, in pixels; goes before `min_size`.
        frozen_bn: The backbone's BatchNorms keep their statistics and weights: for pretrained backbones with
            few images in a batch. False trains them.
        trainable_layers: How many of the backbone's parts, from the last, are trained: 0 to 5 of a ResNet, 0
            to 6 of a MobileNet. None trains all.
        smallest_anchor: Side of the anchors of the finest map, in pixels; it doubles from map to map.
        proposals_trained: Proposals of an image that the second stage learns from in a step; a quarter of
            them, at most, are objects.
        score_threshold: Detections of a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class that overlap by a larger IoU, the better one is kept, 0 to 1.
        max_detections: Most detections in an image.

    Raises:
        AttnlabError: For an unknown backbone, or sizes or layers that cannot be.
    """
    sizes = _check_sizes(min_size, max_size)
    if proposals_trained < 4:
        raise AttnlabError(f"proposals_trained is {proposals_trained}; it must be at least 4.")
    network = FasterRCNN(
        _pyramid(backbone, frozen_bn, trainable_layers, finest=4, extra=None),
        num_classes + 1,
        rpn_anchor_generator=Float32Anchors(
            tuple((smallest_anchor * 2**level,) for level in range(5)), ((0.5, 1.0, 2.0),) * 5
        ),
        box_batch_size_per_image=proposals_trained,
        box_score_thresh=score_threshold,
        box_nms_thresh=nms_threshold,
        box_detections_per_img=max_detections,
    )
    give_float32(network.rpn.head)
    give_float32(network.roi_heads.box_predictor)
    return _with_fpn(network, 1, sizes, max_size)


def retinanet(
    num_classes: int,
    backbone: str = "resnet50",
    min_size: int | tuple[int, ...] = 800,
    max_size: int = 1333,
    frozen_bn: bool = False,
    trainable_layers: int | None = None,
    smallest_anchor: int = 32,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> BuiltDetector:
    """RetinaNet (arXiv 1708.02002): focal loss on a feature pyramid of strides 8 to 128.

    Args:
        num_classes: Number of classes K.
        backbone: A ResNet, ResNeXt, Wide ResNet or MobileNet of torchvision.
        min_size: Shorter side that images are resized to, in pixels. Of several, training draws one for each
            image, and evaluation takes the last.
        max_size: Longest side after resizing, in pixels; goes before `min_size`.
        frozen_bn: The backbone's BatchNorms keep their statistics and weights: for pretrained backbones with
            few images in a batch. False trains them.
        trainable_layers: How many of the backbone's parts, from the last, are trained: 0 to 5 of a ResNet, 0
            to 6 of a MobileNet. None trains all.
        smallest_anchor: Side of the smallest anchors of the finest map, in pixels, whose others are 2^(1/3)
            and 2^(2/3) times that; it doubles from map to map.
        score_threshold: Detections of a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class that overlap by a larger IoU, the better one is kept, 0 to 1.
        max_detections: Most detections in an image.

    Raises:
        AttnlabError: For an unknown backbone, or sizes or layers that cannot be.
    """
    sizes = _check_sizes(min_size, max_size)
    sides = [smallest_anchor * 2**level for level in range(5)]
    network = RetinaNet(
        _pyramid(backbone, frozen_bn, trainable_layers, finest=8, extra=LastLevelP6P7(256, 256)),
        num_classes,
        anchor_generator=Float32Anchors(
            tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in sides),
            ((0.5, 1.0, 2.0),) * 5,
        ),
        score_thresh=score_threshold,
        nms_thresh=nms_threshold,
        detections_per_img=max_detections,
    )
    give_float32(network.head)
    return _with_fpn(network, 0, sizes, max_size)


def fcos(
    num_classes: int,
    backbone: str = "resnet50",
    min_size: int | tuple[int, ...] = 800,
    max_size: int = 1333,
    frozen_bn: bool = False,
    trainable_layers: int | None = None,
    score_threshold: float = 0.2,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> BuiltDetector:
    """FCOS (arXiv 1904.01355): no anchors, a feature pyramid of strides 8 to 128.

    Args:
        num_classes: Number of classes K.
        backbone: A ResNet, ResNeXt, Wide ResNet or MobileNet of torchvision.
        min_size: Shorter side that images are resized to, in pixels. Of several, training draws one for each
            image, and evaluation takes the last.
        max_size: Longest side after resizing, in pixels; goes before `min_size`.
        frozen_bn: The backbone's BatchNorms keep their statistics and weights: for pretrained backbones with
            few images in a batch. False trains them.
        trainable_layers: How many of the backbone's parts, from the last, are trained: 0 to 5 of a ResNet, 0
            to 6 of a MobileNet. None trains all.
        score_threshold: Detections of a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class that overlap by a larger IoU, the better one is kept, 0 to 1.
        max_detections: Most detections in an image.

    Raises:
        AttnlabError: For an unknown backbone, or sizes or layers that cannot be.
    """
    sizes = _check_sizes(min_size, max_size)
    network = FCOS(
        _pyramid(backbone, frozen_bn, trainable_layers, finest=8, extra=LastLevelP6P7(256, 256)),
        num_classes,
        # The strides: they say which map an object belongs to.
        anchor_generator=Float32Anchors(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5),
        score_thresh=score_threshold,
        nms_thresh=nms_threshold,
        detections_per_img=max_detections,
    )
    give_float32(network.head)
    return _with_fpn(network, 0, sizes, max_size)


class AnySizeTransform(GeneralizedRCNNTransform):
    """The library's resizing and normalisation, also for images whose short side would shrink to nothing.

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


def _pyramid(
    backbone: str,
    frozen_bn: bool,
    trainable_layers: int | None,
    finest: int,
    extra: ExtraFPNBlock | None,
) -> BackboneWithFPN:
    """A backbone with a feature pyramid of the strides `finest` (4 or 8) to 32, and what `extra` adds."""
    first = {4: 1, 8: 2}[finest]
    if backbone in RESNETS:
        return resnet_fpn_backbone(
            backbone_name=backbone,
            weights=None,
            norm_layer=FrozenBatchNorm2d if frozen_bn else nn.BatchNorm2d,
            trainable_layers=check_layers(trainable_layers, 5),
            returned_layers=[1, 2, 3, 4][first - 1 :],
            extra_blocks=extra,
        )
    if backbone in MOBILENETS:
        return mobilenet_backbone(
            backbone_name=backbone,
            weights=None,
            fpn=True,
            norm_layer=_mobilenet_norm(backbone, frozen_bn),
            trainable_layers=check_layers(trainable_layers, _MOBILENET_PARTS),
            # Of the maps 0 to 5 of strides 2, 4, 8, 16, 32, 32, the last of each stride.
            returned_layers=[*range(first, 4), 5],
            extra_blocks=extra,
        )
    raise unknown("backbone", backbone, (*RESNETS, *MOBILENETS))


def _mobilenet_norm(backbone: str, frozen_bn: bool) -> Callable[[int], nn.Module]:
    """As the library builds these networks, whose published weights are for that epsilon."""
    third = backbone.startswith("mobilenet_v3")
    if frozen_bn:
        return partial(FrozenBatchNorm2d, eps=0.001 if third else 1e-5)
    return partial(nn.BatchNorm2d, eps=0.001, momentum=0.01) if third else nn.BatchNorm2d


def _with_fpn(network: nn.Module, first_label: int, sizes: list[int], max_size: int) -> BuiltDetector:
    network.transform = AnySizeTransform(sizes, max_size, _IMAGENET_MEAN, _IMAGENET_STD)
    return BuiltDetector(network, first_label, "backbone.body", example_size(sizes[-1], max_size))


def example_size(short: int, longest: int) -> tuple[int, int]:
    """Height and width of a 3:4 photograph after resizing to a shorter and a longest side."""
    width = min(longest, round(short * 4 / 3))
    return min(short, longest), width


def _check_sizes(min_size: int | Sequence[int], max_size: int) -> list[int]:
    sizes = [min_size] if isinstance(min_size, int) else list(min_size)
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes) or max_size < 1:
        raise AttnlabError(
            f"min_size takes a number of pixels, or a list of them, and max_size one, all above 0; got "
            f"min_size = {min_size!r} and max_size = {max_size!r}."
        )
    return sizes


def check_layers(trainable_layers: int | None, parts: int) -> int:
    """The number of parts to train, out of so many; None stands for all."""
    if trainable_layers is None:
        return parts
    if not 0 <= trainable_layers <= parts:
        raise AttnlabError(
            f"trainable_layers must be in 0..{parts} with this backbone, got {trainable_layers}."
        )
    return trainable_layers
