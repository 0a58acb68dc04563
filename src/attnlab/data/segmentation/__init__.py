"""Images with masks."""

from attnlab.data.segmentation.base import SegmentationDataModule
from attnlab.data.segmentation.voc import VOCSegmentationDataModule

__all__ = ["SegmentationDataModule", "VOCSegmentationDataModule"]
