"""The accuracy of every class, as a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

COLUMNS = ("index", "synset", "class", "images", "accuracy", "mistaken_for", "times")


class ClassTable(Callback):
    """Writes ``classes_test.csv`` to the run's folder: each class's folder, name, images and accuracy.

    The last two columns tell which other class its images are most often taken for, and how often.

    Args:
        write: Write the table after ``test`` (``classes_test.csv``) and ``validate`` (``classes_val.csv``).
    """

    def __init__(self, write: bool = True) -> None:
        self.write = write

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, where validation was what was asked for."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        result = getattr(task, "results", {}).get(stage)
        folder = getattr(trainer.logger, "log_dir", None) if trainer.is_global_zero else None
        if not self.write or result is None or folder is None:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        path = Path(folder) / f"classes_{stage}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            rows.writerows(class_rows(result.matrix, result.per_class, data.class_names, data.synsets))


def class_rows(
    matrix: Tensor, accuracy: dict[str, float], names: list[str], synsets: list[str]
) -> list[tuple[object, ...]]:
    """A row for each class, with the columns of `COLUMNS`; what is not known is empty.

    Args:
        matrix: int64 (K, K); rows are truths, columns predictions.
        accuracy: Accuracy of each class that has images, in 0..1, by name.
        names: K names.
        synsets: K folder names.
    """
    rows: list[tuple[object, ...]] = []
    for index, (name, synset, counts) in enumerate(zip(names, synsets, matrix.tolist(), strict=True)):
        others = [0 if other == index else count for other, count in enumerate(counts)]
        most = max(others, default=0)
        confused = (names[others.index(most)], most) if most else ("", 0)
        rows.append((index, synset, name, sum(counts), accuracy.get(name, ""), *confused))
    return rows
