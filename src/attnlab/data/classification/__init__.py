"""Images with one class each."""

from attnlab.data.classification.base import ClassificationDataModule
from attnlab.data.classification.imagefolder import ImageFolderDataModule
from attnlab.data.classification.imagenet import ImageNetDataModule

__all__ = ["ClassificationDataModule", "ImageFolderDataModule", "ImageNetDataModule"]
