"""Metrics beyond torchmetrics."""

from attnlab.metrics.classification import ClassificationResult, ClassificationScores
from attnlab.metrics.detection import ClassAP, DetectionResult, DetectionScores
from attnlab.metrics.segmentation import (
    NO_CLASS,
    SegmentationResult,
    SegmentationScores,
    result_from_matrix,
)

__all__ = [
    "NO_CLASS",
    "ClassAP",
    "ClassificationResult",
    "ClassificationScores",
    "DetectionResult",
    "DetectionScores",
    "SegmentationResult",
    "SegmentationScores",
    "result_from_matrix",
]
