"""Classification scores over a whole data set, from counts of integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class ClassificationResult:
    """What one pass over a data set came to.

    Attributes:
        top1: Share of the images whose class is predicted, in 0..1; nan when nothing was scored.
        top5: Share of the images whose class is among the five most likely, in 0..1; nan when nothing was
            scored, None with fewer than five classes.
        per_class: Share of the images of each class that are predicted as it, in 0..1, by class name; the
            classes that have an image.
        absent: Classes without an image. They have no accuracy of their own.
        matrix: int64 (K, K) on the CPU; rows are truths, columns predictions. Images without a prediction
            are in none of its cells.
        images: How many images were scored.
    """

    top1: float
    top5: float | None
    per_class: dict[str, float]
    absent: list[str]
    matrix: Tensor
    images: int


class ClassificationScores(Metric):
    """Top-1 and top-5 accuracy, per-class accuracy and the confusion matrix, accumulated in int64.

    The state is counts alone, so its memory is K x K whatever the number of images. Integers add up the same
    in any order, so the result does not depend on batch size or on how many processes shared the images.

    Of equal logits, the one of the lower class index comes first, both for the prediction (top-1) and for the
    five most likely classes (top-5). A network whose logits are all the same thus scores by chance. An image
    with a NaN among its logits has no prediction: it is scored, and counts as wrong.

    Args:
        class_names: Name of each class, in the order of its index.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor
    top5_hits: Tensor

    def __init__(self, class_names: list[str]) -> None:
        super().__init__()
        self.class_names = list(class_names)
        classes = len(class_names)
        # The last column is of the images without a prediction.
        self.add_state("counts", torch.zeros(classes, classes + 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("top5_hits", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Score a batch.

        Args:
            logits: (B, K), of any float type.
            label: int64 (B,), each in 0..K-1.
        """
        classes = len(self.class_names)
        broken = logits.isnan().any(1)
        prediction = torch.where(broken, classes, logits.argmax(1))
        cells = torch.bincount(label * (classes + 1) + prediction, minlength=self.counts.numel())
        self.counts += cells.reshape(self.counts.shape)
        own = logits.gather(1, label[:, None])
        index = torch.arange(classes, device=logits.device)
        ahead = (logits > own) | ((logits == own) & (index < label[:, None]))
        self.top5_hits += ((ahead.sum(1) < 5) & ~broken).sum()

    def compute(self) -> tuple[Tensor, Tensor]:
        """The counts (K, K + 1), the last column of images without a prediction, and the hits of top-5."""
        return self.counts, self.top5_hits

    def result(self) -> ClassificationResult:
        """Scores over everything seen so far, on all processes together.

        Must be called on every process, since it sums the processes' counts.
        """
        counts, top5_hits = self.compute()
        return result_from_counts(counts, int(top5_hits), self.class_names)


def result_from_counts(counts: Tensor, top5_hits: int, class_names: list[str]) -> ClassificationResult:
    """Scores from the counts of `ClassificationScores.compute`: rows are truths, columns predictions."""
    counts = counts.to("cpu", torch.int64)
    matrix = counts[:, :-1].clone()
    hits = matrix.diagonal()
    images = int(counts.sum())
    per_class = {
        name: int(hit) / int(seen)
        for name, hit, seen in zip(class_names, hits, counts.sum(1), strict=True)
        if seen > 0
    }
    top5 = top5_hits / images if images else float("nan")
    return ClassificationResult(
        top1=int(hits.sum()) / images if images else float("nan"),
        top5=top5 if len(class_names) >= 5 else None,
        per_class=per_class,
        absent=[name for name in class_names if name not in per_class],
        matrix=matrix,
        images=images,
    )
