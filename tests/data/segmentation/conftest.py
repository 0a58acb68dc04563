"""Folders of masks, and masks of every kind in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnlab.data import (
    MaskFolderDataModule,
    VOCSegmentationDataModule,
)
from attnlab.data.vocfolder import colour_map
from tests.data.conftest import write_pairs

NAMES = ["ground", "leaf"]
TRAIN = [f"t{k}" for k in range(5)]
VAL = ["v0", "v1", "v2"]


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    return write_leaves(tmp_path / "leaves")


def write_leaves(root: Path) -> Path:
    for split, names in (("train", TRAIN), ("val", VAL)):
        write_pairs(root / "images" / split, root / "masks" / split, names)
    return root


@pytest.fixture
def make_leaves(leaves: Path) -> Callable[..., MaskFolderDataModule]:
    return maker_of_leaves(leaves)


def maker_of_leaves(root: Path) -> Callable[..., MaskFolderDataModule]:
    defaults = {"root": str(root), "class_names": NAMES, "batch_size": 2, "num_workers": 0, "crop_size": 32}
    return lambda **options: MaskFolderDataModule(**{**defaults, **options})


def names_of(data: MaskFolderDataModule, split: str) -> list[str]:
    return [item.name for item in data.items(split)]


RGB = {"a": [0, 0, 0], "b": [10, 20, 30], "c": [30, 20, 10]}
COLOURED = np.array([[RGB["a"], RGB["b"]], [RGB["c"], RGB["b"]]], np.uint8)


def write_masks(folder: Path, *masks: list[list[int]], palette: bool = False) -> None:
    """Give each image of a folder in VOC's layout one of these masks in turn, repeated over its size."""
    for k, path in enumerate(sorted((folder / "SegmentationClass").iterdir())):
        with Image.open(path) as old:
            width, height = old.size
        rows = np.array(masks[k % len(masks)], np.uint8)
        mask = Image.fromarray(np.tile(rows, (height, width))[:height, :width])
        if palette:
            mask.putpalette([channel for colour in colour_map(256) for channel in colour])
        mask.save(path)


def voc_data(folder: Path, **options) -> VOCSegmentationDataModule:
    defaults = {"class_names": ["ground", "leaf"], "num_workers": 0, "crop_size": 32}
    return VOCSegmentationDataModule(str(folder), **{**defaults, **options})
