"""Validation and test as one: what looks at either has its hooks once."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class EvaluationCallback(Callback):
    """Base of the callbacks that look at validation and test alike. A stage is ``val`` or ``test``."""

    def begins(self, trainer: Trainer, stage: str) -> None:
        """The stage begins; the sanity check is one, too."""

    def looks(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        """A batch was evaluated, on every process."""

    def ends(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """The stage is over, and the task's ``results`` are there. Every process is asked."""

    @staticmethod
    def asked_for(trainer: Trainer) -> bool:
        """Whether the command is ``test`` or ``validate``, and not a validation of ``fit``."""
        return trainer.state.fn in (TrainerFn.VALIDATING, TrainerFn.TESTING)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `begins`."""
        self.begins(trainer, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `begins`."""
        self.begins(trainer, "test")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """See `looks`."""
        self.looks(trainer, outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """See `looks`."""
        self.looks(trainer, outputs, batch)

    # Not on_..._epoch_end: a callback's comes before the task's own, which makes the scores.
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `ends`."""
        self.ends(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `ends`."""
        self.ends(trainer, pl_module, "test")
