"""Images with boxes."""

from attnlab.data.detection.base import DetectionDataModule
from attnlab.data.detection.coco import COCODetectionDataModule
from attnlab.data.detection.voc import VOCDetectionDataModule
from attnlab.data.detection.yolo import YOLODetectionDataModule

__all__ = [
    "COCODetectionDataModule",
    "DetectionDataModule",
    "VOCDetectionDataModule",
    "YOLODetectionDataModule",
]
