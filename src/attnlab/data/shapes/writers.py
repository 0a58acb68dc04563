"""Scenes written as data sets: in Pascal VOC's layout, or in folders by class as ImageNet has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from attnlab.data.shapes.scenes import Scene, SceneOptions, draw_scene
from attnlab.data.vocfolder import colour_map

SPLIT_STREAMS = {"train": 0, "val": 1}
"""First number of a scene's stream, so that one split's scenes do not depend on the other's size."""


def write_voc(folder: Path, options: SceneOptions, seed: int, counts: dict[str, int]) -> None:
    """Draw scenes and write them in Pascal VOC's layout, with masks, boxes and lists.

    Args:
        folder: An empty folder.
        options: What the scenes look like.
        seed: The data set's seed.
        counts: Number of scenes for each of ``"train"`` and ``"val"``.
    """
    lists = [folder / "ImageSets" / task for task in ("Segmentation", "Main")]
    for path in (*lists, *(folder / name for name in ("JPEGImages", "SegmentationClass", "Annotations"))):
        path.mkdir(parents=True)

    def write(split: str, k: int) -> None:
        name, scene = _name(split, k), draw_scene(options, seed, SPLIT_STREAMS[split], k)
        _save_picture(scene, folder / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(scene.mask, mode="P")
        mask.putpalette(np.array(colour_map(256), np.uint8).tobytes())
        mask.save(folder / "SegmentationClass" / f"{name}.png", optimize=False)
        tree = ElementTree.ElementTree(_annotation(name, scene))
        ElementTree.indent(tree, "\t")
        tree.write(folder / "Annotations" / f"{name}.xml", encoding="utf-8")

    _for_all(counts, write)
    names = {split: [_name(split, k) for k in range(count)] for split, count in counts.items()}
    for split, listed in {**names, "trainval": [*names["train"], *names["val"]]}.items():
        for path in lists:
            (path / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")


def write_class_folders(folder: Path, options: SceneOptions, seed: int, counts: dict[str, int]) -> None:
    """As `write_voc`, but scenes of one form each, the forms in turn, in folders by split and form."""
    for split in counts:
        for form in options.forms:
            (folder / split / form).mkdir(parents=True)

    def write(split: str, k: int) -> None:
        form = options.forms[k % len(options.forms)]
        scene = draw_scene(replace(options, forms=(form,)), seed, SPLIT_STREAMS[split], k)
        _save_picture(scene, folder / split / form / f"{_name(split, k)}.jpg")

    _for_all(counts, write)


def _for_all(counts: dict[str, int], write: Callable[[str, int], None]) -> None:
    """Call a function with the split and the number of each scene, in threads."""
    jobs = [(split, k) for split, count in counts.items() for k in range(count)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, *zip(*jobs, strict=True)))


def _name(split: str, k: int) -> str:
    return f"{split}_{k:05d}"


def _save_picture(scene: Scene, path: Path) -> None:
    Image.fromarray(scene.image).save(path, quality=92, subsampling=0)


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
