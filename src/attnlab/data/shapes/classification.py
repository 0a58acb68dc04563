"""The built-in classification data set: scenes of one shape each, in ImageNet's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnlab.data.classification.imagefolder import ImageFolderDataModule
from attnlab.data.shapes.base import ShapesDataModule
from attnlab.data.shapes.forms import FORMS
from attnlab.data.shapes.writers import write_class_folders
from attnlab.errors import AttnlabError


class ShapesClassificationDataModule(ShapesDataModule, ImageFolderDataModule):
    """Synthetic data for classification: no download, made in seconds, small enough for a CPU.

    Each scene shows one textured shape, its class, on a textured, cluttered background. Class frequencies
    differ by at most one image.

    Args:
        root: Folder for the drawn data sets.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        image_size: Side of the square scenes, in pixels.
        forms: The classes, from disc, ring, triangle, square, star and cross, indexed in order of name. None
            means all six.
        object_size: Smallest and largest diameter of the shape, relative to the side.
        batch_size: Training images per process and step.
        eval_batch_size: Images per process and step in evaluation.
        **options: The other options of `ShapesDataModule` and of `ImageFolderDataModule`. ``crop_size``
            defaults to ``image_size``, ``scale`` to 0.5 and 1; ``eval_resize`` auto means ``crop_size``.
    """

    default_scale = (0.5, 1.0)
    # Scenes are not cropped; the user's images for prediction are resized to their size.
    eval_enlargement = 1.0
    own_data = "--data ImageFolderDataModule (one folder per class)"

    def __init__(
        self,
        root: str = "data/shapes",
        *,
        num_train: int = 1200,
        num_val: int = 300,
        image_size: int = 96,
        forms: list[str] | None = None,
        object_size: tuple[float, float] = (0.3, 0.7),
        batch_size: int = 32,
        eval_batch_size: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(
            root=root,
            num_train=num_train,
            num_val=num_val,
            image_size=image_size,
            forms=sorted(FORMS if forms is None else forms),
            max_objects=1,
            object_size=object_size,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            train_folder="train",
            val_folder="val",
            test_folder=None,
            **options,
        )

    def refuse_undrawable(self) -> None:
        """Reject options that no scene can be drawn with, and fewer scenes than forms."""
        super().refuse_undrawable()
        least = len(self.scene_options.forms)
        if min(self.counts.values()) < least:
            raise AttnlabError(
                f"data.num_train is {self.counts['train']} and data.num_val {self.counts['val']}; both must "
                f"be at least the number of forms, {least}."
            )

    def stamp(self) -> dict[str, Any]:
        """All that the files depend on."""
        return {"task": "classification", **super().stamp()}

    def write(self, folder: Path) -> None:
        """Draw all scenes into an empty folder, in folders by split and form."""
        write_class_folders(folder, self.scene_options, self.seed, self.counts)

    def folder(self, split: str) -> Path:
        """Where the class folders of a split lie, once they are drawn; see `found`."""
        return self.found() / self.folders[split]

    def data_classes(self) -> dict[str, str]:
        """The forms, known before they are drawn."""
        return {form: form for form in self.scene_options.forms}
