"""What started this process: torchrun, mpirun or SLURM, as the environment says."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attnlab.errors import AttnlabError

# Which SLURM job a run is of, and the command.
JOB = "slurm_job.json"


class Launched(NamedTuple):
    """A launcher's processes.

    Attributes:
        by: The launcher's name.
        processes: Their number on all nodes.
        per_node: Their number on this node; None if the launcher does not say.
    """

    by: str
    processes: int
    per_node: int | None


def launched() -> Launched | None:
    """The launcher of this process and the number of its processes; None without one."""
    several = _number("WORLD_SIZE") > 1 and ("RANK" in os.environ or "LOCAL_RANK" in os.environ)
    if several or "TORCHELASTIC_RUN_ID" in os.environ:
        return Launched("torchrun", _number("WORLD_SIZE"), _number("LOCAL_WORLD_SIZE") or None)
    if slurm_job() is not None and "SLURM_PROCID" in os.environ:
        tasks, nodes = _number("SLURM_NTASKS"), _number("SLURM_NNODES") or 1
        even = tasks // nodes if tasks % nodes == 0 else None
        return Launched("SLURM", tasks, _number("SLURM_NTASKS_PER_NODE") or even)
    if _number("OMPI_COMM_WORLD_SIZE") > 1:
        return Launched("mpirun", _number("OMPI_COMM_WORLD_SIZE"), _number("OMPI_COMM_WORLD_LOCAL_SIZE"))
    return None


def refuse_contradiction(devices: int, num_nodes: int) -> None:
    """Reject a number of processes that is not the launcher's: each would train alone, or wait for ever.

    Args:
        devices: ``trainer.devices``, as a number.
        num_nodes: ``trainer.num_nodes``.

    Raises:
        AttnlabError: It contradicts the launcher.
    """
    found = launched()
    if found is None:
        return
    per_node = found.per_node or devices
    if found.processes == devices * num_nodes and per_node == devices:
        return
    nodes = max(found.processes // per_node, 1)
    more = f" --trainer.num_nodes {nodes}" if nodes != 1 or num_nodes != 1 else ""
    raise AttnlabError(
        f"{found.by} started {found.processes} processes, but trainer.devices x trainer.num_nodes is "
        f"{devices} x {num_nodes}: they would not train together. Set --trainer.devices "
        f"{found.processes // nodes}{more}, or let {found.by} start {devices * num_nodes}."
    )


def slurm_job() -> str | None:
    """The id of this SLURM job, with its step's if there is one; None outside and in an interactive shell."""
    if "SLURM_NTASKS" not in os.environ or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    ids = [os.environ.get(name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
    return ".".join(part for part in ids if part)


def slurm_job_to_requeue() -> str | None:
    """The job's id as ``scontrol requeue`` takes it; None outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def is_requeued() -> bool:
    """Whether SLURM has started this job before."""
    return _number("SLURM_RESTART_COUNT") > 0


def note_job(folder: Path, job: str, words: Sequence[str], *, requeued: bool) -> None:
    """Note in a run's folder which SLURM job and command it is of, so that they go on with it.

    Args:
        folder: The run's.
        job: From `slurm_job`.
        words: The command as typed.
        requeued: Whether the job was put back in the queue.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = {"job": job, "words": list(words), "requeued": requeued}
    beside = folder / f".{JOB}.new"
    beside.write_text(json.dumps(note) + "\n", encoding="utf-8")
    beside.replace(folder / JOB)


def of_job(runs_folder: Path, job: str, words: Sequence[str], *, requeued: bool) -> Path | None:
    """The last checkpoint of the run that the same command of the same SLURM job began.

    Args:
        runs_folder: Folder that contains the runs' folders, at any depth.
        job: As for `note_job`.
        words: As for `note_job`.
        requeued: Whether SLURM says that the job was started before; if not, the run's note must.

    Returns:
        The newest such run's ``last.ckpt``; None without one.
    """
    found = []
    for path in runs_folder.rglob(JOB):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        last = path.parent / "checkpoints" / "last.ckpt"
        same = isinstance(note, dict) and (note.get("job"), note.get("words")) == (job, list(words))
        if same and (requeued or note.get("requeued")) and last.is_file():
            found.append(last)
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
