"""Run folders: ``fit`` makes one per run; ``test`` and ``validate`` write into their checkpoint's."""

from __future__ import annotations

import csv
import shutil
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from attnlab.errors import AttnlabError
from attnlab.recipes import read_yaml

CONFIG = "config.yaml"
# These two write a run to one configurable folder; others have their own server.
_LOGGERS_OF_FOLDERS = (TensorBoardLogger.__name__, "ScoresFirst", CSVLogger.__name__)


def of_checkpoint(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote a checkpoint; None if the checkpoint was moved."""
    folder = checkpoint.absolute().parent
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
    if logger.log_dir:
        return Path(logger.log_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def point_loggers(logger: Any, folder: Path) -> None:
    """Make loggers write into a run's folder, if they write into folders.

    Args:
        logger: ``trainer.logger`` as parsed: one, a list of them, or none. Changed in place.
        folder: The run's.
    """
    for options in _each(logger):
        if str(options.get("class_path", "")).rpartition(".")[2] in _LOGGERS_OF_FOLDERS:
            for key, value in (("save_dir", str(folder.parent)), ("name", ""), ("version", folder.name)):
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


class NewFolder:
    """A new run folder, which can be removed again.

    Args:
        trainer: Not started yet.
    """

    def __init__(self, trainer: Trainer) -> None:
        folder = folder_of(trainer) if trainer.is_global_zero and _names_its_folder(trainer) else None
        # From the folder itself up to the first existing one.
        parents = [] if folder is None else [folder.absolute(), *folder.absolute().parents]
        self._made = [path for path in parents if not path.exists()]

    def take_back(self) -> None:
        """Remove the folder, and parents created for it that are empty.

        Runs started at the same time may share a folder: another run's files are kept.
        """
        if not self._made:
            return
        folder, *above = self._made
        events = list(folder.glob("events.out.tfevents.*"))
        if len(events) > 1 or any(folder.glob("config_*.yaml")) or (folder / "checkpoints").exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            for path in above:
                path.rmdir()


def _names_its_folder(trainer: Trainer) -> bool:
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
