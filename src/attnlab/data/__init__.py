"""Data modules: what a task trains, evaluates and predicts on, as batches."""

from attnlab.data.base import DataModule
from attnlab.data.classification import ClassificationDataModule
from attnlab.data.coco import COCODetectionDataModule
from attnlab.data.detection import DetectionDataModule
from attnlab.data.imagefolder import ImageFolderDataModule
from attnlab.data.imagenet import ImageNetDataModule
from attnlab.data.segmentation import SegmentationDataModule
from attnlab.data.shapes import ShapesSegmentationDataModule
from attnlab.data.shapes_classification import ShapesClassificationDataModule
from attnlab.data.shapes_detection import ShapesDetectionDataModule
from attnlab.data.voc import VOCSegmentationDataModule
from attnlab.data.voc_detection import VOCDetectionDataModule

__all__ = [
    "COCODetectionDataModule",
    "ClassificationDataModule",
    "DataModule",
    "DetectionDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "SegmentationDataModule",
    "ShapesClassificationDataModule",
    "ShapesDetectionDataModule",
    "ShapesSegmentationDataModule",
    "VOCDetectionDataModule",
    "VOCSegmentationDataModule",
]
