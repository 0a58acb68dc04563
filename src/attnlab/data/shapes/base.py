"""Base of the built-in data sets: scenes are drawn once, then read like any data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from attnlab.data.base import DataModule
from attnlab.data.shapes.forms import FORMS
from attnlab.data.shapes.root import stamped_folder, write_once
from attnlab.data.shapes.scenes import BORDER, SCENES_VERSION, SceneOptions
from attnlab.data.shapes.writers import write_voc
from attnlab.errors import AttnlabError, unknown


class ShapesDataModule(DataModule):
    """Base class of the synthetic data sets: no download, made in seconds, small enough for a CPU.

    Scenes show textured shapes on a textured, cluttered background. Colour and texture do not depend on the
    class, so a network must learn the outline. Each set of options is written once into its own folder in
    ``root``; nothing is overwritten. The test split is the validation split. A subclass also inherits from
    the module that reads the files; ``crop_size`` and ``mosaic_size`` default to ``image_size``.

    Args:
        root: Folder for the drawn data sets.
        seed: Seed of the scenes, independent of the run's seed, so all runs use the same data.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        image_size: Side of the square scenes, in pixels.
        forms: The classes, from disc, ring, triangle, square, star and cross. None means disc, ring,
            triangle, star, cross.
        max_objects: Maximum number of objects per scene; the minimum is 2 (1 if this is 1).
        clutter: Density of background blobs and strokes without class, 0 (none) to 1.
        object_size: Smallest and largest diameter of an object, relative to the side.
        batch_size: Training images per process and step.
        eval_batch_size: Images per process and step in evaluation. Scenes have one size, so none is padded.
        **options: The other options of the module that reads the files.
    """

    own_data: ClassVar[str]
    """The module to suggest if the root contains the user's own data."""

    default_crop_size: int
    default_mosaic_size: int

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
        **options: Any,
    ) -> None:
        chosen = SceneOptions.forms if forms is None else tuple(forms)
        sizes = (object_size[0], object_size[1])
        self.scene_options = SceneOptions(image_size, chosen, max_objects, clutter, sizes)
        self.counts = {"train": num_train, "val": num_val}
        self.seed = seed
        # Checked before the base class, whose message would be about the crop.
        self.refuse_undrawable()
        self.default_crop_size = self.default_mosaic_size = image_size
        super().__init__(root=root, batch_size=batch_size, eval_batch_size=eval_batch_size, **options)

    def refuse_undrawable(self) -> None:
        """Reject options that no scene can be drawn with.

        Raises:
            AttnlabError: A form is unknown, or a number out of range.
        """
        options, counts, seed = self.scene_options, self.counts, self.seed
        forms = options.forms
        for name in forms:
            if name not in FORMS:
                raise unknown("form", name, FORMS)
        low, high = options.object_size
        rules = {
            "forms must name at least one form, each once": 0 < len(set(forms)) == len(forms),
            "max_objects must be within 1..254": 1 <= options.max_objects < BORDER,
            "clutter must be within 0..1": 0 <= options.clutter <= 1,
            "object_size must be (smallest, largest) with 0 < smallest <= largest <= 1": 0 < low <= high <= 1,
            "image_size must be at least 32": options.size >= 32,
            "num_train and num_val must be at least 1": min(counts.values()) >= 1,
            "seed must not be negative": seed >= 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise AttnlabError(f"data.{rule}; got {options}, {counts}, seed {seed}.")

    def stamp(self) -> dict[str, Any]:
        """Everything the files depend on."""
        options = asdict(self.scene_options)
        return {"version": SCENES_VERSION, "seed": self.seed, "scenes": self.counts, "options": options}

    def write(self, folder: Path) -> None:
        """Draw all scenes into an empty folder: in Pascal VOC's layout, with masks and boxes."""
        write_voc(folder, self.scene_options, self.seed, self.counts)

    @property
    def drawn(self) -> Path:
        """Folder of these options' scenes, drawn or not."""
        return stamped_folder(self.root, self.stamp())

    def fetch(self) -> None:
        """Draw and write the scenes, unless they exist.

        Raises:
            AttnlabError: The root contains the user's files, or cannot be written to.
        """
        write_once(self.root, self.stamp(), self.write, self.own_data)

    def found(self) -> Path:
        """Folder of these options' scenes.

        Raises:
            AttnlabError: They are not drawn yet.
        """
        if not self.drawn.is_dir():
            raise AttnlabError(f"No scenes in '{self.drawn}' yet: prepare_data() draws them.")
        return self.drawn
