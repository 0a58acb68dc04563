"""A record's file, in the run's folder."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from attnlab.callbacks.evaluation import EvaluationCallback
from attnlab.callbacks.report import shown
from attnlab.runs import folder_of
from attnlab.views import Record
from attnlab.views.base import beside


class Records(EvaluationCallback):
    """Writes a record after ``test``, and after ``validate``; a run without a folder writes nothing.

    Args:
        record: What is written.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    @property
    def state_key(self) -> str:
        """One a record: a run has several of these callbacks."""
        return f"{type(self).__qualname__}[{type(self.record).__qualname__}]"

    def begins(self, trainer: Trainer, stage: str) -> None:
        """Let the record begin."""
        self.record.begin()

    def looks(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        """Keep what the file needs."""
        if self.record.write and self.asked_for(trainer):
            self.record.collect(outputs, batch)

    def ends(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Write."""
        if not (self.record.write and self.asked_for(trainer)):
            return
        result = getattr(task, "results", {}).get(stage)
        file = self.record.file(stage, result, trainer.datamodule)  # type: ignore[attr-defined]
        folder = folder_of(trainer) if trainer.is_global_zero else None
        if folder is None or file is None:
            return
        path = folder / file.name
        beside(path, file.pieces)
        if file.said is not None:
            print(file.said.format(path=shown(path)))
