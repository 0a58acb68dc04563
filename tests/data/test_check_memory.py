"""What full looks at files have found is remembered between runs, and nothing wrong is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnlab.data import VOCSegmentationDataModule, checks
from attnlab.data.check_memory import CheckMemory
from attnlab.data.checks import find_bad_files
from attnlab.data.segmentation import mask_values

LONG_AGO = 1_000_000_000


def write(path: Path, date: int = LONG_AGO) -> Path:
    Image.fromarray(np.full((20, 30, 3), 7, np.uint8)).save(path)
    os.utime(path, (date, date))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that are decoded."""
    names: list[str] = []
    read = checks.read_image

    def note(path, **options):
        names.append(Path(path).name)
        return read(path, **options)

    monkeypatch.setattr(checks, "read_image", note)
    monkeypatch.setattr(mask_values, "read_image", note)
    return names


def test_a_file_is_decoded_once_until_it_changes(tmp_path, decoded):
    paths = [write(tmp_path / f"{k}.png") for k in range(3)]
    assert find_bad_files(paths, "full", root=tmp_path) == {}
    assert find_bad_files(paths, "full", root=tmp_path) == {}
    assert sorted(decoded) == ["0.png", "1.png", "2.png"]
    os.utime(paths[1], (LONG_AGO + 1, LONG_AGO + 1))
    find_bad_files(paths, "full", root=tmp_path)
    assert decoded[3:] == ["1.png"]
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: len(data) // 2])
    os.utime(paths[2], (LONG_AGO, LONG_AGO))  # Another size, the same date.
    assert list(find_bad_files(paths, "full", root=tmp_path)) == [2]


def test_what_is_bad_is_looked_at_again_and_sizes_are_still_compared(tmp_path, decoded):
    good, bad = write(tmp_path / "good.png"), tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    os.utime(bad, (LONG_AGO, LONG_AGO))
    for _ in range(2):
        assert list(find_bad_files([good, bad], "full", root=tmp_path)) == [1]
    assert sorted(decoded) == ["bad.png", "bad.png", "good.png"]
    assert list(find_bad_files([good], "full", least_size=21, root=tmp_path)) == [0]


def test_a_file_of_this_moment_is_not_remembered(tmp_path):
    path = tmp_path / "new.png"
    Image.new("RGB", (4, 4)).save(path)
    assert CheckMemory(tmp_path).key(path) is None
    assert CheckMemory(tmp_path).key(tmp_path / "absent.png") is None


def test_a_quick_look_leaves_nothing(tmp_path, cache):
    find_bad_files([write(tmp_path / "a.png")], "quick", root=tmp_path)
    assert not cache.exists()


def test_torn_lines_and_a_cache_that_cannot_be_written_cost_a_second_look(tmp_path, decoded, cache):
    path = write(tmp_path / "a.png")
    find_bad_files([path], "full", root=tmp_path)
    (notes,) = cache.rglob("*.txt")
    notes.write_text(notes.read_text()[:-3])
    assert find_bad_files([path], "full", root=tmp_path) == {}
    assert decoded == ["a.png"] * 2
    assert find_bad_files([path], "full", root=tmp_path) == {}
    assert decoded == ["a.png"] * 3, "the line after a torn one is lost, too, and only that"
    assert find_bad_files([path], "full", root=tmp_path) == {}
    assert decoded == ["a.png"] * 3
    os.environ["XDG_CACHE_HOME"] = str(path)
    assert find_bad_files([path], "full", root=tmp_path) == {}


def test_masks_are_counted_once(voc_folder, decoded):
    for path in voc_folder.rglob("*.*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    looks = []
    for _ in range(2):
        data = VOCSegmentationDataModule(str(voc_folder), class_names=["ground", "thing"])
        data.setup("fit")
        looks.append(data._looks)
    assert looks[0] == looks[1]
    assert all(sum(look.values.values()) > 0 for look in looks[1].values())
    assert len(decoded) == len(set(decoded)) == 8
    # What is right depends on the number of classes: remembered values are judged anew.
    with pytest.raises(Exception, match="has the values 1"):
        VOCSegmentationDataModule(str(voc_folder), class_names=["ground"]).setup("fit")
    assert len(decoded) == 8
