"""Classification metrics over a whole data set, from integer counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class ClassificationResult:
    """Scores of one pass over a data set.

    Attributes:
        top1: Top-1 accuracy, in 0..1; NaN if nothing was scored.
        top5: Top-5 accuracy, in 0..1; NaN if nothing was scored, None with fewer than five classes.
        per_class: Accuracy of each class that has images, in 0..1, by class name.
        absent: Classes without images, which have no accuracy.
        matrix: int64 (K, K) on the CPU; rows are true classes, columns predictions. Images without a
            prediction are not included.
        images: Number of images scored.
    """

    top1: float
    top5: float | None
    per_class: dict[str, float]
    absent: list[str]
    matrix: Tensor
    images: int


class ClassificationScores(Metric):
    """Top-1 and top-5 accuracy, per-class accuracy and the confusion matrix, accumulated in int64.

    The state is counts, K x K for any number of images. Integer sums do not depend on order, hence neither on
    batch size nor on the number of processes.

    Among equal logits the lower class index ranks first, so a network with constant logits scores at chance
    level. An image whose highest logit is not finite (NaN, or plus infinity) has no prediction and counts as
    wrong; see `without_prediction`.

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
        # The last column counts images without a prediction.
        self.add_state("counts", torch.zeros(classes, classes + 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("top5_hits", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Score a batch.

        Args:
            logits: (B, K), of any float type.
            label: int64 (B,), each in 0..K-1.
        """
        classes = len(self.class_names)
        broken = without_prediction(logits)
        prediction = torch.where(broken, classes, logits.argmax(1))
        cells = torch.bincount(label * (classes + 1) + prediction, minlength=self.counts.numel())
        self.counts += cells.reshape(self.counts.shape)
        own = logits.gather(1, label[:, None])
        index = torch.arange(classes, device=logits.device)
        ahead = (logits > own) | ((logits == own) & (index < label[:, None]))
        self.top5_hits += ((ahead.sum(1) < 5) & ~broken).sum()

    def compute(self) -> tuple[Tensor, Tensor]:
        """The counts (K, K + 1), the last column for images without a prediction, and the top-5 hits."""
        return self.counts, self.top5_hits

    def result(self) -> ClassificationResult:
        """Scores over everything seen so far, on all processes together.

        Must be called on every process, since it sums their counts.
        """
        counts, top5_hits = self.compute()
        return result_from_counts(counts, int(top5_hits), self.class_names)


def without_prediction(scores: Tensor) -> Tensor:
    """The images whose highest score is not finite, so that no class is the likeliest: (B, K) -> bool (B,).

    Those with a NaN or plus infinity, that is; minus infinity is the score of a class that is ruled out.
    """
    return ~scores.amax(1).isfinite()


def result_from_counts(counts: Tensor, top5_hits: int, class_names: list[str]) -> ClassificationResult:
    """Scores from the counts of `ClassificationScores.compute`: rows are true classes."""
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
