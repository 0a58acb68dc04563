from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real data is not at ../shared/data")
    return SHARED


def write_voc_folder(folder: Path, sizes: dict[str, tuple[int, int]], splits: dict[str, list[str]]) -> Path:
    """A small data set in VOC's layout: noise images of (height, width), masks of the values 0, 1 and 255."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (height, width) in sizes.items():
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"JPEGImages/{name}.jpg")
        mask = rng.choice(np.array([0, 1, 255], np.uint8), (height, width))
        Image.fromarray(mask).save(folder / f"SegmentationClass/{name}.png")
    for split, names in splits.items():
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    """Five training and three validation images, of different sizes."""
    sizes = {f"t{k}": (40 + k, 60 - k) for k in range(5)} | {
        f"v{k}": (30 + 4 * k, 50 - 4 * k) for k in range(3)
    }
    splits = {"train": [f"t{k}" for k in range(5)], "val": ["v0", "v1", "v2"]}
    splits["trainval"] = splits["train"] + splits["val"]
    return write_voc_folder(tmp_path / "VOCdevkit" / "VOC2012", sizes, splits)


FOLDER_COLOURS = {"ant": (250, 10, 10), "bee": (10, 250, 10), "cat": (10, 10, 250)}
"""The classes of `class_folders`: each picture is of its class's colour."""


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Three classes in ImageNet's layout, three training and two validation pictures each, of many sizes."""
    root = tmp_path / "leaves"
    for split, count in (("train", 3), ("val", 2)):
        for number, (name, colour) in enumerate(FOLDER_COLOURS.items()):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                picture = Image.new("RGB", (40 + 5 * k, 36 + 4 * number), colour)
                picture.save(root / split / name / f"{split}_{k}.JPEG", quality=95)
    return root
