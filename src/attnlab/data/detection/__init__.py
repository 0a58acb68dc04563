"""Images with boxes."""

from attnlab.data.detection.base import DetectionDataModule
from attnlab.data.detection.coco import COCODetectionDataModule
from attnlab.data.detection.voc import VOCDetectionDataModule

__all__ = ["COCODetectionDataModule", "DetectionDataModule", "VOCDetectionDataModule"]
