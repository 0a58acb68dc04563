"""YOLOX in six sizes.

Zheng Ge, Songtao Liu, Feng Wang, Zeming Li, Jian Sun: YOLOX: Exceeding YOLO Series in 2021,
https://arxiv.org/abs/2107.08430

Its losses (section 2.1; weights from the authors' code), summed over the N assigned anchors in the batch (at
least 1), with the IoU of predicted and true box:

    iou = 5 · Σ (1 - IoU²) / N objectness = Σ over all anchors of BCE(objectness, assigned or not) / N class =
    Σ BCE(classes, onehot(class) · IoU) / N l1 = Σ |t - t*| / N only in the last part of the training
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from attnlab.errors import AttnlabError
from attnlab.models.detectors.csp_darknet import PAFPN, CSPDarknet
from attnlab.models.detectors.resizing import ImageInBatch, Images, Interpolation, Letterbox, Place
from attnlab.models.detectors.simota import CENTRE_RADIUS, Truths, iou, sim_ota
from attnlab.models.detectors.yolox_head import Predictions, YOLOXHead

BOX_WEIGHT = 5.0


@dataclass(frozen=True)
class YOLOXSize:
    """One of the six sizes.

    Attributes:
        depth: Factor on the number of bottlenecks.
        width: Factor on the channels.
        image: Default side of the image, in pixels.
        depthwise: Whether 3x3 layers are depthwise separable.
    """

    depth: float
    width: float
    image: int
    depthwise: bool = False


# The authors' figures, for 80 classes; two FLOPs are one MAC, and normalisation counts.
YOLOX_SIZES = {
    "nano": YOLOXSize(0.33, 0.25, 416, depthwise=True),  # 0.91 M parameters, 1.08 GFLOPs
    "tiny": YOLOXSize(0.33, 0.375, 416),  # 5.06 M, 6.45
    "s": YOLOXSize(0.33, 0.50, 640),  # 9.0 M, 26.8
    "m": YOLOXSize(0.67, 0.75, 640),  # 25.3 M, 73.8
    "l": YOLOXSize(1.00, 1.00, 640),  # 54.2 M, 155.6
    "x": YOLOXSize(1.33, 1.25, 640),  # 99.1 M, 281.9
}


class YOLOX(nn.Module):
    """YOLOX: ``backbone``, ``neck``, ``head``; ``resizing`` makes the batch.

    Args:
        chosen: Its depth and width factors.
        num_classes: Number of classes K.
        size: Side of the square that images are fitted into, a multiple of 32; None means the variant's
            default.
        train_sizes: Smallest and largest side in training, drawn per batch; None: always ``size``.
        place: Position of the image in the square.
        fill: Grey value around the image, 0..1.
        interpolation: Resampling of images.
        pixels: The network's input: ``imagenet`` for RGB normalised with ImageNet's mean and standard
            deviation; ``bgr255`` for blue, green, red in 0..255, as Megvii's weights need (with ``place``
            top_left and ``fill`` 0.447).
        score_threshold: Detections below this score are dropped.
        nms_threshold: Of two boxes of a class with a larger IoU, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image.
        l1_last: Share of the training, at its end, with the L1 loss and without ``train_sizes``.
        centre_radius: Half the side of the square around an object's centre whose anchors can be assigned to
            it, in strides.

    Raises:
        AttnlabError: A value is out of range.
    """

    def __init__(
        self,
        chosen: YOLOXSize,
        num_classes: int,
        size: int | None = None,
        train_sizes: tuple[int, int] | None = None,
        place: Place = "centre",
        fill: float = 128 / 255,
        interpolation: Interpolation = "bilinear",
        pixels: Literal["imagenet", "bgr255"] = "imagenet",
        score_threshold: float = 0.001,
        nms_threshold: float = 0.65,
        max_detections: int = 100,
        l1_last: float = 0.05,
        centre_radius: float = CENTRE_RADIUS,
    ) -> None:
        super().__init__()
        if pixels not in ("imagenet", "bgr255"):
            raise AttnlabError(f"pixels must be 'imagenet' or 'bgr255', got '{pixels}'.")
        for name, value in (("nms_threshold", nms_threshold), ("l1_last", l1_last)):
            if not 0 <= value <= 1:
                raise AttnlabError(f"{name} must be in 0..1, got {value}.")
        if score_threshold < 0:
            raise AttnlabError(f"score_threshold must be at least 0, got {score_threshold}.")
        if max_detections < 1 or num_classes < 1 or centre_radius <= 0:
            raise AttnlabError(
                "num_classes and max_detections must be at least 1, centre_radius above 0; got "
                f"{num_classes}, {max_detections} and {centre_radius}."
            )
        self.flip_channels = pixels == "bgr255"
        plain = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)} if self.flip_channels else {}
        side = chosen.image if size is None else size
        self.resizing = Letterbox(side, train_sizes, place, fill, interpolation=interpolation, **plain)
        self.backbone = CSPDarknet(chosen.depth, chosen.width, chosen.depthwise)
        channels = self.backbone.channels
        self.neck = PAFPN(channels, chosen.depth, chosen.depthwise)
        self.head = YOLOXHead(num_classes, channels, int(256 * chosen.width), chosen.depthwise)
        # The stem's convolution takes twelve channels: four pixels each.
        self.in_channels = 3
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.l1_last = l1_last
        self.centre_radius = centre_radius
        self.l1 = False

    def set_progress(self, share: float) -> None:
        """Switch L1 loss and multi-scale by the share of the training done, 0..1."""
        # Tolerates rounding: a share just below the limit counts as reaching it.
        self.l1 = self.l1_last > 0 and share >= 1 - self.l1_last - 1e-9
        smallest, largest = self.resizing.train_sizes
        self.resizing.multi_scale = smallest < largest and not self.l1

    def forward(self, images: Images, targets: Sequence[Mapping[str, Any]] | None = None) -> Any:
        """Losses in training, detections in evaluation.

        Args:
            images: (3,h,w) each, or (B,3,h,w), RGB in 0..1.
            targets: One dict per image, in training: ``boxes`` xyxy (N,4) in its pixels, ``labels`` (N,).

        Returns:
            In training ``iou``, ``objectness``, ``class`` and, late, ``l1``: scalars to be summed. In
            evaluation a list with a dict per image: ``boxes`` (M,4) in its pixels, ``scores`` (M,)
            descending, ``labels`` (M,).

        Raises:
            AttnlabError: Training without targets.
        """
        if self.training and targets is None:
            raise AttnlabError("YOLOX needs targets in training mode; call eval() for detections.")
        batch, moved, locations = self.resizing(images, targets if self.training else None)
        predictions = self.head(*self.neck(*self.backbone(batch.flip(1) if self.flip_channels else batch)))
        if moved is not None:
            return yolox_losses(predictions, moved, self.l1, self.centre_radius)
        return self.detections(predictions, locations)

    def detections(
        self, predictions: Predictions, locations: Sequence[ImageInBatch]
    ) -> list[dict[str, Tensor]]:
        """Final detections of a batch's predictions, in the pixels of the images.

        An anchor has only its likeliest class; its score is σ(objectness) · σ(class). Non-maximum suppression
        is per class.
        """
        logits, labels = predictions.classes.max(dim=-1)
        scores = predictions.objectness.sigmoid() * logits.sigmoid()
        boxes = predictions.anchors.decode(predictions.offsets)
        found = []
        for box, score, label, location in zip(boxes, scores, labels, locations, strict=True):
            likely = (score >= self.score_threshold).nonzero()[:, 0]
            likely = likely[batched_nms(box[likely], score[likely], label[likely], self.nms_threshold)]
            clipped = location.back(box[likely])
            within = (clipped[:, :2] < clipped[:, 2:]).all(dim=1).nonzero()[: self.max_detections, 0]
            kept = likely[within]
            found.append({"boxes": clipped[within], "scores": score[kept], "labels": label[kept]})
        return found


def yolox(variant: str, num_classes: int, **options: Any) -> YOLOX:
    """YOLOX in one of the six sizes.

    Args:
        variant: ``nano``, ``tiny``, ``s``, ``m``, ``l`` or ``x``.
        num_classes: Number of classes K.
        **options: Those of `YOLOX`.
    """
    return YOLOX(YOLOX_SIZES[variant], num_classes, **options)


def yolox_losses(
    predictions: Predictions,
    targets: Sequence[Mapping[str, Any]],
    l1: bool = False,
    centre_radius: float = CENTRE_RADIUS,
) -> dict[str, Tensor]:
    """The losses of a batch, to be summed: ``iou``, ``objectness``, ``class`` and, optionally, ``l1``.

    Args:
        predictions: The head's.
        targets: One dict per image: ``boxes`` xyxy in pixels of the batch, ``labels``.
        l1: Include the L1 loss of the offsets.
        centre_radius: SimOTA's, in strides.
    """
    device, counts = predictions.offsets.device, torch.tensor([len(target["labels"]) for target in targets])
    truths = Truths(
        boxes=torch.cat([target["boxes"] for target in targets]).to(device, torch.float32).view(-1, 4),
        labels=torch.cat([target["labels"] for target in targets]).to(device, torch.int64),
        image=torch.arange(len(targets)).repeat_interleave(counts).to(device),
    )
    boxes = predictions.anchors.decode(predictions.offsets)
    assigned = sim_ota(predictions, boxes, truths, centre_radius)
    at = (assigned.image, assigned.anchor)
    count = max(len(assigned.truth), 1)
    true_boxes = truths.boxes[assigned.truth]

    overlaps = iou(boxes[at].unbind(-1), true_boxes.unbind(-1))
    objectness = torch.zeros_like(predictions.objectness)
    objectness[at] = 1.0
    classes = predictions.classes[at]
    class_targets = torch.zeros_like(classes)
    class_targets[torch.arange(len(classes), device=device), truths.labels[assigned.truth]] = assigned.iou
    bce = partial(F.binary_cross_entropy_with_logits, reduction="sum")
    losses = {
        "iou": BOX_WEIGHT * (1 - overlaps.square()).sum() / count,
        "objectness": bce(predictions.objectness, objectness) / count,
        "class": bce(classes, class_targets) / count,
    }
    if l1:
        wanted = predictions.anchors[assigned.anchor].encode(true_boxes)
        losses["l1"] = (predictions.offsets[at] - wanted).abs().sum() / count
    return losses
