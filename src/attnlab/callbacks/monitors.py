"""Checks that the scores which callbacks wait for will come, and that they look for the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from attnlab.callbacks.best import COUNTERS, BestCheckpoint
from attnlab.errors import AttnlabError, unknown
from attnlab.tasks import BaseTask

# Whose callbacks log nothing but what is known here: learning rates.
KNOWN_CODE = ("attnlab.", "lightning.")
OF_TRAINING = ("train/", "lr-")
LOSSES = ("train/loss", "train/loss_step", "train/loss_epoch")


@dataclass(frozen=True)
class Wanted:
    """A score that a callback waits for.

    Attributes:
        where: The option or the callback that names it.
        name: The score's name.
        mode: ``min`` or ``max``; None if it is only read.
        own: Whether it is for `BestCheckpoint`, which saves nothing in a run without validation.
    """

    where: str
    name: str
    mode: str | None = None
    own: bool = False


class MonitorCheck(Callback):
    """Refuses scores that cannot come: most before the data are prepared, those of training after a batch.

    Code of your own, a task or a callback, may log any name at any time: for a name that it has not logged in
    the sanity check there is only a hint.
    """

    def __init__(self) -> None:
        self._looked = False

    def check(self, trainer: Trainer, task: BaseTask) -> None:
        """Check what is known before the run.

        Raises:
            AttnlabError: A score cannot come, or the worst would be taken for the best.
        """
        for wanted in _all_wanted(trainer, task):
            _refuse_the_worst(wanted, task)
            if trainer.limit_val_batches == 0 and wanted.name.startswith("val") and not wanted.own:
                raise AttnlabError(
                    f"{wanted.where} is {wanted.name}, but --trainer.limit_val_batches 0 means no validation."
                )
            names = _names(trainer, task)
            if names is not None and wanted.name not in names and not wanted.name.startswith(OF_TRAINING):
                raise _not_logged(wanted, names)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hint at the names that were logged."""
        logged = list(trainer.callback_metrics)
        for wanted in _all_wanted(trainer, pl_module):
            near = get_close_matches(wanted.name, logged, n=1)
            if near and wanted.name not in logged and not wanted.name.startswith(OF_TRAINING):
                where, name = wanted.where, wanted.name
                rank_zero_info(f"{where} is {name}, which nothing has logged so far; did you mean {near[0]}?")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """After the first batch, every name of training is known."""
        if self._looked or not isinstance(pl_module, BaseTask):
            return
        self._looked = True
        names = _names(trainer, pl_module)
        if names is None:
            return
        known = {*trainer.callback_metrics, *LOSSES}
        for wanted in _all_wanted(trainer, pl_module):
            if wanted.name.startswith(OF_TRAINING) and wanted.name not in known:
                raise _not_logged(wanted, {*known, *names})


def _all_wanted(trainer: Trainer, task: LightningModule) -> Iterator[Wanted]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        own = isinstance(callback, BestCheckpoint)
        # The user says of an EarlyStopping that is not strict that its score may be missing.
        if isinstance(name, str) and name not in COUNTERS and getattr(callback, "strict", True):
            where = "--checkpoint.monitor" if own else f"The monitor of {type(callback).__name__}"
            yield Wanted(where, name, mode, own)
        if isinstance(callback, BestCheckpoint):
            yield from (
                Wanted("A field of --checkpoint.filename", field, own=True) for field in callback.fields
            )


def _names(trainer: Trainer, task: BaseTask) -> set[str] | None:
    """Names that may be logged, without those of training; None if somebody else's code runs."""
    code: Iterable[object] = (task, *trainer.callbacks)  # type: ignore[attr-defined]
    if not all(f"{type(each).__module__}.".startswith(KNOWN_CODE) for each in code):
        return None
    names = task.score_names()
    return None if names is None else {*names, *LOSSES}


def _not_logged(wanted: Wanted, names: Iterable[str]) -> AttnlabError:
    return unknown("score", wanted.name, names, f"It is named by: {wanted.where}.")


def _refuse_the_worst(wanted: Wanted, task: BaseTask) -> None:
    losses = wanted.name == "val/loss" or wanted.name.startswith("train/loss")
    better = (
        "min" if losses else "max" if wanted.name in (task.monitor, *(task.score_names() or ())) else None
    )
    if wanted.mode is not None and better not in (None, wanted.mode):
        word = "lower" if losses else "higher"
        option = "--checkpoint.mode" if wanted.where.startswith("--") else "its mode:"
        raise AttnlabError(
            f"{wanted.where} is {wanted.name}, of which {word} is better, but its mode is {wanted.mode}: the "
            f"worst would be taken for the best. Set {option} {better}."
        )
