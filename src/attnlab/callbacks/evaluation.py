"""What callbacks share: validation and test as one, the score that counts, paths as they are shown."""

from __future__ import annotations

from pathlib import Path
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

    on_test_batch_end = on_validation_batch_end

    # Not on_..._epoch_end: a callback's comes before the task's own, which makes the scores.
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `ends`."""
        self.ends(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `ends`."""
        self.ends(trainer, pl_module, "test")


def monitored(
    trainer: Trainer, best: float | None = None, default: str | None = None
) -> tuple[str, float, float] | None:
    """Name and value of the score by which checkpoints are kept, and its best; None where there is none yet.

    Args:
        trainer: Has the checkpoints' callback, and the scores.
        best: The best that was seen before; a callback that a resumed run restores may know a better one.
        default: The score's name where the checkpoints have none.
    """
    checkpoint = trainer.checkpoint_callback
    name = getattr(checkpoint, "monitor", None) or default
    value = trainer.callback_metrics.get(name) if name else None
    if name is None or value is None:
        return None
    better = min if getattr(checkpoint, "mode", "max") == "min" else max
    # The checkpoints' callback learns of this value only later.
    known = (value, getattr(checkpoint, "best_model_score", None), best)
    return name, float(value), better(float(score) for score in known if score is not None)


def shown(path: str | Path, folder: str | Path = ".") -> str:
    """A path relative to a folder, that of work by default, where it lies inside it."""
    path, folder = Path(path).absolute(), Path(folder).absolute()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
