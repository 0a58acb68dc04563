"""A record's file, in the run's folder."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.callbacks.report import shown
from attnlab.runs import folder_of
from attnlab.views import Record
from attnlab.views.base import beside


class Records(Callback):
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

    def _wanted(self, trainer: Trainer) -> bool:
        return self.record.write and trainer.state.fn in (TrainerFn.VALIDATING, TrainerFn.TESTING)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the record begin."""
        self.record.begin()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the record begin."""
        self.record.begin()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the file needs."""
        if self._wanted(trainer):
            self.record.collect(outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the file needs."""
        if self._wanted(trainer):
            self.record.collect(outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        if not self._wanted(trainer):
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
