"""Finding and reading checkpoints before anything is built."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from attnlab.errors import AttnlabError


def resolve(wanted: str, folder: Path) -> Path:
    """The file that ``--ckpt_path`` means.

    Args:
        wanted: ``last`` or ``best``, of the newest run in ``folder``; or a file's path.
        folder: Where the runs' folders (``version_0``, ...) lie, at any depth.

    Raises:
        AttnlabError: When there is none, naming the folder that was searched.
    """
    if wanted not in ("last", "best"):
        return resolve_file(Path(wanted), "--ckpt_path takes last, best or the path of a .ckpt file.")
    found = sorted(folder.rglob(f"checkpoints/{wanted}.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise AttnlabError(
            f"There is no '{wanted}' checkpoint: no checkpoints/{wanted}.ckpt below {folder.absolute()}. "
            "Train first (python main.py fit ...), or give the path of a checkpoint: --ckpt_path FILE."
        )
    return found[-1]


def resolve_file(path: Path, hint: str = "fit writes them to checkpoints/ in a run's folder.") -> Path:
    """A checkpoint's path, if there is one.

    Raises:
        AttnlabError: There is none; the message ends with the hint.
    """
    if not path.is_file():
        raise AttnlabError(f"No checkpoint at {path}. {hint}")
    return path


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, read with ``weights_only=True``: no code in it is run.

    Raises:
        AttnlabError: When the file is truncated, or is no checkpoint of a task.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise AttnlabError(
            f"{path} cannot be read as a checkpoint; it is truncated or something else: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters"} <= content.keys():
        raise AttnlabError(
            f"{path} is no checkpoint of attnlab: it lacks the network's options. If it holds pretrained "
            "backbone weights, pass it as --model.weights instead."
        )
    return content
