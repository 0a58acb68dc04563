"""The embedded data set for classification: scenes of one form each, written once in ImageNet's layout."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from attnlab.data.classification.imagefolder import ImageFolderDataModule
from attnlab.data.classification.sets import LabelledPicture
from attnlab.data.shapes.forms import FORMS
from attnlab.data.shapes.root import stamped_folder
from attnlab.data.shapes.scenes import SCENES_VERSION, SceneOptions, draw_scene
from attnlab.data.shapes.segmentation import SPLIT_STREAMS, refuse_undrawable, write_once
from attnlab.errors import AttnlabError

OWN_DATA = "--data ImageFolderDataModule (a folder a class)"
"""What reads pictures of one's own."""


class ShapesClassificationDataModule(ImageFolderDataModule):
    """Classification of drawn forms: no download, seconds to make, and small enough for a CPU.

    Each scene holds one textured form on textured, cluttered ground; its class is the form. Colour and
    texture do not depend on it: a network has to learn the outline. The classes are equally frequent, to
    within one image. Each choice of options is written once into a folder of its own below ``root``, and
    nothing there is ever overwritten. The test split is the validation split.

    Args:
        root: Folder that holds the drawn data sets.
        seed: Seed of the scenes; it does not depend on the run's seed, so all runs see the same data.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        image_size: Side of the square scenes, in pixels.
        forms: The classes, names out of disc, ring, triangle, square, star and cross. None means all six.
            Their indices are in order of name.
        clutter: Density of blobs and strokes of no class on the ground, 0 (none) to 1.
        object_size: Smallest and largest diameter of the form, as a share of the side.
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in evaluation.
        **options: The other options of `ImageFolderDataModule`, without its folders. Where ``crop_size`` and
            ``scale`` are None they mean ``image_size``, and 0.5 and 1; ``eval_resize`` auto means
            ``crop_size``.
    """

    default_scale = (0.5, 1.0)
    # Nothing of a scene is cut off; pictures of one's own to predict on are brought to its size.
    eval_enlargement = 1.0

    def __init__(
        self,
        root: str = "data/shapes",
        seed: int = 0,
        num_train: int = 1200,
        num_val: int = 300,
        image_size: int = 96,
        forms: list[str] | None = None,
        clutter: float = 0.3,
        object_size: tuple[float, float] = (0.3, 0.7),
        batch_size: int = 32,
        eval_batch_size: int = 50,
        **options: Any,
    ) -> None:
        # Refused before the base is built, which would speak of a crop of such a size.
        scene_options = SceneOptions(
            size=image_size,
            forms=tuple(sorted(FORMS if forms is None else forms)),
            max_objects=1,
            clutter=clutter,
            object_size=(object_size[0], object_size[1]),
        )
        counts = {"train": num_train, "val": num_val}
        refuse_undrawable(scene_options, counts, seed)
        if min(counts.values()) < len(scene_options.forms):
            raise AttnlabError(
                f"data.num_train is {num_train} and data.num_val {num_val}; both must be at least the number "
                f"of forms, {len(scene_options.forms)}."
            )
        self.default_crop_size = image_size
        super().__init__(
            root=root,
            train_folder="train",
            val_folder="val",
            test_folder=None,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            **options,
        )
        self.scene_options = scene_options
        self.counts = counts
        self.seed = seed

    @property
    def drawn(self) -> Path:
        """Where these options' scenes lie, or will."""
        return stamped_folder(self.root, self._stamp())

    def _stamp(self) -> dict[str, Any]:
        return {
            "task": "classification",
            "version": SCENES_VERSION,
            "seed": self.seed,
            "scenes": self.counts,
            "options": asdict(self.scene_options),
        }

    def folder(self, split: str) -> Path:
        """Where the class folders of a split lie, or will."""
        return self.drawn / self.folders[split]

    def data_classes(self) -> dict[str, str]:
        """The forms, known before they are drawn."""
        return {form: form for form in self.scene_options.forms}

    def items(self, split: str) -> list[LabelledPicture]:
        """The scenes of a split.

        Raises:
            AttnlabError: They are not drawn yet.
        """
        if not self.drawn.is_dir():
            raise AttnlabError(f"No scenes in '{self.drawn}' yet: prepare_data() draws them.")
        return super().items(split)

    def fetch(self) -> None:
        """Draw and write the scenes, unless they are there.

        Raises:
            AttnlabError: The root holds files of one's own, or cannot be written to.
        """
        write_once(
            self.root,
            self._stamp(),
            lambda folder: write_class_folders(folder, self.scene_options, self.seed, self.counts),
            OWN_DATA,
        )


def write_class_folders(folder: Path, options: SceneOptions, seed: int, counts: dict[str, int]) -> None:
    """Draw scenes of one form each, and write them in folders by split and form.

    Args:
        folder: An empty folder.
        options: What the scenes look like; the forms take turns.
        seed: The data set's seed.
        counts: Number of scenes for each of ``"train"`` and ``"val"``.
    """
    jobs = [(split, k) for split, count in counts.items() for k in range(count)]
    for split in counts:
        for form in options.forms:
            (folder / split / form).mkdir(parents=True)

    def write(job: tuple[str, int]) -> None:
        split, k = job
        form = options.forms[k % len(options.forms)]
        scene = draw_scene(replace(options, forms=(form,)), seed, SPLIT_STREAMS[split], k)
        picture = Image.fromarray(scene.image)
        picture.save(folder / split / form / f"{split}_{k:05d}.jpg", quality=92, subsampling=0)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, jobs))
