"""The LightningModules, one per task."""

from attnlab.tasks.base import BaseTask
from attnlab.tasks.classification import ClassificationTask
from attnlab.tasks.configs import AttentionConfig, OptimizerConfig, ScheduleConfig
from attnlab.tasks.detection import DetectionTask
from attnlab.tasks.losses import SegmentationLossConfig
from attnlab.tasks.mixing import MixingConfig
from attnlab.tasks.segmentation import SegmentationTask

__all__ = [
    "AttentionConfig",
    "BaseTask",
    "ClassificationTask",
    "DetectionTask",
    "MixingConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "SegmentationLossConfig",
    "SegmentationTask",
]
