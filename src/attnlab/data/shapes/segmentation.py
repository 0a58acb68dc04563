"""The built-in segmentation data set."""

from __future__ import annotations

from typing import Any

from attnlab.data.segmentation.base import SegmentationDataModule
from attnlab.data.segmentation.sets import ImageAndMask
from attnlab.data.segmentation.voc import images_and_masks
from attnlab.data.shapes.base import ShapesDataModule
from attnlab.data.shapes.scenes import SceneOptions
from attnlab.data.vocfolder import VOCFolder


class ShapesSegmentationDataModule(ShapesDataModule, SegmentationDataModule):
    """Synthetic data for segmentation: no download, made in seconds, small enough for a CPU.

    Scenes show a few textured shapes, partly occluded and truncated, on a textured background.

    Args:
        root: Folder for the drawn data sets.
        forms: The classes after the background, from disc, ring, triangle, square, star and cross. None means
            disc, ring, triangle, star, cross.
        **options: The other options of `ShapesDataModule` and of `SegmentationDataModule`. ``crop_size``
            defaults to ``image_size``, ``scale`` to 0.75 and 1.5.
    """

    default_scale = (0.75, 1.5)
    own_data = "--data VOCSegmentationDataModule (images and masks in Pascal VOC's folders)"

    def __init__(self, root: str = "data/shapes", *, forms: list[str] | None = None, **options: Any) -> None:
        names = ["background", *(SceneOptions.forms if forms is None else forms)]
        super().__init__(root, forms=forms, class_names=names, **options)

    def items(self, split: str) -> list[ImageAndMask]:
        """The scenes of a split, once they are drawn; see `found`."""
        return images_and_masks(VOCFolder(self.found()), "val" if split == "test" else split)
