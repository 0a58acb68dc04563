"""The embedded data set for detection: the scenes of segmentation, with the boxes of their objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnlab.data.detection.base import DetectionDataModule
from attnlab.data.detection.items import DetectionItems
from attnlab.data.detection.voc_boxes import files_of, read_items
from attnlab.data.shapes.scenes import SceneOptions
from attnlab.data.shapes.segmentation import fetch_voc, refuse_undrawable, voc_folder
from attnlab.data.vocfolder import VOCFolder
from attnlab.errors import AttnlabError

OWN_DATA = (
    "--data COCODetectionDataModule (a json of boxes a split) or VOCDetectionDataModule (an XML an image)"
)
"""What reads images and boxes of one's own."""


class ShapesDetectionDataModule(DetectionDataModule):
    """Detection of drawn forms: no download, seconds to make, and small enough for a CPU.

    The scenes are those of `ShapesSegmentationDataModule`, and with the same options the same files: a few
    textured forms, partly hidden and cut off, on textured ground. Colour and texture do not depend on the
    class: a network has to learn the outline. A box is the visible extent of its object. Objects of which
    less than 35%, or fewer than 24 pixels, can be seen are marked as difficult: they are not trained on, and
    scores pass over them. The test split is the validation split.

    Args:
        root: Folder that holds the drawn data sets.
        seed: Seed of the scenes; it does not depend on the run's seed, so all runs see the same data.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        image_size: Side of the square scenes, in pixels.
        forms: The classes, names out of disc, ring, triangle, square, star and cross. None means disc, ring,
            triangle, star, cross.
        max_objects: Most objects in a scene; the fewest are 2 (1 where this is 1).
        clutter: Density of blobs and strokes of no class on the ground, 0 (none) to 1.
        object_size: Smallest and largest diameter of an object, as a share of the side.
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in evaluation.
        mosaic: Probability, 0..1, that a training sample is a mosaic of four scenes.
        mosaic_size: Side of a mosaic in pixels; None means ``image_size``.
        **options: The other options of `DetectionDataModule`.
    """

    def __init__(
        self,
        root: str = "data/shapes",
        seed: int = 0,
        num_train: int = 800,
        num_val: int = 200,
        image_size: int = 128,
        forms: list[str] | None = None,
        max_objects: int = 4,
        clutter: float = 0.3,
        object_size: tuple[float, float] = (0.2, 0.55),
        batch_size: int = 16,
        eval_batch_size: int = 16,
        mosaic: float = 0.0,
        mosaic_size: int | None = None,
        **options: Any,
    ) -> None:
        self.scene_options = SceneOptions(
            size=image_size,
            forms=SceneOptions.forms if forms is None else tuple(forms),
            max_objects=max_objects,
            clutter=clutter,
            object_size=(object_size[0], object_size[1]),
        )
        self.counts = {"train": num_train, "val": num_val}
        self.seed = seed
        refuse_undrawable(self.scene_options, self.counts, seed)
        if mosaic and mosaic_size is None:
            mosaic_size = image_size
        super().__init__(
            root=root,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            mosaic=mosaic,
            mosaic_size=mosaic_size,
            **options,
        )

    @property
    def folder(self) -> Path:
        """Where these options' scenes lie, or will."""
        return voc_folder(self.root, self.scene_options, self.seed, self.counts)

    def categories(self) -> dict[int, str]:
        """The forms, numbered from 1; known before they are drawn."""
        return dict(enumerate(self.scene_options.forms, start=1))

    def fetch(self) -> None:
        """Draw and write the scenes, unless they are there.

        Raises:
            AttnlabError: The root holds files of one's own, or cannot be written to.
        """
        fetch_voc(self.root, self.scene_options, self.seed, self.counts, OWN_DATA)

    def items(self, split: str) -> DetectionItems:
        """The scenes of a split.

        Raises:
            AttnlabError: They are not drawn yet.
        """
        if not self.folder.is_dir():
            raise AttnlabError(f"No scenes in '{self.folder}' yet: prepare_data() draws them.")
        layout = VOCFolder(self.folder, lists="Main")
        files = files_of(layout, "val" if split == "test" else split)
        return read_items(files, self.class_names, "data.forms")
