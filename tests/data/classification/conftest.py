"""A small ImageNet: its archives, and what is in them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnlab.data.classification import imagenet_archive
from attnlab.data.classification.imagenet_archive import (
    DEVKIT_ARCHIVE,
    DEVKIT_DATA,
    TRAIN_ARCHIVE,
    VAL_ARCHIVE,
)

# Sorted order and the order of the devkit's numbers differ, as ImageNet's do.
WNIDS = {1: "n02119789", 2: "n01440764", 3: "n03950228"}
WORDS = {"n02119789": "kit fox", "n01440764": "tench, Tinca tinca", "n03950228": "pitcher, ewer"}
TRAIN_NUMBERS = {"n01440764": (10026, 7), "n02119789": (3,), "n03950228": (11, 12, 13)}
TRUTH = [3, 2, 2, 1, 3]
VAL = [WNIDS[number] for number in TRUTH]


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


TRAIN_FILES = {
    f"{wnid}/{wnid}_{number}.JPEG": jpeg(number)
    for wnid, numbers in TRAIN_NUMBERS.items()
    for number in numbers
}
VAL_FILES = {f"ILSVRC2012_val_{k + 1:08d}.JPEG": jpeg(100 + k) for k in range(len(TRUTH))}


def make_tar(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def train_tar(**extra: dict) -> bytes:
    """The training archive; ``extra`` are members that a class's archive has besides."""
    return make_tar(
        {
            f"{wnid}.tar": make_tar(
                {
                    name.split("/")[1]: content
                    for name, content in TRAIN_FILES.items()
                    if name.startswith(wnid)
                }
                | extra.get(wnid, {})
            )
            for wnid in sorted(TRAIN_NUMBERS)
        }
    )


def meta_mat() -> bytes:
    """The devkit's table: the classes, and below them the synsets that group them."""
    savemat = pytest.importorskip("scipy.io", reason="scipy writes the devkit's table").savemat
    fields = [
        *("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"),
        *("wordnet_height", "num_train_images"),
    ]
    rows = np.empty((len(WNIDS) + 1, 1), dtype=[(field, object) for field in fields])
    for row, (number, wnid) in zip(rows[:, 0], WNIDS.items(), strict=False):
        values = (number, wnid, WORDS[wnid], "a gloss", 0, np.zeros((1, 0)), 0, 1300)
        for field, value in zip(fields, values, strict=True):
            row[field] = value
    group = (4, "n00001740", "entity", "a gloss", 3, np.array([[1, 2, 3]]), 18, 0)
    for field, value in zip(fields, group, strict=True):
        rows[-1, 0][field] = value
    file = io.BytesIO()
    savemat(file, {"synsets": rows})
    return file.getvalue()


def devkit_files(truth: list[int] = TRUTH) -> dict[str, bytes]:
    return {
        "ILSVRC2012_validation_ground_truth.txt": "".join(f"{number}\n" for number in truth).encode(),
        "meta.mat": meta_mat(),
    }


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Puts an archive of some content into place, and takes it for the official one."""

    def put(name: str, content: bytes) -> Path:
        monkeypatch.setitem(imagenet_archive.CHECKSUMS, name, hashlib.md5(content).hexdigest())
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return put


@pytest.fixture
def root(tmp_path, put) -> Path:
    """The three archives."""
    put(TRAIN_ARCHIVE, train_tar())
    put(VAL_ARCHIVE, make_tar(VAL_FILES))
    put(DEVKIT_ARCHIVE, make_tar({f"{DEVKIT_DATA}/{n}": c for n, c in devkit_files().items()}, "w:gz"))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


VAL_PLACED = {f"{wnid}/{name}": content for wnid, (name, content) in zip(VAL, VAL_FILES.items(), strict=True)}


class Stop(Exception):
    pass


def stopping(function, after: int):
    """The function, interrupted on its call number ``after`` (from 0)."""
    calls = iter(range(after + 1))

    def call(*args, **options):
        if next(calls) == after:
            raise Stop
        return function(*args, **options)

    return call


def spied(monkeypatch, owner, name: str) -> list[tuple]:
    """The arguments of the calls to a function that are made from here on."""
    calls, original = [], getattr(owner, name)

    def call(*args, **options):
        calls.append(args)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, call)
    return calls
