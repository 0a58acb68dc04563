"""YOLOF: You Only Look One-level Feature (arXiv 2103.09460), a detector without a feature pyramid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models, ops

from attnlab.attention.rules import allow_single_values
from attnlab.errors import AttnlabError, unknown
from attnlab.models.built import BuiltNetwork
from attnlab.models.detectors.recipe import Recipe, example_size
from attnlab.models.detectors.resizing import Images, ShortSide, Targets
from attnlab.models.detectors.torchvision import RESNETS
from attnlab.models.detectors.uniform_matching import IGNORED, match_uniformly

# Limits of the predicted centre's distance from its anchor's, in pixels, and of the log scale of its sides.
CENTRE_CLAMP = 32.0
SIDE_CLAMP = math.log(1000 / 16)
# Candidates per image for non-maximum suppression.
_CANDIDATES = 1000
# Score of every class and anchor at the start of training (focal loss, arXiv 1708.02002, section 4.1).
_PRIOR = 0.01


class DilatedEncoder(nn.Module):
    """Features with multiple receptive fields from one map (section 4.1, figure 5).

    A projector reduces the channels, and residual blocks of growing dilation add larger receptive fields.

    Args:
        in_channels: Channels of the backbone's map.
        channels: Output channels.
        mid_channels: Channels inside the residual blocks.
        dilations: Dilation of each residual block's 3x3 convolution.

    Attributes:
        projector: ``lateral`` (1x1), ``lateral_norm``, ``output`` (3x3) and ``output_norm``, without an
            activation.
        blocks: The residual blocks.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 512,
        mid_channels: int = 128,
        dilations: Sequence[int] = (2, 4, 6, 8),
    ) -> None:
        super().__init__()
        self.channels = channels
        self.projector = nn.Sequential(
            OrderedDict(
                lateral=nn.Conv2d(in_channels, channels, 1),
                lateral_norm=nn.BatchNorm2d(channels),
                output=nn.Conv2d(channels, channels, 3, padding=1),
                output_norm=nn.BatchNorm2d(channels),
            )
        )
        self.blocks = nn.Sequential(
            *(DilatedBottleneck(channels, mid_channels, dilation) for dilation in dilations)
        )
        for layer in self.projector:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        _start_small(self.blocks)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H, W)."""
        return self.blocks(self.projector(features))


class DilatedBottleneck(nn.Module):
    """x + ReLU(BN(1x1(ReLU(BN(3x3 dilated(ReLU(BN(1x1(x))))))))."""

    def __init__(self, channels: int, mid_channels: int, dilation: int) -> None:
        super().__init__()
        # With biases, as published.
        self.reduce = ops.Conv2dNormActivation(channels, mid_channels, 1, bias=True)
        self.dilate = ops.Conv2dNormActivation(mid_channels, mid_channels, 3, dilation=dilation, bias=True)
        self.expand = ops.Conv2dNormActivation(mid_channels, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + self.expand(self.dilate(self.reduce(x)))


class Decoder(nn.Module):
    """Two branches of 3x3 convolutions; objectness has no loss of its own (section 4.3).

    Args:
        channels: Channels C of the encoded map.
        anchors: Anchors A at each position.
        num_classes: Number of classes K.
    """

    def __init__(self, channels: int, anchors: int, num_classes: int) -> None:
        super().__init__()

        def branch(layers: int) -> nn.Sequential:
            return nn.Sequential(
                *(ops.Conv2dNormActivation(channels, channels, 3, bias=True) for _ in range(layers))
            )

        self.class_branch = branch(2)
        self.box_branch = branch(4)
        self.class_logits = nn.Conv2d(channels, anchors * num_classes, 3, padding=1)
        self.box_deltas = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 3, padding=1)
        _start_small(self)
        nn.init.constant_(self.class_logits.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, R, K) and deltas (B, R, 4) of the R = H W A anchors of a map (B, C, H, W)."""
        boxes = self.box_branch(encoded)
        classes, objectness, deltas = (
            # (B, A D, H, W) -> (B, H W A, D)
            maps.unflatten(1, (self.objectness.out_channels, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3).float()
            for maps in (
                self.class_logits(self.class_branch(encoded)),
                self.objectness(boxes),
                self.box_deltas(boxes),
            )
        )
        return with_objectness(classes, objectness), deltas


class YOLOF(nn.Module):
    """Images -> losses in training, detections in evaluation.

    Args:
        backbone: (B, 3, H, W) -> (B, C, H / stride, W / stride).
        neck: (B, C, h, w) -> (B, D, h, w).
        decoder: A `Decoder`.
        resize: Makes a batch of the images.
        stride: Stride of the backbone's map, in pixels.
        anchor_scales: Sides of the square anchors at each position, in pixels of the batch.
        matches: Number of positive anchors, and of predicted boxes, per object.
        positive_threshold: Pairs of object and anchor with a smaller IoU are ignored.
        score_threshold: Detections with a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class with a larger IoU, only the better one is kept, 0 to 1.
        max_detections: Maximum number of detections per image.
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
        """Losses ``class`` and ``box`` in training; else a dict of boxes, scores and labels per image.

        Args:
            images: (3, h, w) each, or (B, 3, h, w), in 0..1.
            targets: One dict per image: ``boxes`` (N, 4), xyxy in its pixels, and ``labels`` (N,) in 0..K-1.
        """
        if self.training and targets is None:
            raise AttnlabError("YOLOF needs targets in training mode.")
        batch, moved, locations = self.resize(images, targets)
        encoded = self.neck(self.backbone(batch))
        logits, deltas = self.decoder(encoded)
        height, width = encoded.shape[-2:]
        anchors = square_anchors(height, width, self.stride, self.anchor_scales, deltas.device)
        predicted = decode(anchors, deltas)
        if self.training:
            assert moved is not None
            return self._losses(logits, predicted, anchors, moved)
        return [
            self._detections(scores, location.back(boxes))
            for scores, boxes, location in zip(logits.sigmoid(), predicted, locations, strict=True)
        ]

    def _losses(
        self, logits: Tensor, predicted: Tensor, anchors: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """Focal losses of the anchors that are not ignored and GIoU losses of all positive pairs."""
        labels, found, truths = [], [], []
        for boxes, target in zip(predicted, targets, strict=True):
            true, own = target["boxes"], target["labels"]
            assigned = match_uniformly(
                anchors, boxes.detach(), true, own, self.matches, self.positive_threshold
            )
            labels.append(assigned.labels)
            found.append(boxes[assigned.anchors])
            truths.append(true[assigned.truths])
        label = torch.stack(labels)
        wanted = torch.zeros_like(logits)
        image, anchor = torch.nonzero(label >= 0, as_tuple=True)
        wanted[image, anchor, label[image, anchor]] = 1
        counted = label != IGNORED
        positives = (label >= 0).sum().clamp(min=1)
        focal = ops.sigmoid_focal_loss(logits[counted], wanted[counted], alpha=0.25, gamma=2, reduction="sum")
        giou = ops.generalized_box_iou_loss(torch.cat(found), torch.cat(truths), reduction="sum")
        return {"class": focal / positives, "box": giou / positives}

    def _detections(self, scores: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """An image's detections from its scores (R, K) and boxes (R, 4)."""
        classes = scores.shape[1]
        candidates, index = scores.flatten().topk(min(_CANDIDATES, scores.numel()))
        kept = candidates > self.score_threshold
        candidates, index = candidates[kept], index[kept]
        boxes, labels = boxes[index // classes], index % classes
        # Boxes in the padding have no area after clipping to the image.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, candidates, labels = boxes[inside], candidates[inside], labels[inside]
        best = ops.batched_nms(boxes, candidates, labels, self.nms_threshold)[: self.max_detections]
        return {"boxes": boxes[best], "scores": candidates[best], "labels": labels[best]}


def with_objectness(classes: Tensor, objectness: Tensor) -> Tensor:
    """The logit of the score of section 4.3, sigmoid(c) sigmoid(o), for logits c (..., K) and o (..., 1).

    With p = 1 / ((1 + e^-c)(1 + e^-o)), p / (1 - p) = e^(c + o) / (1 + e^c + e^o), whose logarithm is
    computed without overflow.
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


@dataclass(frozen=True)
class YOLOFRecipe(Recipe):
    """YOLOF on a ResNet.

    Attributes:
        backbone: A ResNet, ResNeXt or Wide ResNet.
        trainable_layers: Number of the backbone's last parts, of five, that are trained; 3 as published. None
            trains all.
        dilated_c5: Dilate the last stage, so that its map has stride 16 instead of 32.
        min_size: Shorter side that images are resized to, in pixels.
        max_size: Longest side after resizing, in pixels; takes precedence over `min_size`.
        dilations: Dilations of the encoder's residual blocks; None: 2, 4, 6, 8, or 4, 8, 12, 16 with
            dilated_c5.
        anchor_scales: Sides of the anchors, in pixels; None: 32 to 512 in powers of 2, or 16 to 512 with
            dilated_c5.
        matches: Number of positive anchors per object, and of predictions; None: 4, or 8 with dilated_c5.
    """

    dilated_c5: bool = False
    min_size: int = 800
    max_size: int = 1333
    dilations: tuple[int, ...] | None = None
    anchor_scales: tuple[int, ...] | None = None
    matches: int | None = None
    nms_threshold: float = 0.6

    def build(self) -> BuiltNetwork:
        """Build the network; options not given are as published for the stride."""
        if self.backbone not in RESNETS:
            raise unknown("backbone of yolof", self.backbone, RESNETS)
        if not 1 <= self.min_size <= self.max_size:
            raise AttnlabError(
                f"min_size of yolof must be at least 1 and at most max_size, got {self.min_size} and "
                f"{self.max_size}."
            )
        dilations, scales, matches = self.dilations, self.anchor_scales, self.matches
        if dilations is None:
            dilations = (4, 8, 12, 16) if self.dilated_c5 else (2, 4, 6, 8)
        if scales is None:
            scales = (16, 32, 64, 128, 256, 512) if self.dilated_c5 else (32, 64, 128, 256, 512)
        if matches is None:
            matches = 8 if self.dilated_c5 else 4
        for name, numbers in (("dilations", dilations), ("anchor_scales", scales), ("matches", [matches])):
            if not numbers or any(not isinstance(number, int) or number < 1 for number in numbers):
                raise AttnlabError(f"{name} of yolof must be integers of at least 1, got {numbers!r}.")
        trunk, channels = self._trunk()
        neck = DilatedEncoder(channels, dilations=dilations)
        network = YOLOF(
            backbone=trunk,
            neck=neck,
            decoder=Decoder(neck.channels, len(scales), self.num_classes),
            resize=ShortSide(self.min_size, self.max_size),
            stride=16 if self.dilated_c5 else 32,
            anchor_scales=scales,
            matches=matches,
            positive_threshold=0.1 if self.dilated_c5 else 0.15,
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
        )
        allow_single_values(network)
        size = example_size(self.min_size, self.max_size)
        return BuiltNetwork(network, "backbone", ("decoder.class_logits",), example_size=size, first_label=0)

    def _trunk(self) -> tuple[nn.Sequential, int]:
        """A ResNet up to its last map, with the library's names, and the channels of that map."""
        try:
            resnet = models.get_model(
                self.backbone,
                weights=None,
                norm_layer=ops.FrozenBatchNorm2d if self.frozen_bn else nn.BatchNorm2d,
                replace_stride_with_dilation=[False, False, self.dilated_c5],
            )
        except NotImplementedError as error:
            raise AttnlabError(
                f"The blocks of {self.backbone} cannot be dilated; dilated_c5 needs resnet50 or larger."
            ) from error
        # All but its pooling and classifier.
        trunk = nn.Sequential(OrderedDict(list(resnet.named_children())[:-2]))
        parts = [trunk[:4], *trunk[4:]]
        for part in parts[: 5 - self.trained_parts(5)]:
            part.requires_grad_(False)
        return trunk, resnet.fc.in_features


def _start_small(module: nn.Module) -> None:
    """Normally distributed weights for convolutions, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
