"""Images with boxes, without files and in the layout of YOLO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnlab.data import YOLODetectionDataModule
from attnlab.data.detection.items import ImageAndBoxes
from tests.data.conftest import Files, write_split, write_yaml

NAMES = ["ant", "bee", "cat"]
TRAIN: Files = {f"t{k}.jpg": f"{k % 3} 0.5 0.5 0.5 0.25\n1 0.25 0.5 0.25 0.5\n" for k in range(7)}
VAL: Files = {"v0.jpg": "2 0.5 0.5 1 1\n", "v1.jpg": "", "v2.png": None, "v3.jpg": "0 0.3 0.4 0.2 0.1\n"}


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    return write_small_yolo(tmp_path / "bugs")


def write_small_yolo(root: Path) -> Path:
    """Ultralytics' layout: images/train beside labels/train. Of the validation images two have objects."""
    for split, files in (("train", TRAIN), ("val", VAL)):
        write_split(root / "images" / split, root / "labels" / split, files)
    write_yaml(root / "data.yaml", path=".", train="images/train", val="images/val", names=NAMES, nc=3)
    return root


@pytest.fixture
def make_yolo(yolo: Path) -> Callable[..., YOLODetectionDataModule]:
    return maker_of_yolo(yolo)


def maker_of_yolo(root: Path) -> Callable[..., YOLODetectionDataModule]:
    defaults = {"root": str(root), "batch_size": 4, "num_workers": 0}
    return lambda **options: YOLODetectionDataModule(**{**defaults, **options})


def names_of(data: YOLODetectionDataModule, split: str) -> list[str]:
    return list(data.items(split).names)


def objects(data: YOLODetectionDataModule, split: str = "val") -> dict[str, list]:
    """Label and box of each object, by image."""
    items = data.items(split)
    return {
        items.names[k]: [
            (label, *box)
            for label, box in zip(
                items.labels[items.objects(k)].tolist(), items.boxes[items.objects(k)].tolist(), strict=True
            )
        ]
        for k in range(len(items))
    }


def label(yolo: Path, name: str = "v0") -> Path:
    return yolo / f"labels/val/{name}.txt"


IMAGES = [
    ImageAndBoxes("a", Path("a.jpg"), 7, (30, 60), [[0, 0, 10, 10], [1, 2, 3, 5]], [1, 0]),
    ImageAndBoxes("b", Path("b.jpg"), 3, (30, 20), [], []),
    ImageAndBoxes("c", Path("c.jpg"), 5, (30, 30), [[5, 5, 20, 9]], [2]),
    ImageAndBoxes(
        "d", Path("d.jpg"), 1, (10, 40), [[0, 0, 4, 4], [1, 1, 9, 9]], [0, 2], difficult=[True, False]
    ),
]
"""Four images with and without objects, without files."""
