"""The built-in detection data set: the segmentation scenes with boxes."""

from __future__ import annotations

from attnlab.data.detection.base import DetectionDataModule
from attnlab.data.detection.items import DetectionItems
from attnlab.data.detection.voc import files_of, read_items
from attnlab.data.shapes.base import ShapesDataModule
from attnlab.data.vocfolder import VOCFolder


class ShapesDetectionDataModule(ShapesDataModule, DetectionDataModule):
    """Synthetic data for detection: no download, made in seconds, small enough for a CPU.

    The scenes, and with the same options the files, are those of `ShapesSegmentationDataModule`. A box is the
    visible extent of its object. Objects with less than 35% or fewer than 24 pixels visible are marked as
    difficult: they are not trained on, and metrics ignore them. The options are those of `ShapesDataModule`
    and of `DetectionDataModule`.
    """

    own_data = (
        "--data COCODetectionDataModule (a JSON per split) or VOCDetectionDataModule (an XML per image)"
    )

    def categories(self) -> dict[int, str]:
        """The forms, numbered from 1; known before they are drawn."""
        return dict(enumerate(self.scene_options.forms, start=1))

    def items(self, split: str) -> DetectionItems:
        """The scenes of a split, once they are drawn; see `found`."""
        files = files_of(VOCFolder(self.found(), lists="Main"), "val" if split == "test" else split)
        return read_items(files, self.class_names, "data.forms")
