"""Finding and reading checkpoints."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnlab import run_length, run_starts
from attnlab.errors import AttnlabError
from attnlab.recipes import TASKS

# These come from the data, whatever a checkpoint holds.
FROM_DATA = ("class_names", "ignore_index", "num_classes")
CLASS_PATH, INSTANTIATOR = "_class_path", "_instantiator"
OF_DATA = "datamodule_hyper_parameters"
# Data options that fetch a data set: done for whoever asks for it, not for who made a checkpoint.
FETCHING = ("download", "mirror", "extract")


def resolve(wanted: str, folder: Path | None, alone: Path | None = None) -> Path:
    """The file that ``--ckpt_path`` stands for.

    Args:
        wanted: ``last`` or ``best``, of the run that was started last; or a file's path.
        folder: Folder that contains the runs' folders (``version_0``, ...), at any depth; None to look only
            in ``alone``.
        alone: Folder whose ``checkpoints`` are those of runs without a logger, if these count.

    Raises:
        AttnlabError: That run has none, or there is no run; the message names the run, the folders searched,
            and an older run's file.
    """
    if wanted not in ("last", "best"):
        return resolve_file(Path(wanted), "--ckpt_path takes last, best or the path of a .ckpt file.")
    runs = [] if folder is None else run_starts.runs_below(folder)
    if alone is not None and (alone / run_starts.CHECKPOINTS).is_dir():
        runs = sorted([*runs, alone / run_starts.CHECKPOINTS], key=run_starts.started)
    files = [(run, run / f"{wanted}.ckpt") for run in runs]
    if files and _of_run(*files[-1]):
        return files[-1][1]
    older = [path for run, path in files if path.is_file()]
    searched = " or ".join(str(place.absolute()) for place in (folder, alone) if place is not None)
    if not older:
        raise AttnlabError(
            f"There is no '{wanted}' checkpoint: found no checkpoints/{wanted}.ckpt in {searched}. "
            "Train first (python main.py fit ...), or give a checkpoint's path: --ckpt_path FILE."
        )
    newest = runs[-1]
    other = newest / ("last.ckpt" if wanted == "best" else "best.ckpt")
    has = f"It has {other}. " if _of_run(newest, other) else ""
    raise AttnlabError(
        f"The newest run, {newest.parent}, has no checkpoints/{wanted}.ckpt. {has}"
        f"If you mean an older run's: --ckpt_path {older[-1]}."
    )


def _of_run(run: Path, path: Path) -> bool:
    """Whether a checkpoint is there, and not of an earlier run in the same folder.

    Runs without a logger share a folder, and its stamp lies in it.
    """
    if not path.is_file():
        return False
    return not (run / run_starts.STAMP).is_file() or path.stat().st_mtime >= run_starts.started(run)


def resolve_file(path: Path, hint: str = "fit saves them in checkpoints/ in the run's folder.") -> Path:
    """A checkpoint's path, if it exists.

    Raises:
        AttnlabError: It does not exist; the message ends with the hint.
    """
    if not path.is_file():
        raise AttnlabError(f"No checkpoint at {path}. {hint}")
    return path


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, read with ``weights_only=True``, so no code in it is run.

    Raises:
        AttnlabError: The file is truncated, or not a task's checkpoint.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise AttnlabError(
            f"Cannot read {path} as a checkpoint; it is truncated or another kind of file: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters"} <= content.keys():
        raise AttnlabError(
            f"{path} is not an attnlab checkpoint: it lacks the network's options. For pretrained weights, "
            "use --model.weights instead."
        )
    return content


def remembered(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's network and data as a recipe: ``model`` and, if known, ``data``.

    Also reads checkpoints from before tasks were classes, which hold the task's short name and the data's
    block.

    Args:
        content: From `read`.

    Raises:
        AttnlabError: Its task is unknown.
    """
    own, options = _block(content, "attnlab"), _block(content, "hyper_parameters")
    options.pop(INSTANTIATOR, None)
    task = options.pop(CLASS_PATH, None)
    if task is None:
        kind = own.get("task", "segmentation")
        if not isinstance(kind, str) or kind not in TASKS:
            raise AttnlabError(
                f"The checkpoint is for the task '{kind}', which this version of attnlab does not have."
            )
        task = f"attnlab.tasks.{TASKS[kind]}"
    recipe: dict[str, Any] = {"model": {"class_path": task, "init_args": options}}
    if data := _block(content, OF_DATA):
        recipe["data"] = {"class_path": data.pop(CLASS_PATH, None), "init_args": data}
    elif data := _block(own, "data"):
        recipe["data"] = {"class_path": data.get("class_path"), "init_args": _block(data, "init_args")}
    return recipe


def length(content: Mapping[str, Any]) -> dict[str, int]:
    """The training length that a checkpoint remembers; empty if none."""
    return run_length.remembered(_block(_block(content, "attnlab"), "length"))


def _block(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A part of a checkpoint, empty if it is missing.

    Raises:
        AttnlabError: It is not a block of named values.
    """
    found = content.get(key) or {}
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise AttnlabError(f"The checkpoint is damaged: its {key} is {str(found)[:100]}, not named values.")
    return dict(found)
