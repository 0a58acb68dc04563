"""YOLOX in six sizes.

Zheng Ge, Songtao Liu, Feng Wang, Zeming Li, Jian Sun: YOLOX: Exceeding YOLO Series in 2021,
https://arxiv.org/abs/2107.08430

====== ===== ===== ============ ========= ============ =======
name   depth width 3x3          image     parameters   GFLOPs
====== ===== ===== ============ ========= ============ =======
nano   0.33  0.25  depthwise    416       0.91 M       1.08
tiny   0.33  0.375 full         416       5.06 M       6.45
s      0.33  0.50  full         640       9.0 M        26.8
m      0.67  0.75  full         640       25.3 M       73.8
l      1.00  1.00  full         640       54.2 M       155.6
x      1.33  1.25  full         640       99.1 M       281.9
====== ===== ===== ============ ========= ============ =======

The figures are the authors', for 80 classes; a FLOP is half a multiply-accumulate, and normalisation counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.ops import batched_nms

from attnlab.errors import AttnlabError
from attnlab.models.detectors.csp_darknet import CSPDarknet
from attnlab.models.detectors.resizing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Images,
    Interpolation,
    Letterbox,
    Placement,
)
from attnlab.models.detectors.simota import CENTRE_RADIUS
from attnlab.models.detectors.yolox_head import Predictions, YOLOXHead
from attnlab.models.detectors.yolox_losses import yolox_losses
from attnlab.models.detectors.yolox_neck import PAFPN

Place = Literal["centre", "top_left"]
Pixels = Literal["imagenet", "bgr255"]


class YOLOX(nn.Module):
    """The detector: ``backbone``, ``neck``, ``head``.

    Args:
        num_classes: Number of classes K.
        depth: Factor of the number of bottlenecks.
        width: Factor of the channels.
        depthwise: Whether 3x3 layers are depthwise separable.
        resizing: What makes the batch; a multiple of 32 each side.
        flip_channels: Whether the network takes blue, green, red.
        score_threshold: Detections below this score, 0..1, are dropped.
        nms_threshold: Of two boxes of a class that overlap by more than this IoU, the lower one is dropped.
        max_detections: At most this many detections an image.
        l1_last: Share of the training, at its end, that has the L1 loss, and no multi-scale.
        centre_radius: SimOTA's, in strides.

    Raises:
        AttnlabError: For a value out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        depth: float,
        width: float,
        depthwise: bool,
        resizing: Letterbox,
        flip_channels: bool = False,
        score_threshold: float = 0.001,
        nms_threshold: float = 0.65,
        max_detections: int = 100,
        l1_last: float = 0.05,
        centre_radius: float = CENTRE_RADIUS,
    ) -> None:
        super().__init__()
        for name, value in (("nms_threshold", nms_threshold), ("l1_last", l1_last)):
            if not 0 <= value <= 1:
                raise AttnlabError(f"{name} lies in 0..1, got {value}.")
        if score_threshold < 0:
            raise AttnlabError(f"score_threshold is at least 0, got {score_threshold}.")
        if max_detections < 1 or num_classes < 1 or centre_radius <= 0:
            raise AttnlabError(
                "num_classes and max_detections are at least 1 and centre_radius is above 0; "
                f"got {num_classes}, {max_detections} and {centre_radius}."
            )
        self.resizing = resizing
        self.backbone = CSPDarknet(depth, width, depthwise)
        self.neck = PAFPN(self.backbone.channels, depth, depthwise)
        self.head = YOLOXHead(num_classes, self.backbone.channels, int(256 * width), depthwise)
        # The stem's convolution takes twelve: four pixels of an image each.
        self.in_channels = 3
        self.flip_channels = flip_channels
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.l1_last = l1_last
        self.centre_radius = centre_radius
        self.l1 = False

    def set_progress(self, share: float) -> None:
        """Switch L1 loss and multi-scale by the part of the training that is done.

        Args:
            share: Epoch that begins, divided by the number of epochs, 0..1.
        """
        # Epochs are whole, so a share just below the limit by rounding is at it.
        self.l1 = self.l1_last > 0 and share >= 1 - self.l1_last - 1e-9
        smallest, largest = self.resizing.train_sizes
        self.resizing.multi_scale = smallest < largest and not self.l1

    def forward(self, images: Images, targets: Sequence[Mapping[str, Any]] | None = None) -> Any:
        """Losses in training, detections in evaluation.

        Args:
            images: (3,h,w) each, or (B,3,h,w), RGB in 0..1.
            targets: One dict an image, in training: ``boxes`` xyxy (N,4) in its pixels, ``labels`` (N,).

        Returns:
            In training ``iou``, ``objectness``, ``class`` and, late, ``l1``: scalars to be summed. In
            evaluation a list with a dict an image: ``boxes`` (M,4) in its pixels, ``scores`` (M,) descending,
            ``labels`` (M,).

        Raises:
            AttnlabError: In training without targets.
        """
        if self.training and targets is None:
            raise AttnlabError("YOLOX needs targets in training; call eval() first to get detections.")
        batch, moved, placements = self.resizing(images, targets if self.training else None)
        predictions = self.head(*self.neck(*self.backbone(batch.flip(1) if self.flip_channels else batch)))
        if moved is not None:
            return yolox_losses(predictions, moved, self.l1, self.centre_radius)
        return self.detections(predictions, placements)

    def detections(
        self, predictions: Predictions, placements: Sequence[Placement]
    ) -> list[dict[str, Tensor]]:
        """The boxes that are left of a batch's predictions, in the pixels of the images.

        An anchor has one class, its likeliest; its score is σ(objectness) · σ(class). Boxes are suppressed
        class by class.
        """
        logits, labels = predictions.classes.max(dim=-1)
        scores = predictions.objectness.sigmoid() * logits.sigmoid()
        boxes = predictions.anchors.decode(predictions.offsets)
        return [
            self._detections(boxes[i], scores[i], labels[i], placement)
            for i, placement in enumerate(placements)
        ]

    def _detections(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, placement: Placement
    ) -> dict[str, Tensor]:
        likely = (scores >= self.score_threshold).nonzero()[:, 0]
        boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
        kept = batched_nms(boxes, scores, labels, self.nms_threshold)
        clipped = self.resizing.back(boxes[kept], placement)
        within = (clipped[:, :2] < clipped[:, 2:]).all(dim=1).nonzero()[: self.max_detections, 0]
        kept = kept[within]
        return {"boxes": clipped[within], "scores": scores[kept], "labels": labels[kept]}


@dataclass(frozen=True)
class YOLOXSize:
    """What makes one of the six sizes.

    Attributes:
        depth: Factor of the number of bottlenecks.
        width: Factor of the channels.
        image: Side of the image that it is meant for, in pixels.
        depthwise: Whether 3x3 layers are depthwise separable.
    """

    depth: float
    width: float
    image: int
    depthwise: bool = False


YOLOX_SIZES = {
    "nano": YOLOXSize(0.33, 0.25, 416, depthwise=True),
    "tiny": YOLOXSize(0.33, 0.375, 416),
    "s": YOLOXSize(0.33, 0.50, 640),
    "m": YOLOXSize(0.67, 0.75, 640),
    "l": YOLOXSize(1.00, 1.00, 640),
    "x": YOLOXSize(1.33, 1.25, 640),
}


def yolox(
    variant: str,
    num_classes: int,
    size: int | None = None,
    train_sizes: tuple[int, int] | None = None,
    place: Place = "centre",
    fill: float = 128 / 255,
    interpolation: Interpolation = "bilinear",
    pixels: Pixels = "imagenet",
    score_threshold: float = 0.001,
    nms_threshold: float = 0.65,
    max_detections: int = 100,
    l1_last: float = 0.05,
    centre_radius: float = CENTRE_RADIUS,
) -> YOLOX:
    """A YOLOX of one of the six sizes.

    Args:
        variant: ``nano``, ``tiny``, ``s``, ``m``, ``l`` or ``x``.
        num_classes: Number of classes K.
        size: Side of the square that an image is fitted into, a multiple of 32; None means 416 for nano and
            tiny, and 640 for the others.
        train_sizes: Smallest and largest side in training, drawn for each batch; none: always ``size``.
        place: Where the image lies in the square.
        fill: Grey value around the image, 0..1.
        interpolation: How images are resampled.
        pixels: What the network takes: ``imagenet`` for RGB with ImageNet's mean and standard deviation;
            ``bgr255`` for blue, green, red in 0..255, as Megvii's own weights need it (with ``place``
            top_left and ``fill`` 0.447).
        score_threshold: Detections below this score are dropped.
        nms_threshold: Of two boxes of a class that overlap by more than this IoU, the lower one is dropped.
        max_detections: At most this many detections an image.
        l1_last: Share of the training, at its end, that has the L1 loss, and no ``train_sizes``.
        centre_radius: Half the side of the square around an object's middle whose anchors may learn it, in
            strides.

    Raises:
        AttnlabError: For a value out of its range.
    """
    if pixels not in ("imagenet", "bgr255"):
        raise AttnlabError(f"pixels is 'imagenet' or 'bgr255', not '{pixels}'.")
    plain = pixels == "bgr255"
    mean = (0.0, 0.0, 0.0) if plain else IMAGENET_MEAN
    std = (1 / 255, 1 / 255, 1 / 255) if plain else IMAGENET_STD
    chosen = YOLOX_SIZES[variant]
    side = chosen.image if size is None else size
    return YOLOX(
        num_classes,
        chosen.depth,
        chosen.width,
        chosen.depthwise,
        Letterbox(side, train_sizes, place, fill, mean, std, interpolation),
        flip_channels=plain,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
        l1_last=l1_last,
        centre_radius=centre_radius,
    )
