"""Views: what a task shows and writes."""

from attnlab.views.base import Gallery, Picture, Record, TextFile, View, Writer
from attnlab.views.classification import ClassificationView
from attnlab.views.detection import DetectionView
from attnlab.views.segmentation import SegmentationView

__all__ = [
    "ClassificationView",
    "DetectionView",
    "Gallery",
    "Picture",
    "Record",
    "SegmentationView",
    "TextFile",
    "View",
    "Writer",
]
