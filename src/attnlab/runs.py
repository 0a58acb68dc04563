"""Run folders: ``fit`` makes one per run; ``test`` and ``validate`` write into their checkpoint's."""

from __future__ import annotations

import csv
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from attnlab import run_starts
from attnlab.errors import AttnlabError
from attnlab.recipes import read_yaml

CONFIG = "config.yaml"
# These two write a run to one configurable folder; others have their own server.
_LOGGERS_OF_FOLDERS = (TensorBoardLogger.__name__, "ScoresFirst", CSVLogger.__name__)


def of_checkpoint(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote a checkpoint; None if it was moved, or the run had no logger."""
    folder = checkpoint.absolute().parent
    if (folder / run_starts.STAMP).is_file():
        return None  # Of a run without a logger; a YAML beside its folder is the user's own.
    if folder.name != "checkpoints" or not (folder.parent / CONFIG).is_file():
        return None
    # As given, if possible: Lightning compares the folders of a resumed run as text.
    given = checkpoint.parent.parent
    return given if given.name not in ("", "..") else folder.parent


def folder_of(trainer: Trainer) -> Path | None:
    """A run's folder, existing or not: its first logger's, which contains the checkpoints.

    Only for the first process. None without a logger.
    """
    logger = trainer.logger
    if logger is None:
        return None
    return Path(logger.log_dir) if logger.log_dir else _version_folder(logger, trainer)


def _version_folder(logger: Any, trainer: Trainer) -> Path:
    """The folder in which ModelCheckpoint puts ``checkpoints``, of the first logger."""
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def folders_of_loggers(trainer: Trainer) -> list[list[str]]:
    """Class and folder of a run's loggers that write into folders, for `point_loggers`.

    The folders are relative to the run's, with which they may be moved.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger | CSVLogger)]
    folders = [_version_folder(logger, trainer).absolute() for logger in loggers]
    kinds = [next(k.__name__ for k in (TensorBoardLogger, CSVLogger) if isinstance(x, k)) for x in loggers]
    run = _version_folder(trainer.logger, trainer).absolute() if trainer.logger else None
    return [[kind, os.path.relpath(folder, run)] for kind, folder in zip(kinds, folders, strict=True)]


def point_loggers(logger: Any, folder: Path, known: Sequence[Sequence[str]] = ()) -> None:
    """Make loggers write into a run's folder, or into that which they had in the run.

    Args:
        logger: ``trainer.logger`` as parsed: one, a list of them, or none. Changed in place. Loggers that do
            not write into folders stay as they are.
        folder: The run's; the first logger's in any case, since the checkpoints are there.
        known: The run's, from `folders_of_loggers`.
    """
    left = [tuple(each) for each in known]
    for position, options in enumerate(_each(logger)):
        kind = str(options.get("class_path", "")).rpartition(".")[2]
        if kind not in _LOGGERS_OF_FOLDERS:
            continue
        kind = TensorBoardLogger.__name__ if kind == "ScoresFirst" else kind
        place, of_kind = folder, next((each for each in left if each[0] == kind), None)
        if of_kind is not None:
            left.remove(of_kind)
            former = folder / of_kind[1]
            if position and of_kind[1] != os.curdir and former.is_dir():
                place = Path(os.path.relpath(former.resolve()))
        for key, value in (("save_dir", str(place.parent)), ("name", ""), ("version", place.name)):
            options["init_args"][key] = value


def put_scores_first(logger: Any, class_path: str) -> None:
    """Replace Lightning's TensorBoard logger by another class.

    Args:
        logger: ``trainer.logger`` as parsed: one, a list of them, or none. Changed in place.
        class_path: A subclass with the same options.
    """
    for options in _each(logger):
        if str(options.get("class_path", "")).rpartition(".")[2] == TensorBoardLogger.__name__:
            options["class_path"] = class_path


def keep_csv_history(trainer: Trainer, steps: int | None = None) -> None:
    """Make CSV loggers append to existing files in the run's folder, which they would delete.

    Args:
        trainer: Not started yet.
        steps: Rows of later optimizer steps are dropped, as they will be repeated. None keeps all.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            continue
        folder = Path(logger.log_dir)
        path, kept = folder / "metrics.csv", folder / ".metrics.csv.kept"
        hparams = folder / "hparams.yaml"
        remembered = {}
        if hparams.is_file():
            with suppress(AttnlabError):
                remembered = read_yaml(str(hparams))
        if path.is_file():
            path.replace(kept)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
                writer = logger.experiment
        finally:
            if kept.is_file():
                kept.replace(path)
        writer.log_hparams(remembered)
        if path.is_file():
            writer.metrics_keys = _without_rows_after(path, steps)


def _without_rows_after(path: Path, steps: int | None) -> list[str]:
    """Drop the rows of later steps from a file of metrics; returns its columns."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or [])
    kept = [row for row in rows if steps is None or int(float(row.get("step") or 0)) <= steps]
    if len(kept) < len(rows):
        beside = path.with_name(".metrics.csv.new")
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            writer.writerows(kept)
        beside.replace(path)
    return columns


class StartedRun:
    """Opens a run's folders, with the time in its ``started.txt``; what was new can be removed again.

    Runs that start at the same moment get folders of their own: one at a time looks which version is free.

    Args:
        trainer: Not started yet.
        resumed: Whether the run goes on in its folder.
    """

    def __init__(self, trainer: Trainer, resumed: bool = False) -> None:
        self._made: list[list[Path]] = []
        self._stamped: Path | None = None
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not trainer.loggers:
            # All such runs share a folder: its stamp says from when on its checkpoints are this run's.
            if trainer.checkpoint_callback is not None and not resumed:
                self._open(Path(trainer.default_root_dir) / run_starts.CHECKPOINTS)
        elif names_its_folder(trainer):
            with _one_at_a_time(Path(trainer.loggers[0].save_dir or trainer.default_root_dir)):
                loggers = [x for x in trainer.loggers if isinstance(x, TensorBoardLogger | CSVLogger)]
                # All are asked before the first folder is made, or the next would take another version.
                first, *others = [_version_folder(logger, trainer) for logger in loggers]
                self._open(first)
                self._made += [made for folder in others if (made := _missing(folder))]
                for folder in others:
                    folder.mkdir(parents=True, exist_ok=True)

    def _open(self, folder: Path) -> None:
        made = _missing(folder)
        self._made += [made] if made else []
        run_starts.stamp(folder)
        self._stamped = folder

    def take_back(self) -> None:
        """Remove the folders, and parents created for them that are empty, or else the stamp.

        Another run's files are kept.
        """
        if self._stamped is not None:
            run_starts.take_back(self._stamped)
        for folder, *above in self._made:
            events = list(folder.glob("events.out.tfevents.*"))
            more = [*folder.glob("config_*.yaml"), *folder.glob("*.ckpt"), *folder.glob("checkpoints")]
            if len(events) > 1 or more:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                for path in above:
                    path.rmdir()


def _missing(folder: Path) -> list[Path]:
    """A folder that is not there, and its parents that are not, outwards."""
    return [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process of those that start a run in a folder go on; where locks are unknown, all."""
    handle = None
    try:
        import fcntl

        # Its own folders are made in it in any case, and its absence is not this function's to report.
        handle = os.open(next(path for path in (folder, *folder.absolute().parents) if path.is_dir()), 0)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except (ImportError, OSError):
        pass
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def names_its_folder(trainer: Trainer) -> bool:
    """Whether the folder can be asked for before the run, without side effects."""
    return isinstance(trainer.logger, TensorBoardLogger | CSVLogger)


def free_name(path: Path, text: str) -> Path | None:
    """A path to write a text to without replacing another: the given one, or a numbered one beside it.

    Args:
        path: The preferred path.
        text: The text to write.

    Returns:
        A free path; None if the text is already there.
    """
    candidate, number = path, 1
    while candidate.exists():
        if candidate.read_text(encoding="utf-8", errors="replace") == text:
            return None
        number += 1
        candidate = path.with_stem(f"{path.stem}_{number}")
    return candidate


def _each(value: Any) -> Iterator[Any]:
    for item in value if isinstance(value, list) else [value]:
        if hasattr(item, "get"):
            yield item
