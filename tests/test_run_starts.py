"""Which run is the newest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from attnlab import run_starts


def names(folder: Path) -> list[str]:
    return [run.parent.name for run in run_starts.runs_below(folder)]


def old(folder: Path, date: int) -> None:
    """A run of before there were stamps."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    os.utime(folder / "config.yaml", (date, date))


def test_the_last_start_counts_and_copying_changes_nothing(tmp_path):
    for name in ("version_3", "version_0", "mine"):
        run_starts.stamp(tmp_path / "logs" / name)
    assert names(tmp_path / "logs") == ["version_3", "version_0", "mine"]
    # Resumed, it is the one that training was last started in.
    run_starts.stamp(tmp_path / "logs/version_3")
    assert names(tmp_path / "logs") == ["version_0", "mine", "version_3"]
    for name in ("mine", "version_3", "version_0"):
        shutil.copytree(tmp_path / "logs" / name, tmp_path / "copied" / name, copy_function=shutil.copyfile)
    assert names(tmp_path / "copied") == ["version_0", "mine", "version_3"]


def test_a_copy_beside_its_run_is_not_taken_for_it(tmp_path):
    run_starts.stamp(tmp_path / "version_0")
    shutil.copytree(tmp_path / "version_0", tmp_path / "version_0_copy")
    assert names(tmp_path)[-1] == "version_0"


def test_runs_of_before_there_were_stamps(tmp_path):
    old(tmp_path / "a/version_1", 1000)
    old(tmp_path / "b/version_0", 2000)
    assert names(tmp_path) == ["version_1", "version_0"]
    run_starts.stamp(tmp_path / "version_2")
    assert names(tmp_path)[-1] == "version_2"
    (tmp_path / "version_2/started.txt").write_text("not a date")
    assert names(tmp_path)[0] == "version_2"


def test_other_folders_are_no_runs(tmp_path):
    (tmp_path / "wandb/run-1/files").mkdir(parents=True)
    (tmp_path / "wandb/run-1/files/config.yaml").touch()
    (tmp_path / "version_0").mkdir()
    assert run_starts.runs_below(tmp_path) == run_starts.runs_below(tmp_path / "none") == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_stamp_is_taken_back(tmp_path, times):
    for _ in range(times):
        run_starts.stamp(tmp_path)
    lines = (tmp_path / "started.txt").read_text().splitlines()
    run_starts.take_back(tmp_path)
    if times == 1:
        assert not list(tmp_path.iterdir())
    else:
        assert (tmp_path / "started.txt").read_text().splitlines() == lines[:1]
    run_starts.take_back(tmp_path / "none")
