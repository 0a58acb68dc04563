"""The score of every class, as a file."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from attnlab.metrics import ClassAP

Row = tuple[object, ...]

COLUMNS = ("index", "synset", "class", "images", "accuracy", "mistaken_for", "times")
AP_COLUMNS = ("index", "category_id", "class", "truths", "AP", "AP50", "VOC_AP50")


class PerClassTable(Callback):
    """Base of the callbacks that write ``classes_test.csv`` to the run's folder.

    Args:
        write: Write the table after ``test`` (``classes_test.csv``) and ``validate`` (``classes_val.csv``).
    """

    columns: tuple[str, ...]

    def __init__(self, write: bool = True) -> None:
        self.write = write

    def rows(self, result: Any, data: Any) -> list[Row]:
        """A row for each class.

        Args:
            result: The task's scores.
            data: The data module.
        """
        raise NotImplementedError

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
        if not self.write or folder is None or result is None or not result.images:
            return
        path = Path(folder) / f"classes_{stage}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(self.columns)
            rows.writerows(self.rows(result, trainer.datamodule))  # type: ignore[attr-defined]


class ClassTable(PerClassTable):
    """Writes ``classes_test.csv`` to the run's folder: each class's folder, name, images and accuracy.

    The last two columns tell which other class its images are most often taken for, and how often.
    """

    columns = COLUMNS

    def rows(self, result: Any, data: Any) -> list[Row]:
        """A row for each class of a classifier."""
        return class_rows(result.matrix, result.per_class, data.class_names, data.synsets)


class ClassAPTable(PerClassTable):
    """Writes ``classes_test.csv`` to the run's folder: each class's category id, name, truths and APs.

    ``AP`` is COCO's mean over IoUs of 0.50 to 0.95, ``AP50`` COCO's at 0.50, ``VOC_AP50`` Pascal VOC's.
    """

    columns = AP_COLUMNS

    def rows(self, result: Any, data: Any) -> list[Row]:
        """A row for each class of a detector."""
        return ap_rows(result.per_class, data.class_names, data.category_ids)


def class_rows(matrix: Tensor, accuracy: dict[str, float], names: list[str], synsets: list[str]) -> list[Row]:
    """A row for each class, with the columns of `COLUMNS`; what is not known is empty.

    Args:
        matrix: int64 (K, K); rows are truths, columns predictions.
        accuracy: Accuracy of each class that has images, in 0..1, by name.
        names: K names.
        synsets: K folder names.
    """
    rows: list[Row] = []
    for index, (name, synset, counts) in enumerate(zip(names, synsets, matrix.tolist(), strict=True)):
        others = [0 if other == index else count for other, count in enumerate(counts)]
        most = max(others, default=0)
        confused = (names[others.index(most)], most) if most else ("", 0)
        rows.append((index, synset, name, sum(counts), accuracy.get(name, ""), *confused))
    return rows


def ap_rows(per_class: Mapping[str, ClassAP], names: Sequence[str], category_ids: Sequence[int]) -> list[Row]:
    """A row for each class, with the columns of `AP_COLUMNS`; an AP that there is not is empty.

    Args:
        per_class: APs of each class that has truths, in 0..1, by name.
        names: K names.
        category_ids: The category id of each class.
    """
    rows: list[Row] = []
    for index, (name, category_id) in enumerate(zip(names, category_ids, strict=True)):
        one = per_class.get(name)
        figures = ("", "", "") if one is None else (one.ap, one.ap50, one.voc_ap50)
        cells = ("" if isinstance(value, float) and math.isnan(value) else value for value in figures)
        rows.append((index, category_id, name, one.truths if one else 0, *cells))
    return rows
