"""Shared by callbacks: hooks for validation and test, the monitored score, paths for display."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class EvaluationCallback(Callback):
    """Base of callbacks that treat validation and test alike. A stage is ``val`` or ``test``."""

    def begins(self, trainer: Trainer, stage: str) -> None:
        """A stage begins; also called for the sanity check."""

    def looks(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        """A batch was evaluated, on every process."""

    def ends(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """The stage is over and the task's ``results`` are available; called on every process."""

    @staticmethod
    def asked_for(trainer: Trainer) -> bool:
        """Whether the command is ``test`` or ``validate``, not the validation of ``fit``."""
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

    on_test_batch_end = on_validation_batch_end

    # Not on_..._epoch_end: a callback's runs before the task's, which computes the scores.
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `ends`."""
        self.ends(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `ends`."""
        self.ends(trainer, pl_module, "test")


def monitored(
    trainer: Trainer, best: float | None = None, default: str | None = None
) -> tuple[str, float, float] | None:
    """Name, value and best value of the monitored score; None if there is none yet.

    Args:
        trainer: The Trainer, with the checkpoint callback and the scores.
        best: The best value so far; the checkpoint callback of a resumed run may know a better one.
        default: The score's name if the checkpoint callback has none.
    """
    checkpoint = trainer.checkpoint_callback
    name = getattr(checkpoint, "monitor", None) or default
    value = trainer.callback_metrics.get(name) if name else None
    if name is None or value is None:
        return None
    better = min if getattr(checkpoint, "mode", "max") == "min" else max
    # The checkpoint callback gets this value only later.
    scores = (value, getattr(checkpoint, "best_model_score", None), best)
    # A NaN is never better, and never worse, than any number: it would stay the best.
    known = [float(score) for score in scores if score is not None and math.isfinite(score)]
    return name, float(value), better(known, default=math.nan)


def shown(path: str | Path, folder: str | Path = ".") -> str:
    """A path relative to a folder (default: the working directory) if it is inside it."""
    path, folder = Path(path).absolute(), Path(folder).absolute()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
