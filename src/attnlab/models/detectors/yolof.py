"""YOLOF: You Only Look One-level Feature (arXiv 2103.09460), a detector without a feature pyramid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d, batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

from attnlab.errors import AttnlabError, unknown
from attnlab.models.batchnorm import allow_single_values
from attnlab.models.detectors.built import BuiltDetector
from attnlab.models.detectors.dilated_encoder import DilatedEncoder, conv_norm_relu
from attnlab.models.detectors.resizing import Images, ShortSide, Targets
from attnlab.models.detectors.torchvision import RESNETS, check_layers, example_size
from attnlab.models.detectors.uniform_matching import IGNORED, UniformAssignment, match_uniformly

# How far a predicted centre may lie from its anchor's, in pixels, and the logarithm of a side's growth.
CENTRE_CLAMP = 32.0
SIDE_CLAMP = math.log(1000 / 16)
# Candidates of an image that go into the suppression of overlapping boxes.
_CANDIDATES = 1000
# Score of every class and anchor at the start of training (focal loss, arXiv 1708.02002, section 4.1).
_PRIOR = 0.01


class Decoder(nn.Module):
    """Two branches of 3x3 convolutions; objectness is learnt without a loss of its own (section 4.3).

    Args:
        channels: Channels C of the encoded map.
        anchors: Anchors A at each position.
        num_classes: Number of classes K.
    """

    def __init__(self, channels: int, anchors: int, num_classes: int) -> None:
        super().__init__()
        self.class_branch = nn.Sequential(*(conv_norm_relu(channels, channels, 3) for _ in range(2)))
        self.box_branch = nn.Sequential(*(conv_norm_relu(channels, channels, 3) for _ in range(4)))
        self.class_logits = nn.Conv2d(channels, anchors * num_classes, 3, padding=1)
        self.box_deltas = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.class_logits.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, R, K) and deltas (B, R, 4) of the R = H W A anchors of a map (B, C, H, W)."""
        boxes = self.box_branch(encoded)
        classes = _by_anchor(self.class_logits(self.class_branch(encoded)), self.objectness.out_channels)
        objectness = _by_anchor(self.objectness(boxes), self.objectness.out_channels)
        deltas = _by_anchor(self.box_deltas(boxes), self.objectness.out_channels)
        return with_objectness(classes.float(), objectness.float()), deltas.float()


class YOLOF(nn.Module):
    """Images -> losses in training, detections in evaluation.

    Args:
        backbone: (B, 3, H, W) -> (B, C, H / stride, W / stride).
        neck: (B, C, h, w) -> (B, D, h, w).
        decoder: What `Decoder` does.
        resize: Makes a batch of images.
        stride: Of the backbone's map, in pixels.
        anchor_scales: Sides of the square anchors at each position, in pixels of the batch.
        matches: Anchors, and predicted boxes, that are positive for each object.
        positive_threshold: Pairs of object and anchor with a smaller IoU are ignored.
        score_threshold: Detections of a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class that overlap by a larger IoU, the better one is kept, 0 to 1.
        max_detections: Most detections in an image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        decoder: nn.Module,
        resize: ShortSide,
        stride: int,
        anchor_scales: Sequence[int],
        matches: int,
        positive_threshold: float,
        score_threshold: float,
        nms_threshold: float,
        max_detections: int,
    ) -> None:
        super().__init__()
        self.resize = resize
        self.backbone = backbone
        self.neck = neck
        self.decoder = decoder
        self.stride = stride
        self.anchor_scales = tuple(anchor_scales)
        self.matches = matches
        self.positive_threshold = positive_threshold
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections

    def forward(
        self, images: Images, targets: Targets | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses ``class`` and ``box`` in training; else a dict of boxes, scores and labels for each image.

        Args:
            images: (3, h, w) each, or (B, 3, h, w), in 0..1.
            targets: One dict an image: ``boxes`` (N, 4), xyxy in its pixels, and ``labels`` (N,) in 0..K-1.
        """
        if self.training and targets is None:
            raise AttnlabError("YOLOF needs targets in training mode.")
        batch, moved, placements = self.resize(images, targets)
        encoded = self.neck(self.backbone(batch))
        logits, deltas = self.decoder(encoded)
        height, width = encoded.shape[-2:]
        anchors = square_anchors(height, width, self.stride, self.anchor_scales, deltas.device)
        predicted = decode(anchors, deltas)
        if self.training:
            assert moved is not None
            return self._losses(logits, predicted, anchors, moved)
        return [
            self._detections(scores, placement.back(boxes))
            for scores, boxes, placement in zip(logits.sigmoid(), predicted, placements, strict=True)
        ]

    def _losses(
        self, logits: Tensor, predicted: Tensor, anchors: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        assigned = [
            match_uniformly(
                anchors, boxes, target["boxes"], target["labels"], self.matches, self.positive_threshold
            )
            for boxes, target in zip(predicted.detach(), targets, strict=True)
        ]
        labels = torch.stack([assignment.labels for assignment in assigned])
        positives = (labels >= 0).sum().clamp(min=1)
        return {
            "class": _class_loss(logits, labels) / positives,
            "box": _box_loss(predicted, assigned, targets) / positives,
        }

    def _detections(self, scores: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """What is left of the scores (R, K) and boxes (R, 4) of an image."""
        classes = scores.shape[1]
        candidates, index = scores.flatten().topk(min(_CANDIDATES, scores.numel()))
        kept = candidates > self.score_threshold
        candidates, index = candidates[kept], index[kept]
        boxes, labels = boxes[index // classes], index % classes
        # Boxes in the padding have no area once they are clipped to the image.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, candidates, labels = boxes[inside], candidates[inside], labels[inside]
        best = batched_nms(boxes, candidates, labels, self.nms_threshold)[: self.max_detections]
        return {"boxes": boxes[best], "scores": candidates[best], "labels": labels[best]}


def with_objectness(classes: Tensor, objectness: Tensor) -> Tensor:
    """The logit of sigmoid(class) sigmoid(objectness), the score of section 4.3.

    With p = 1 / ((1 + e^-c)(1 + e^-o)), p / (1 - p) = e^(c + o) / (1 + e^c + e^o), whose logarithm is taken
    without the overflow of its terms.

    Args:
        classes: Logits c (..., K).
        objectness: Logits o (..., 1).
    """
    return classes + objectness - torch.logaddexp(F.softplus(classes), objectness)


def square_anchors(
    height: int, width: int, stride: int, sides: Sequence[int], device: torch.device
) -> Tensor:
    """Anchors (H W A, 4), xyxy in pixels, around the top left corners of the positions, as published."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device) * stride,
        torch.arange(width, device=device) * stride,
        indexing="ij",
    )
    centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    halves = torch.tensor(sides, dtype=torch.float32, device=device)[:, None] / 2
    return (centres + halves * halves.new_tensor([-1, -1, 1, 1])).reshape(-1, 4)


def decode(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Boxes (B, R, 4), xyxy in pixels, from deltas (dx, dy, log w, log h) to the anchors (R, 4).

    Shifts are in units of the anchor's side, and at most `CENTRE_CLAMP` pixels (section 4.2's predictions
    stay near their anchors); sides grow at most by the factor e^`SIDE_CLAMP`.
    """
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = (anchors[:, 2:] + anchors[:, :2]) / 2
    centres = centres + (deltas[..., :2] * sides).clamp(-CENTRE_CLAMP, CENTRE_CLAMP)
    halves = sides * deltas[..., 2:].clamp(max=SIDE_CLAMP).exp() / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def yolof(
    num_classes: int,
    backbone: str = "resnet50",
    dilated_c5: bool = False,
    min_size: int = 800,
    max_size: int = 1333,
    frozen_bn: bool = False,
    trainable_layers: int | None = None,
    dilations: tuple[int, ...] | None = None,
    anchor_scales: tuple[int, ...] | None = None,
    matches: int | None = None,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> BuiltDetector:
    """YOLOF on a ResNet of torchvision.

    Args:
        num_classes: Number of classes K.
        backbone: A ResNet, ResNeXt or Wide ResNet of torchvision.
        dilated_c5: The last stage is dilated, and its map of stride 16 instead of 32.
        min_size: Shorter side that images are resized to, in pixels.
        max_size: Longest side after resizing, in pixels; goes before `min_size`.
        frozen_bn: The backbone's BatchNorms keep their statistics and weights: for pretrained backbones with
            few images in a batch. False trains them.
        trainable_layers: How many of the backbone's five parts, from the last, are trained; 3 as published.
            None trains all.
        dilations: Of the encoder's residual blocks, one each; None: 2, 4, 6, 8, and dilated 4, 8, 12, 16.
        anchor_scales: Sides of the anchors, in pixels; None: 32 to 512 in powers of 2, dilated 16 to 512.
        matches: Anchors that are positive for each object, and as many predictions; None: 4, dilated 8.
        score_threshold: Detections of a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class that overlap by a larger IoU, the better one is kept, 0 to 1.
        max_detections: Most detections in an image.

    Raises:
        AttnlabError: For an unknown backbone, one that cannot be dilated, or numbers that cannot be.
    """
    if backbone not in RESNETS:
        raise unknown("backbone of yolof", backbone, RESNETS)
    if not 1 <= min_size <= max_size:
        raise AttnlabError(
            f"min_size of yolof must be at least 1 and at most max_size, got {min_size} and {max_size}."
        )
    if dilations is None:
        dilations = (4, 8, 12, 16) if dilated_c5 else (2, 4, 6, 8)
    if anchor_scales is None:
        anchor_scales = (16, 32, 64, 128, 256, 512) if dilated_c5 else (32, 64, 128, 256, 512)
    if matches is None:
        matches = 8 if dilated_c5 else 4
    for name, numbers in (("dilations", dilations), ("anchor_scales", anchor_scales), ("matches", [matches])):
        if not numbers or any(not isinstance(number, int) or number < 1 for number in numbers):
            raise AttnlabError(f"{name} of yolof takes whole numbers of at least 1, got {numbers!r}.")
    trunk, channels = _trunk(backbone, dilated_c5, frozen_bn, trainable_layers)
    neck = DilatedEncoder(channels, dilations=dilations)
    network = YOLOF(
        backbone=trunk,
        neck=neck,
        decoder=Decoder(neck.channels, len(anchor_scales), num_classes),
        resize=ShortSide(min_size, max_size),
        stride=16 if dilated_c5 else 32,
        anchor_scales=anchor_scales,
        matches=matches,
        positive_threshold=0.1 if dilated_c5 else 0.15,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
    )
    allow_single_values(network)
    return BuiltDetector(network, 0, "backbone", example_size(min_size, max_size))


def _trunk(
    backbone: str, dilated: bool, frozen_bn: bool, trainable_layers: int | None
) -> tuple[nn.Sequential, int]:
    """A ResNet up to its last map, with the library's names, and the channels of that map."""
    try:
        resnet = models.get_model(
            backbone,
            weights=None,
            norm_layer=FrozenBatchNorm2d if frozen_bn else nn.BatchNorm2d,
            replace_stride_with_dilation=[False, False, dilated],
        )
    except NotImplementedError as error:
        raise AttnlabError(
            f"{backbone} has blocks that cannot be dilated; dilated_c5 needs resnet50 or a larger one."
        ) from error
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    trunk = nn.Sequential(OrderedDict((name, getattr(resnet, name)) for name in names))
    trained = check_layers(trainable_layers, 5)
    parts = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    for part in parts[: 5 - trained]:
        for name in part:
            trunk.get_submodule(name).requires_grad_(False)
    return trunk, resnet.fc.in_features


def _by_anchor(maps: Tensor, anchors: int) -> Tensor:
    """(B, A D, H, W) -> (B, H W A, D)."""
    batch, channels, height, width = maps.shape
    size = channels // anchors
    return maps.view(batch, anchors, size, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, size)


def _class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the focal losses (alpha 0.25, gamma 2) of the anchors (B, R) that are not ignored."""
    counted = labels != IGNORED
    wanted = torch.zeros_like(logits)
    image, anchor = torch.nonzero(labels >= 0, as_tuple=True)
    wanted[image, anchor, labels[image, anchor]] = 1
    return sigmoid_focal_loss(logits[counted], wanted[counted], alpha=0.25, gamma=2, reduction="sum")


def _box_loss(predicted: Tensor, assigned: Sequence[UniformAssignment], targets: Targets) -> Tensor:
    """Sum of the GIoU losses of all positive pairs."""
    pairs = [
        (boxes[assignment.anchors], target["boxes"][assignment.truths])
        for boxes, assignment, target in zip(predicted, assigned, targets, strict=True)
    ]
    found, truths = (torch.cat(side) for side in zip(*pairs, strict=True))
    return generalized_box_iou_loss(found, truths, reduction="sum")
