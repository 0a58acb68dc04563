"""The built-in data sets: synthetic scenes, drawn once."""

from attnlab.data.shapes.base import ShapesDataModule
from attnlab.data.shapes.classification import ShapesClassificationDataModule
from attnlab.data.shapes.detection import ShapesDetectionDataModule
from attnlab.data.shapes.segmentation import ShapesSegmentationDataModule

__all__ = [
    "ShapesClassificationDataModule",
    "ShapesDataModule",
    "ShapesDetectionDataModule",
    "ShapesSegmentationDataModule",
]
