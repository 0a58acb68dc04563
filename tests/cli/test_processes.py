"""Several processes on one machine: started by the command, and by a launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import checkpoint, csv_logger, scalars
from tests.data.conftest import write_voc_folder

MAIN = Path(__file__).parents[2] / "main.py"


@pytest.mark.parametrize(
    ("command", "processes"), [pytest.param("validate", 2, marks=pytest.mark.slow), ("test", 3)]
)
def test_scores_are_those_of_one_process(run, launch, trained, small, tmp_path, command, processes):
    """Five images over two and three processes, so that shares are uneven."""
    trained()
    given = [*small, f"--ckpt_path={checkpoint(tmp_path)}"]
    assert run(command, *given, *csv_logger("one")).status == 0
    launch(processes, command, *given, *csv_logger("many"))
    one, many = scalars(tmp_path / "logs/one"), scalars(tmp_path / "logs/many")
    stage = "val" if command == "validate" else "test"
    assert f"{stage}/mIoU" in one
    exact = {key: value for key, value in one.items() if not key.endswith("loss")}
    assert {key: many[key] for key in exact} == exact
    assert many[f"{stage}/loss"] == pytest.approx(one[f"{stage}/loss"], rel=1e-5)


def test_fewer_images_than_processes(run, launch, small, tmp_path):
    """No image is counted twice, and no process waits for ever, where one has no image at all."""
    sizes = {"t0": (70, 80), "t1": (64, 90), "t2": (80, 70), "t3": (66, 66), "v0": (50, 60), "v1": (61, 40)}
    splits = {"train": ["t0", "t1", "t2", "t3"], "val": ["v0", "v1"]}
    write_voc_folder(tmp_path / "few" / "VOCdevkit" / "VOC2012", sizes, splits)
    few = [*small, f"--data.root={tmp_path / 'few'}"]
    assert run("fit", *few).status == 0
    given = [*few, f"--ckpt_path={checkpoint(tmp_path)}"]
    assert run("validate", *given, *csv_logger("one")).status == 0
    launch(3, "validate", *given, *csv_logger("many"))
    one, many = scalars(tmp_path / "logs/one"), scalars(tmp_path / "logs/many")
    assert many["val/mIoU"] == one["val/mIoU"]
    assert many["val/pixel_accuracy"] == one["val/pixel_accuracy"]


def test_two_processes_train_one_network(small, tmp_path):
    """Started by the command itself."""
    words = ["fit", *small, "--data.batch_size=2", "--trainer.devices=2", "--trainer.strategy=ddp"]
    done = subprocess.run(
        [sys.executable, str(MAIN), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    content = torch.load(checkpoint(tmp_path), weights_only=True)
    assert content["global_step"] == 2  # 7 images, 4 a process, 2 a step
    assert all(value.isfinite().all() for value in content["state_dict"].values())
    assert (tmp_path / "lightning_logs/version_0/pictures/val.png").is_file()
