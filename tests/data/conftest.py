"""Small data sets in the layouts that people have, and a server of files."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real data is not at ../shared/data")
    return SHARED


VOCBox = tuple[str, float, float, float, float, int]
"""Class, xmin, ymin, xmax, ymax as VOC counts them, difficult."""


def voc_xml(size: tuple[int, int], boxes: Sequence[VOCBox]) -> str:
    """An annotation for an image of (height, width)."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1, difficult in boxes
    )
    height, width = size
    stated = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{stated}{objects}</annotation>"


def write_voc_folder(
    folder: Path,
    sizes: dict[str, tuple[int, int]],
    splits: dict[str, list[str]],
    boxes: dict[str, list[VOCBox]] | None = None,
) -> Path:
    """A small data set in VOC's layout: noise images of (height, width), masks of the values 0, 1 and 255.

    With ``boxes`` there are annotations and lists for detection, too.
    """
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
    if boxes is not None:
        for name in ("Annotations", "ImageSets/Main"):
            (folder / name).mkdir()
        for name, size in sizes.items():
            (folder / f"Annotations/{name}.xml").write_text(voc_xml(size, boxes.get(name, [])))
        for split, names in splits.items():
            (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in names))
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


COCO_CATEGORIES = {7: "ant", 2: "bee", 90: "cat"}
"""The categories of `write_coco_folder`, neither contiguous nor in order."""


def write_coco_folder(
    root: Path,
    split: str,
    sizes: dict[str, tuple[int, int]],
    boxes: dict[str, list[tuple]],
    categories: dict[int, str] = COCO_CATEGORIES,
) -> Path:
    """A split in COCO's format: noise images of (height, width), and ``annotations/instances_<split>.json``.

    ``boxes`` has (category id, x, y, width, height) and, if given, iscrowd and area for each object of an
    image. Image ids are 100, 101, …, annotation ids count from 1.

    Returns:
        The JSON.
    """
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (name, (height, width)) in enumerate(sizes.items(), start=100):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(root / split / name)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for category, x, y, w, h, *more in boxes.get(name, []):
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
            entry |= {"bbox": [x, y, w, h], "segmentation": [[x, y, x + w, y, x + w, y + h]]}
            annotations.append(entry | dict(zip(("iscrowd", "area"), more, strict=False)))
    listed = [{"id": number, "name": name} for number, name in categories.items()]
    path = root / f"annotations/instances_{split}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": listed}))
    return path


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    return write_small_coco(tmp_path / "coco")


def write_small_coco(root: Path) -> Path:
    """Nine training images, one of them with a crowd alone and one empty, and three of validation."""
    sizes = {f"t{k}.jpg": (40 + 3 * k, 64 - 3 * k) for k in range(9)}
    boxes = {
        name: [(2, 4, 5, 20 + k, 30), (90, 1.5, 2.25, 10, 12.5), (7, 20, 10, 9, 9)][: 1 + k % 3]
        for k, name in enumerate(sizes)
    }
    boxes["t7.jpg"] = [(7, 0, 0, 30, 30, 1)]
    del boxes["t8.jpg"]
    write_coco_folder(root, "train2017", sizes, boxes)
    sizes = {f"v{k}.jpg": (30 + 8 * k, 50 - 4 * k) for k in range(3)}
    boxes = {"v0.jpg": [(90, 2, 3, 10, 20, 0, 77.5), (7, 5, 5, 30, 20, 1)], "v2.jpg": [(2, 0, 0, 42, 46)]}
    write_coco_folder(root, "val2017", sizes, boxes)
    return root


VOC_BOXES: dict[str, list[VOCBox]] = {
    "t0": [("dog", 1, 1, 60, 40, 0)],
    "t1": [("cat", 11, 6, 30, 25, 0), ("dog", 5, 5, 20, 20, 1)],
    "t2": [("person", 2, 3, 21, 33, 0), ("person", 30, 10, 45.5, 20.25, 0)],
    "t3": [("dog", 5, 5, 30, 30, 1)],
    "v0": [("dog", 3, 4, 20, 24, 0), ("cat", 10, 10, 30, 29, 1)],
    "v2": [("person", 1, 1, 42, 38, 0)],
}
"""The objects of `voc_boxes_folder`; t3 has a difficult one alone, t4 and v1 have none."""


@pytest.fixture
def voc_boxes_folder(tmp_path: Path) -> Path:
    return write_small_voc_boxes(tmp_path)


def write_small_voc_boxes(folder: Path) -> Path:
    """Eight training and three validation images in VOC 2012's layout, with boxes."""
    sizes = {f"t{k}": (40 + k, 60 - k) for k in range(8)} | {
        f"v{k}": (30 + 4 * k, 50 - 4 * k) for k in range(3)
    }
    boxes = VOC_BOXES | {f"t{k}": [("cat", 5, 6, 10 + k, 20, 0)] for k in range(5, 8)}
    splits = {"train": [f"t{k}" for k in range(8)], "val": ["v0", "v1", "v2"]}
    splits["trainval"] = splits["train"] + splits["val"]
    return write_voc_folder(folder / "VOCdevkit" / "VOC2012", sizes, splits, boxes)


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


CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves ``content``; ``cuts`` are the numbers of bytes after which the next connections break."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.cuts, self.requests = CONTENT, True, [], []
        self.url = f"http://127.0.0.1:{self.server_port}/file.tar"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        if "missing" in self.path:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start and start >= len(self.server.content):
            return self.send_error(416)
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(self.server.content)}"
            )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def silently(data, stage: str = "fit") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup(stage)


Values = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def indices(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.choice(np.array([0, 1, 255], np.uint8), size)


def write_pairs(
    images: Path,
    masks: Path,
    names: list[str],
    image_suffix: str = ".jpg",
    mask_suffix: str = ".png",
    values: Values = indices,
) -> None:
    """Noise and masks of different sizes."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        size = (40 + 3 * k, 58 - 2 * k)
        for folder, suffix, pixels in (
            (images, image_suffix, rng.integers(0, 256, (*size, 3), np.uint8)),
            (masks, mask_suffix, values(rng, size)),
        ):
            path = folder / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


Files = dict[str, str | None]
"""Lines of labels by image; None for an image without a file of them."""


def write_images(folder: Path, names: Sequence[str], size: tuple[int, int] = (40, 60)) -> None:
    """Noise of (height, width), two pixels narrower and three higher from one to the next."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size[0] + 3 * k, size[1] - 2 * k, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write_split(images: Path, labels: Path, files: Files) -> None:
    write_images(images, list(files))
    for name, text in files.items():
        if text is not None:
            path = labels / Path(name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def write_yaml(file: Path, /, **content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not ...}))
