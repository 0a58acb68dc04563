"""Scores that torchmetrics does not give as the tasks need them."""

from attnlab.metrics.classification import ClassificationResult, ClassificationScores
from attnlab.metrics.segmentation import SegmentationResult, SegmentationScores, result_from_matrix

__all__ = [
    "ClassificationResult",
    "ClassificationScores",
    "SegmentationResult",
    "SegmentationScores",
    "result_from_matrix",
]
