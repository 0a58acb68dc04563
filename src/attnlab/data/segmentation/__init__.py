"""Images with masks."""

from attnlab.data.segmentation.base import SegmentationDataModule
from attnlab.data.segmentation.mask_folder import MaskFolderDataModule
from attnlab.data.segmentation.voc import VOCSegmentationDataModule

__all__ = ["MaskFolderDataModule", "SegmentationDataModule", "VOCSegmentationDataModule"]
