"""Scores that torchmetrics does not give as the tasks need them."""

from attnlab.metrics.segmentation import SegmentationResult, SegmentationScores, result_from_matrix

__all__ = ["SegmentationResult", "SegmentationScores", "result_from_matrix"]
