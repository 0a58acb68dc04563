"""Which file ``--ckpt_path`` means, and what is taken for a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

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
    assert resolve("best", tmp_path) == tmp_path / "a/version_9/checkpoints/best.ckpt"


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
