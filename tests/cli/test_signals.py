"""Runs that are told to stop: by SIGTERM, by Ctrl-C, by SLURM; and those that a launcher started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import checkpoint

MAIN = Path(__file__).parents[2] / "main.py"
LAST = "lightning_logs/version_0/checkpoints/last.ckpt"
DATA = ["--data.image_size=32", "--data.num_train=12", "--data.num_val=6", "--data.batch_size=4"]
TINY = [
    *("--model=ClassificationTask", "--model.network=timm/test_resnet", "--pictures.count=0"),
    *("--data=ShapesClassificationDataModule", *DATA, "--data.num_workers=2"),
    *("--trainer.accelerator=cpu", "--trainer.enable_model_summary=false"),
]
SLURM = {
    **{"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"},
}


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGTERM, 143, "Ended by SIGTERM"), (signal.SIGINT, 130, "Interrupted")],
)
def test_a_training_that_is_told_to_stop(launch, tmp_path, number, status, said):
    """It ended with 0, as if all were done, and with 1."""
    words = ["fit", *TINY, "--trainer.max_epochs=500", "--data.num_workers=0"]
    text = "\n".join(launch(1, *words, signal=(number, LAST), status=status))
    line = f"{said}. To resume from {LAST}, run the same command with --ckpt_path last."
    assert text.count(line) == 1
    assert "Traceback" not in text
    assert "graceful" not in text
    folder = checkpoint(tmp_path).parent
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert torch.load(checkpoint(tmp_path), weights_only=True)["epoch"] < 499


def test_before_an_epoch_is_done(launch):
    words = ["fit", *TINY, "--data.num_train=200", "--data.num_workers=0", "--trainer.max_epochs=1"]
    # The job's note is written when the training starts.
    start = (signal.SIGTERM, "lightning_logs/version_0/slurm_job.json")
    text = "\n".join(launch(1, *words, environment=SLURM, signal=start, status=143))
    assert "Ended by SIGTERM before an epoch was done; nothing was saved." in text
    assert "Traceback" not in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_its_loaders_workers(launch, number):
    """As from a terminal, or from ``timeout``, which signal the whole group."""
    words = ["fit", *TINY, "--trainer.max_epochs=500"]
    status = {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    text = "\n".join(launch(1, *words, signal=(number, LAST, "group"), status=status))
    assert text.count("To resume from") == 1
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_that_are_told_to_stop(launch, number):
    words = ["fit", *TINY, "--data.batch_size=2", "--trainer.max_epochs=500"]
    status = {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    text = "\n".join(launch(2, *words, signal=(number, LAST), status=status))
    assert text.count("To resume from") == 1
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_evaluation_that_is_told_to_stop(launch, tmp_path, command):
    """It is long, one image a step; ``predict`` did not stop at all."""
    many = ["--data.num_val=3000", "--data.eval_batch_size=1", "--random_weights=true"]
    if command == "predict":
        launch(1, "validate", *TINY, "--data.num_val=300", "--random_weights=true")
        many.append(f"--data.predict_images={next((tmp_path / 'data').rglob('val')).parent}")
    (tmp_path / "noting.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch import Callback\n"
        "class Noting(Callback):\n"
        "    def on_test_batch_end(self, *args):\n"
        "        Path('at_work').touch()\n"
        "    on_validation_batch_end = on_predict_batch_end = on_test_batch_end\n"
    )
    many.append("--trainer.callbacks=noting.Noting")
    text = "\n".join(launch(1, command, *TINY, *many, signal=(signal.SIGTERM, "at_work"), status=143))
    assert "Traceback" not in text


def scontrol(tmp_path: Path) -> dict[str, str]:
    """SLURM's command, which ends the job as SLURM does; the environment that has it."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nkill -TERM $PPID\n')
    command.chmod(0o755)
    return {**SLURM, "PATH": f"{command.parent}:{os.environ['PATH']}"}


@pytest.mark.slow
def test_a_requeued_job_goes_on_with_its_run_and_no_other_does(launch, tmp_path):
    """Lightning left its checkpoint in the working folder, and whatever ran there next resumed from it."""
    job = scontrol(tmp_path)
    words = ["fit", *TINY, "--trainer.max_epochs=15"]
    text = "\n".join(launch(1, *words, environment=job, signal=(signal.SIGUSR1, LAST), status=143))
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert "Warned by SLURM: saved" in text
    assert list(tmp_path.glob("*.ckpt")) == []
    note = json.loads((tmp_path / "lightning_logs/version_0/slurm_job.json").read_text())
    assert note == {"job": "7", "words": words, "requeued": True}
    stopped = torch.load(checkpoint(tmp_path), weights_only=True)
    assert 0 < stopped["global_step"] < 45

    # Another command of the job, and the same one of another job.
    other = [*words[:-1], "--trainer.max_epochs=1"]
    launch(1, *other, environment={**job, "SLURM_RESTART_COUNT": "1"})
    assert torch.load(checkpoint(tmp_path, version=1), weights_only=True)["global_step"] == 3
    launch(1, *other, environment={**job, "SLURM_JOB_ID": "8"})
    assert torch.load(checkpoint(tmp_path, version=2), weights_only=True)["global_step"] == 3

    text = "\n".join(launch(1, *words, environment={**job, "SLURM_RESTART_COUNT": "1"}))
    assert f"Restoring states from the checkpoint path at {LAST}" in text
    assert torch.load(checkpoint(tmp_path), weights_only=True)["global_step"] == 45
    launch(1, *words)
    for key, value in torch.load(checkpoint(tmp_path), weights_only=True)["state_dict"].items():
        assert torch.equal(value, torch.load(checkpoint(tmp_path, version=3))["state_dict"][key]), key


def test_what_lightning_left_there_is_not_resumed(run, tmp_path, monkeypatch):
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    outcome = run("fit", *TINY)
    assert outcome.status == 2
    assert "hpc_ckpt_1.ckpt is a checkpoint that Lightning has left" in outcome.err


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("launcher", ["torchrun", "SLURM"])
def test_more_processes_than_the_trainer_knows_of(run, monkeypatch, launcher, command):
    """Each trained by itself, in the same folder."""
    elastic = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1"}
    slurm = {**SLURM, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    for name, value in (elastic if launcher == "torchrun" else slurm).items():
        monkeypatch.setenv(name, value)
    more = [] if command == "fit" else ["--random_weights=true"]
    outcome = run(command, *TINY, "--trainer.devices=1", *more)
    assert outcome.status == 2
    assert f"{launcher} started 2 processes, but trainer.devices x trainer.num_nodes is 1 x 1" in outcome.err
    assert not Path("lightning_logs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "fine"), [(1, False), pytest.param(2, True, marks=pytest.mark.nightly)])
def test_torchrun_itself(tmp_path, devices, fine):
    words = ["--standalone", "--nproc_per_node=2", str(MAIN), "fit", *TINY, "--trainer.max_epochs=1"]
    more = ["--data.batch_size=2", f"--trainer.devices={devices}"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, *more],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert (done.returncode == 0) == fine, done.stderr[-3000:]
    assert ("torchrun started 2 processes" in done.stderr) != fine
    assert checkpoint(tmp_path).is_file() == fine
