from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnlab.data import checks
from attnlab.data.checks import find_bad_files, look_at_all

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
SUFFIXES = ("jpg", "png", "bmp", "webp", "gif", "tif")


def saved(folder: Path, name: str, **options) -> Path:
    Image.fromarray(PIXELS).save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("depth", ["quick", "full"])
def test_whole_files_pass(tmp_path, depth):
    paths = [saved(tmp_path, f"a.{suffix}") for suffix in SUFFIXES]
    paths += [saved(tmp_path, "progressive.jpg", progressive=True)]
    for k, surplus in enumerate((b"\0" * 20, b"trailing words\n", b"\0" * 5000)):
        path = saved(tmp_path, f"surplus{k}.jpg")
        path.write_bytes(path.read_bytes() + surplus)
        paths.append(path)
    assert find_bad_files(paths, depth) == {}


@pytest.mark.parametrize("depth", ["quick", "full"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_not_whole_are_found(tmp_path, depth, suffix):
    data = saved(tmp_path, f"a.{suffix}").read_bytes()
    contents = {
        "empty": b"",
        "cut early": data[: len(data) // 10],
        "cut late": data[: len(data) * 9 // 10],
        "zeros": bytes(len(data)),
        "a page": b"<html>404 Not Found</html>",
    }
    if suffix in ("jpg", "png"):
        # A download into a file of the final length that stopped half-way.
        contents["zeros at the end"] = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    paths = [tmp_path / f"whole.{suffix}", tmp_path / f"missing.{suffix}"]
    paths[0].write_bytes(data)
    for name, content in contents.items():
        paths.append(tmp_path / f"{name}.{suffix}")
        paths[-1].write_bytes(content)
    found = find_bad_files(paths, depth)
    assert list(found) == list(range(1, len(paths)))
    for position, text in found.items():
        assert str(paths[position]) in text
        assert "Get the file again" not in text  # Said once, under the list.


def test_quick_does_not_decode_what_full_does(tmp_path):
    """What its docstring says that it cannot see: a hole in the middle of a PNG. Its checksums find it."""
    path = saved(tmp_path, "a.png")
    data = bytearray(path.read_bytes())
    data[1000:1100] = bytes(100)
    path.write_bytes(data)
    assert find_bad_files([path], "quick") == {}
    assert list(find_bad_files([path], "full")) == [0]


@pytest.mark.parametrize("depth", ["quick", "full"])
def test_size_is_compared_on_request(tmp_path, depth):
    paths = [saved(tmp_path, f"a.{suffix}") for suffix in SUFFIXES]
    assert find_bad_files(paths, depth, least_size=40) == {}
    found = find_bad_files(paths, depth, least_size=41)
    assert len(found) == len(paths)
    assert all("50 x 40 pixels is smaller than the crop of 41 x 41" in text for text in found.values())


@pytest.mark.real_data
def test_a_real_truncated_photograph(shared_data):
    broken = shared_data / "broken" / "truncated_2010_006034.jpg"
    whole = sorted((shared_data / "voc2007-images").iterdir())
    assert list(find_bad_files([*whole, broken], "quick")) == [len(whole)]


def test_many_files_are_looked_at_in_order():
    assert look_at_all(1000, lambda k: str(k) if k % 7 == 3 else None) == {
        k: str(k) for k in range(1000) if k % 7 == 3
    }
    assert look_at_all(0, str) == {}


def test_of_many_files_it_is_said_how_far_the_check_is(capsys, monkeypatch):
    monkeypatch.setattr("attnlab.data.progress.EVERY_SECONDS", 0.0)
    look_at_all(200, lambda k: None, "Checking 200 files")
    assert "Checking 200 files: 128 of 200 (64%)" in capsys.readouterr().err
    look_at_all(200, lambda k: None)
    assert capsys.readouterr().err == ""


def test_processes_share_the_files(monkeypatch):
    """Two processes, one after the other: each looks at its half, and both know all."""
    looked: list[set[int]] = [set(), set()]
    found: list[dict[int, str]] = [{}, {}]
    monkeypatch.setattr(checks.dist, "is_available", lambda: True)
    monkeypatch.setattr(checks.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(checks.dist, "get_world_size", lambda: 2)

    def gather(parts, own):
        found[rank] = own
        parts[:] = found

    monkeypatch.setattr(checks.dist, "all_gather_object", gather)

    for rank in (0, 1):
        monkeypatch.setattr(checks.dist, "get_rank", lambda rank=rank: rank)

        def look(k: int, rank: int = rank) -> str | None:
            looked[rank].add(k)
            return "bad" if k in (1, 4, 7) else None

        result = look_at_all(9, look)
    assert looked == [{0, 2, 4, 6, 8}, {1, 3, 5, 7}]
    assert result == {1: "bad", 4: "bad", 7: "bad"}
