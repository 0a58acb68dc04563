"""Progress as lines of text, if there is no terminal for a bar: nohup, SLURM, docker, CI, a pipe."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.callbacks.evaluation import monitored
from attnlab.errors import AttnlabError

# By command; in training it is a validation.
EVALUATIONS: dict[Any, str] = {TrainerFn.TESTING: "test", TrainerFn.PREDICTING: "predict"}


class ProgressLines(Callback):
    """Prints a line per epoch and per minute: step, loss, score, images/s, time left.

    Used instead of a progress bar if the output is not a terminal. images/s covers all processes, without
    validation; the time left includes validation, at the pace so far.

    Args:
        every_seconds: Seconds between two lines within an epoch, validation, test or prediction.

    Raises:
        AttnlabError: ``every_seconds`` is not above 0.
    """

    def __init__(self, every_seconds: float = 60.0) -> None:
        if not every_seconds > 0:
            raise AttnlabError(f"progress.every_seconds is {every_seconds}; it must be above 0.")
        self.every_seconds = every_seconds
        self.enabled = True
        self.clock = time.monotonic
        self._began = self._said = self._paused = self._pause = 0.0
        self._images = 0
        self._first_step = 0
        self._total_steps = math.inf
        self._best: float | None = None
        self._eval_batches = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time, and the step of a resumed run."""
        self._began = self._said = self.clock()
        self._paused = 0.0
        self._images, self._first_step = 0, trainer.global_step
        steps = trainer.estimated_stepping_batches
        # Lightning uses -1 for a loader of unknown length.
        self._total_steps = steps if steps >= 0 else math.inf

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images; print if it is time."""
        self._images += _size(batch) * trainer.world_size
        if self._is_time():
            self._say(trainer, self._line(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print; the epoch's validation, if any, is done."""
        self._say(trainer, self._line(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._eval_batches = 0
        self._pause = self.clock()
        if trainer.state.fn != TrainerFn.FITTING:
            self._said = self.clock()

    on_test_start = on_predict_start = on_validation_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Print if it is time."""
        self._eval_batches += 1
        if not trainer.sanity_checking and self._is_time():
            key = EVALUATIONS.get(trainer.state.fn, "val")
            total = sum(getattr(trainer, f"num_{key}_batches"))
            of = f" of {int(total)}" if math.isfinite(total) else ""
            self._say(trainer, f"{'validation' if key == 'val' else key}: {self._eval_batches}{of} batches")

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exclude the validation's time from images/s."""
        self._paused += self.clock() - self._pause

    def _is_time(self) -> bool:
        return self.clock() - self._said >= self.every_seconds

    def _say(self, trainer: Trainer, line: str) -> None:
        self._said = self.clock()
        if self.enabled and trainer.is_global_zero:
            print(line, flush=True)

    def _line(self, trainer: Trainer) -> str:
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        steps = f"/{int(self._total_steps)}" if math.isfinite(self._total_steps) else ""
        parts = [f"epoch {trainer.current_epoch + 1}{epochs}", f"step {trainer.global_step}{steps}"]
        metrics = trainer.callback_metrics
        loss = metrics.get("train/loss_step", metrics.get("train/loss"))
        if loss is not None:
            parts.append(f"loss {float(loss):.4g}")
        score = monitored(trainer, self._best)
        if score is not None:
            name, value, self._best = score
            parts.append(f"{name} {value:.4f} (best {self._best:.4f})")
        elapsed = self.clock() - self._began
        if elapsed > self._paused and self._images:
            parts.append(f"{self._images / (elapsed - self._paused):.1f} images/s")
        left = self._left(trainer, elapsed)
        if left is not None:
            parts.append(f"left {timedelta(seconds=round(left))}")
        return "  ".join(parts)

    def _left(self, trainer: Trainer, elapsed: float) -> float | None:
        """Seconds left, from the steps or the time limit."""
        done = trainer.global_step - self._first_step
        limits = [
            remaining
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and (remaining := callback.time_remaining()) is not None
        ]
        if done > 0 and math.isfinite(self._total_steps):
            limits.append(elapsed / done * max(0, self._total_steps - trainer.global_step))
        return min(limits, default=None)


def _size(batch: Any) -> int:
    images = batch.get("image") if isinstance(batch, dict) else batch
    return len(images) if isinstance(images, torch.Tensor | list | tuple) else 0
