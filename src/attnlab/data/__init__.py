"""Data modules: what a task trains, evaluates and predicts on, as batches."""

import sys
from importlib import import_module

from attnlab.data.base import DataModule
from attnlab.data.classification import ClassificationDataModule, ImageFolderDataModule, ImageNetDataModule
from attnlab.data.detection import (
    COCODetectionDataModule,
    DetectionDataModule,
    VOCDetectionDataModule,
    YOLODetectionDataModule,
)
from attnlab.data.segmentation import (
    MaskFolderDataModule,
    SegmentationDataModule,
    VOCSegmentationDataModule,
)
from attnlab.data.shapes import (
    ShapesClassificationDataModule,
    ShapesDetectionDataModule,
    ShapesSegmentationDataModule,
)

# Former module paths, still used in YAMLs and checkpoints.
_MOVED = {
    "coco": "detection.coco",
    "detection_transforms": "detection.transforms",
    "imagefolder": "classification.imagefolder",
    "imagenet": "classification.imagenet",
    "mosaic": "detection.mosaic",
    "shapes_classification": "shapes.classification",
    "shapes_detection": "shapes.detection",
    "voc": "segmentation.voc",
    "voc_detection": "detection.voc",
}
for _old, _new in _MOVED.items():
    globals()[_old] = sys.modules[f"{__name__}.{_old}"] = import_module(f"{__name__}.{_new}")

__all__ = [
    "COCODetectionDataModule",
    "ClassificationDataModule",
    "DataModule",
    "DetectionDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "MaskFolderDataModule",
    "SegmentationDataModule",
    "ShapesClassificationDataModule",
    "ShapesDetectionDataModule",
    "ShapesSegmentationDataModule",
    "VOCDetectionDataModule",
    "VOCSegmentationDataModule",
    "YOLODetectionDataModule",
]
