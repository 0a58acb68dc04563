from __future__ import annotations

import os

import pytest

from attnlab.errors import AttnlabError
from attnlab.launchers import (
    launched,
    note_job,
    of_job,
    refuse_contradiction,
    slurm_job,
    slurm_job_to_requeue,
)

OF_LAUNCHERS = ("WORLD_SIZE", "RANK", "TORCHELASTIC", "LOCAL_", "SLURM_", "OMPI_")
ELASTIC = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"}


@pytest.fixture
def environment(monkeypatch):
    """Sets the environment of a launcher, alone."""
    for name in list(os.environ):
        if name.startswith(OF_LAUNCHERS):
            monkeypatch.delenv(name)

    def call(values: dict[str, object]) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return call


@pytest.mark.parametrize(
    ("given", "devices", "nodes"),
    [
        ({**ELASTIC, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}, 1, 1),
        ({**ELASTIC, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}, 4, 1),
        ({**ELASTIC, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}, 2, 1),
        ({"WORLD_SIZE": 2, "RANK": 1}, 1, 1),
        ({**SLURM, "SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2}, 1, 1),
        ({**SLURM, "SLURM_NTASKS": 2, "SLURM_NNODES": 2}, 2, 1),
        ({**SLURM, "SLURM_NTASKS": 1, "SLURM_NNODES": 1}, 2, 1),
        ({"OMPI_COMM_WORLD_SIZE": 2, "OMPI_COMM_WORLD_LOCAL_SIZE": 2}, 1, 1),
    ],
)
def test_processes_that_would_not_train_together_are_refused(environment, given, devices, nodes):
    environment(given)
    with pytest.raises(AttnlabError, match=r"started . processes, but trainer.devices x"):
        refuse_contradiction(devices, nodes)


@pytest.mark.parametrize(
    ("given", "devices", "nodes"),
    [
        ({}, 1, 1),
        ({}, 2, 1),
        ({"LOCAL_RANK": 1}, 2, 1),
        # Left by an image for containers.
        ({"WORLD_SIZE": 1, "RANK": 0}, 2, 1),
        ({"WORLD_SIZE": 4}, 1, 1),
        ({**ELASTIC, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}, 1, 1),
        ({**ELASTIC, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}, 2, 2),
        ({**SLURM, "SLURM_NTASKS": 1}, 1, 1),
        ({**SLURM, "SLURM_NTASKS": 4, "SLURM_NTASKS_PER_NODE": 2, "SLURM_NNODES": 2}, 2, 2),
        # A shell in an allocation.
        ({**SLURM, "SLURM_NTASKS": 4, "SLURM_JOB_NAME": "bash"}, 1, 1),
        ({**SLURM, "SLURM_NTASKS": 4, "SLURM_JOB_NAME": "interactive"}, 1, 1),
        ({"SLURM_JOB_ID": 7, "SLURM_NTASKS": 4, "SLURM_JOB_NAME": "mine"}, 1, 1),
    ],
)
def test_no_false_alarm(environment, given, devices, nodes):
    environment(given)
    refuse_contradiction(devices, nodes)


def test_the_error_says_what_to_set(environment):
    environment({**ELASTIC, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2})
    with pytest.raises(AttnlabError, match=r"--trainer.devices 2 --trainer.num_nodes 2, or let torchrun"):
        refuse_contradiction(1, 1)


def test_what_a_job_is_called(environment):
    environment({})
    assert slurm_job() is None
    assert launched() is None
    environment({**SLURM, "SLURM_NTASKS": 1, "SLURM_STEP_ID": 3})
    assert slurm_job() == "7.3"
    assert slurm_job_to_requeue() == "7"
    environment({"SLURM_ARRAY_JOB_ID": 5, "SLURM_ARRAY_TASK_ID": 2})
    assert slurm_job_to_requeue() == "5_2"


def test_a_job_finds_its_own_run_alone(tmp_path):
    last = tmp_path / "version_0" / "checkpoints" / "last.ckpt"
    note_job(last.parents[1], "7.0", ["fit", "--a"], requeued=False)
    assert of_job(tmp_path, "7.0", ["fit", "--a"], requeued=True) is None  # Nothing was saved.
    last.parent.mkdir()
    last.touch()
    assert of_job(tmp_path, "7.0", ["fit", "--a"], requeued=True) == last
    assert of_job(tmp_path, "7.0", ["fit", "--a"], requeued=False) is None
    assert of_job(tmp_path, "7.0", ["fit", "--b"], requeued=True) is None
    assert of_job(tmp_path, "8.0", ["fit", "--a"], requeued=True) is None
    note_job(last.parents[1], "7.0", ["fit", "--a"], requeued=True)
    assert of_job(tmp_path, "7.0", ["fit", "--a"], requeued=False) == last
