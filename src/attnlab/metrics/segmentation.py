"""Segmentation metrics over a whole data set, from an integer confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

NO_CLASS = 255
"""In a class map, a pixel without a prediction."""


@dataclass(frozen=True)
class SegmentationResult:
    """Scores of one pass over a data set.

    Attributes:
        miou: Mean of ``iou`` over the classes present, in 0..1; NaN if nothing was scored.
        pixel_accuracy: Correct pixels over scored pixels, in 0..1; NaN if nothing was scored.
        iou: Intersection over union of each present class, in 0..1, by class name.
        absent: Classes in neither ground truth nor predictions. They have no IoU and are left out of the
            mean.
        pixels: Number of pixels scored.
    """

    miou: float
    pixel_accuracy: float
    iou: dict[str, float]
    absent: list[str]
    pixels: int


class SegmentationScores(MulticlassConfusionMatrix):
    """mIoU, per-class IoU and pixel accuracy, accumulated in int64.

    The state is torchmetrics' confusion matrix: ``update`` takes class maps, never a one-hot, so it takes K x
    K memory for any image size and number. Integer sums do not depend on order, hence neither on batch size
    nor on the number of processes.

    A pixel of no class (`NO_CLASS`) is missed for its true class, and wrong in the pixel accuracy.

    IoU follows the Pascal VOC definition (Everingham et al., IJCV 2015, section 4.2):
    ``TP / (TP + FP + FN)`` with the counts taken over all images together.

    Args:
        class_names: Name of each class, in the order of its index.
        ignore_index: Ground-truth value of pixels that are not scored.
    """

    def __init__(self, class_names: list[str], ignore_index: int = 255) -> None:
        # validate_args would check every value in each step; the data module has checked the masks, and
        # argmax stays in range.
        # The class after the last is that of pixels without a prediction.
        super().__init__(num_classes=len(class_names) + 1, ignore_index=ignore_index, validate_args=False)
        self.class_names = list(class_names)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Score class maps.

        Args:
            preds: Integers of any shape, each in 0..K-1 or `NO_CLASS`.
            target: Integers of the same shape, each in 0..K-1 or ``ignore_index``.
        """
        super().update(preds.clamp(max=len(self.class_names)), target)

    def result(self) -> SegmentationResult:
        """Scores over everything seen so far, on all processes together.

        Must be called on every process, since it sums their matrices.
        """
        return result_from_matrix(self.compute(), self.class_names)


def result_from_matrix(matrix: Tensor, class_names: list[str]) -> SegmentationResult:
    """Scores from a confusion matrix, int64 (K, K), whose rows are true classes and columns predictions.

    The matrix of `SegmentationScores` is (K + 1, K + 1): its last column counts pixels without a prediction,
    its last row is 0.
    """
    counts = matrix.to("cpu", torch.int64)[: len(class_names)]
    hits = counts.diagonal()
    union = counts.sum(0)[: len(class_names)] + counts.sum(1) - hits
    total = int(counts.sum())
    iou = {name: int(h) / int(u) for name, h, u in zip(class_names, hits, union, strict=True) if u > 0}
    return SegmentationResult(
        miou=sum(iou.values()) / len(iou) if iou else float("nan"),
        pixel_accuracy=int(hits.sum()) / total if total else float("nan"),
        iou=iou,
        absent=[name for name in class_names if name not in iou],
        pixels=total,
    )
