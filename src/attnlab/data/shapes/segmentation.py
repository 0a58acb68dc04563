"""The embedded data set: drawn scenes, written once in Pascal VOC's layout and read as any data set is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from attnlab.data.segmentation.base import SegmentationDataModule
from attnlab.data.segmentation.sets import LabelledImage
from attnlab.data.segmentation.voc import labelled_images
from attnlab.data.shapes.forms import FORMS
from attnlab.data.shapes.root import STAMP, leave_marker, refuse_foreign, stamped_folder
from attnlab.data.shapes.scenes import BORDER, SCENES_VERSION, Scene, SceneOptions, draw_scene
from attnlab.data.vocfolder import VOCFolder, colour_map
from attnlab.errors import AttnlabError, unknown

OWN_DATA = "--data VOCSegmentationDataModule (images and masks in Pascal VOC's folders)"
"""What reads images and masks of one's own."""

SPLIT_STREAMS = {"train": 0, "val": 1}
"""Stands first in a scene's stream, so that one split's scenes do not depend on the other's number."""


class ShapesSegmentationDataModule(SegmentationDataModule):
    """Segmentation of drawn forms: no download, seconds to make, and small enough for a CPU.

    Scenes hold a few textured forms, partly hidden and cut off, on textured ground. Colour and texture do not
    depend on the class: a network has to learn the outline. Each choice of options is written once into a
    folder of its own below ``root``, images, masks, boxes and lists, and nothing there is ever overwritten.
    The test split is the validation split.

    Args:
        root: Folder that holds the drawn data sets.
        seed: Seed of the scenes; it does not depend on the run's seed, so all runs see the same data.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        image_size: Side of the square scenes, in pixels.
        forms: The classes after the background, names out of disc, ring, triangle, square, star and cross.
            None means disc, ring, triangle, star, cross.
        max_objects: Most objects in a scene; the fewest are 2.
        clutter: Density of blobs and strokes of no class on the ground, 0 (none) to 1.
        object_size: Smallest and largest diameter of an object, as a share of the side.
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in evaluation. Scenes are of one size, so none is padded.
        **options: The other options of `SegmentationDataModule`. Where ``crop_size`` and ``scale`` are None
            they mean ``image_size``, and 0.75 and 1.5.
    """

    default_scale = (0.75, 1.5)

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
        self.default_crop_size = image_size
        chosen = tuple(forms) if forms is not None else SceneOptions.forms
        super().__init__(
            root=root,
            class_names=["background", *chosen],
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            **options,
        )
        self.scene_options = SceneOptions(
            size=image_size,
            forms=chosen,
            max_objects=max_objects,
            clutter=clutter,
            object_size=(object_size[0], object_size[1]),
        )
        self.counts = {"train": num_train, "val": num_val}
        self.seed = seed
        refuse_undrawable(self.scene_options, self.counts, seed)

    @property
    def folder(self) -> Path:
        """Where these options' scenes lie, or will."""
        return voc_folder(self.root, self.scene_options, self.seed, self.counts)

    def fetch(self) -> None:
        """Draw and write the scenes, unless they are there.

        Raises:
            AttnlabError: The root holds files of one's own, or cannot be written to.
        """
        fetch_voc(self.root, self.scene_options, self.seed, self.counts, OWN_DATA)

    def items(self, split: str) -> list[LabelledImage]:
        """The files of a split.

        Raises:
            AttnlabError: The scenes are not drawn yet.
        """
        if not self.folder.is_dir():
            raise AttnlabError(f"No scenes in '{self.folder}' yet: prepare_data() draws them.")
        return labelled_images(VOCFolder(self.folder), "val" if split == "test" else split)


def voc_folder(root: str, options: SceneOptions, seed: int, counts: dict[str, int]) -> Path:
    """Where scenes lie, or will, in VOC's layout: with masks and boxes, the same for every task.

    Args:
        root: Folder that holds the drawn data sets.
        options: What the scenes look like.
        seed: The data set's seed.
        counts: Number of scenes for each of ``"train"`` and ``"val"``.
    """
    return stamped_folder(root, _voc_stamp(options, seed, counts))


def fetch_voc(root: str, options: SceneOptions, seed: int, counts: dict[str, int], own_data: str) -> None:
    """Draw scenes and write them into their `voc_folder`, unless they are there.

    Args:
        root: As for `voc_folder`, like the next three.
        options: What the scenes look like.
        seed: The data set's seed.
        counts: Number of scenes for each of ``"train"`` and ``"val"``.
        own_data: As for `write_once`.
    """
    write_once(
        root,
        _voc_stamp(options, seed, counts),
        lambda folder: write_voc(folder, options, seed, counts),
        own_data,
    )


def _voc_stamp(options: SceneOptions, seed: int, counts: dict[str, int]) -> dict[str, Any]:
    return {"version": SCENES_VERSION, "seed": seed, "scenes": counts, "options": asdict(options)}


def write_once(root: str, stamp: dict[str, Any], write: Callable[[Path], None], own_data: str) -> None:
    """Make a drawn data set in its `stamped_folder`, unless it is there.

    Args:
        root: Folder that holds the drawn data sets.
        stamp: What its content depends on; written into it as ``scenes.json``.
        write: Writes the data set into an empty folder.
        own_data: What reads data of one's own, to be named where the root holds such.

    Raises:
        AttnlabError: The root holds files of the user's, or cannot be written to.
    """
    is_new = refuse_foreign(root, own_data)
    folder = stamped_folder(root, stamp)
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and renamed at the end: what is in its place is complete.
        temporary = Path(tempfile.mkdtemp(prefix=".drawing-", dir=folder.parent))
        try:
            write(temporary)
            (temporary / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if is_new:
            leave_marker(root)
    except OSError as error:
        if not folder.is_dir():  # Otherwise another run was quicker, with the same scenes.
            raise AttnlabError(
                f"Cannot write the drawn scenes into '{root}': {error.strerror or error}. Name another "
                "folder with --data.root."
            ) from error


def write_voc(folder: Path, options: SceneOptions, seed: int, counts: dict[str, int]) -> None:
    """Draw scenes and write them in Pascal VOC's layout.

    Args:
        folder: An empty folder.
        options: What the scenes look like.
        seed: The data set's seed.
        counts: Number of scenes for each of ``"train"`` and ``"val"``.
    """
    lists = [folder / "ImageSets" / task for task in ("Segmentation", "Main")]
    for path in (*lists, *(folder / name for name in ("JPEGImages", "SegmentationClass", "Annotations"))):
        path.mkdir(parents=True)
    names = {split: [f"{split}_{k:05d}" for k in range(count)] for split, count in counts.items()}

    def write(job: tuple[str, int]) -> None:
        split, k = job
        _write_scene(folder, names[split][k], draw_scene(options, seed, SPLIT_STREAMS[split], k))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, [(split, k) for split, count in counts.items() for k in range(count)]))
    for split, listed in {**names, "trainval": [*names["train"], *names["val"]]}.items():
        for path in lists:
            (path / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")


def _write_scene(folder: Path, name: str, scene: Scene) -> None:
    Image.fromarray(scene.image).save(folder / "JPEGImages" / f"{name}.jpg", quality=92, subsampling=0)
    mask = Image.fromarray(scene.mask, mode="P")
    mask.putpalette(np.array(colour_map(256), np.uint8).tobytes())
    mask.save(folder / "SegmentationClass" / f"{name}.png", optimize=False)
    tree = ElementTree.ElementTree(_annotation(name, scene))
    ElementTree.indent(tree, "\t")
    tree.write(folder / "Annotations" / f"{name}.xml", encoding="utf-8")


def _annotation(name: str, scene: Scene) -> ElementTree.Element:
    """VOC's XML of boxes; its coordinates count from 1, and its maxima are the last pixels inside."""
    height, width = scene.mask.shape
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, **texts: object) -> None:
        for tag, text in texts.items():
            ElementTree.SubElement(parent, tag).text = str(text)

    add(root, folder="shapes", filename=f"{name}.jpg")
    add(ElementTree.SubElement(root, "source"), database="attnlab shapes", annotation="drawn", image="drawn")
    add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    add(root, segmented=1)
    for item in scene.objects:
        entry = ElementTree.SubElement(root, "object")
        add(entry, name=item.name, pose="Unspecified", truncated=int(item.truncated))
        add(entry, difficult=int(item.difficult), occluded=int(item.occluded))
        x0, y0, x1, y1 = item.box
        add(ElementTree.SubElement(entry, "bndbox"), xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)
    return root


def refuse_undrawable(options: SceneOptions, counts: dict[str, int], seed: int) -> None:
    """Refuse options that no scene can be drawn with.

    Raises:
        AttnlabError: For an unknown form, or a number out of its range.
    """
    for name in options.forms:
        if name not in FORMS:
            raise unknown("form", name, FORMS)
    low, high = options.object_size
    rules = {
        "forms must name at least one form, none twice": 0 < len(set(options.forms)) == len(options.forms),
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
