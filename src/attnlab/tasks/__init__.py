"""LightningModules, one a task."""

from attnlab.tasks.base import BaseTask
from attnlab.tasks.configs import AttentionConfig, OptimizerConfig, ScheduleConfig
from attnlab.tasks.losses import SegmentationLossConfig
from attnlab.tasks.segmentation import SegmentationTask

__all__ = [
    "AttentionConfig",
    "BaseTask",
    "OptimizerConfig",
    "ScheduleConfig",
    "SegmentationLossConfig",
    "SegmentationTask",
]
