"""Which file ``--ckpt_path`` means, and what is taken for a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from attnlab import run_starts
from attnlab.checkpoints import read, resolve
from attnlab.errors import AttnlabError


def run_folder(folder: Path, number: int, date: int, *names: str) -> None:
    for name in names:
        path = folder / f"version_{number}/checkpoints/{name}.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (date, date))


def test_the_newest_runs_file_whatever_its_number(tmp_path):
    run_folder(tmp_path / "a", 9, 1000, "last", "best")
    run_folder(tmp_path / "b/deep", 0, 2000, "last")
    assert resolve("last", tmp_path) == tmp_path / "b/deep/version_0/checkpoints/last.ckpt"
    run_folder(tmp_path / "b/deep", 0, 2000, "best")
    assert resolve("best", tmp_path) == tmp_path / "b/deep/version_0/checkpoints/best.ckpt"


def test_a_newest_run_without_one_is_named_with_the_older_file(tmp_path):
    """Whether it has not come so far, or was stopped: an older run must not go on in its place."""
    run_folder(tmp_path, 0, 1000, "last", "best")
    run_starts.stamp(tmp_path / "version_1")
    for wanted in ("last", "best"):
        with pytest.raises(AttnlabError) as raised:
            resolve(wanted, tmp_path)
        older = tmp_path / f"version_0/checkpoints/{wanted}.ckpt"
        newest = f"The newest run, {tmp_path / 'version_1'}, has no checkpoints/{wanted}.ckpt"
        assert newest in str(raised.value)
        assert f"--ckpt_path {older}" in str(raised.value)
    run_folder(tmp_path, 1, 500, "last")
    assert resolve("last", tmp_path).parts[-3] == "version_1"
    with pytest.raises(AttnlabError, match=r"It has .*version_1/checkpoints/last.ckpt"):
        resolve("best", tmp_path)


def test_runs_without_a_logger_share_a_folder(tmp_path):
    run_folder(tmp_path / "logs", 0, 1000, "last")
    own = tmp_path / "checkpoints/last.ckpt"
    own.parent.mkdir()
    own.write_bytes(b"x")
    assert resolve("last", tmp_path / "logs") == tmp_path / "logs/version_0/checkpoints/last.ckpt"
    assert resolve("last", None, tmp_path) == resolve("last", tmp_path / "logs", tmp_path) == own
    # A second run began in it: until it has written its own, the file is the first one's.
    os.utime(own, (1000, 1000))
    run_starts.stamp(own.parent)
    with pytest.raises(
        AttnlabError, match=r"The newest run, .* has no .*older run's: --ckpt_path .*last\.ckpt"
    ):
        resolve("last", None, tmp_path)
    own.write_bytes(b"y")
    assert resolve("last", None, tmp_path) == own
    with pytest.raises(AttnlabError, match=r"no checkpoints/last\.ckpt in "):
        resolve("last", None, tmp_path / "other")


def test_a_file_is_itself_and_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("last").write_bytes(b"x")
    Path("mine.ckpt").write_bytes(b"x")
    assert resolve("mine.ckpt", tmp_path) == Path("mine.ckpt")
    with pytest.raises(AttnlabError, match=r"no checkpoints/last\.ckpt in .*Train first"):
        resolve("last", tmp_path)
    for wanted in ("LAST.ckpt", str(tmp_path)):
        with pytest.raises(AttnlabError, match="takes last, best or the path"):
            resolve(wanted, tmp_path)


def test_the_content_and_no_code_is_read(tmp_path):
    content = {"state_dict": {"w": torch.arange(3)}, "hyper_parameters": {"a": 1}}
    torch.save(content, tmp_path / "a.ckpt")
    assert read(tmp_path / "a.ckpt")["state_dict"]["w"].tolist() == [0, 1, 2]
    torch.save({**content, "more": Path("x")}, tmp_path / "a.ckpt")
    with pytest.raises(AttnlabError, match=r"Cannot read .*a\.ckpt"):
        read(tmp_path / "a.ckpt")


def test_weights_alone_and_half_files_are_no_checkpoints(tmp_path):
    torch.save({"w": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(AttnlabError, match=r"use --model\.weights"):
        read(tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AttnlabError, match="truncated"):
        read(tmp_path / "w.pth")
