"""Where a resumed run goes on in its data."""

from __future__ import annotations

from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Sampler


class Place(NamedTuple):
    """A place in a training.

    Attributes:
        epoch: The epoch to go on in, counted from 0.
        batches: This process's batches of it that are done.
        cut: Whether the epoch before was left after its last batch and before its validation.
    """

    epoch: int
    batches: int = 0
    cut: bool = False


def place_of(trainer: Trainer) -> Place:
    """Where a trainer goes on: at its start, at an epoch's, or after some of an epoch's batches."""
    # Lightning declares their counts by a base class that lacks some of them.
    epochs: Any = trainer.fit_loop.epoch_progress.current
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    if epochs.started <= epochs.processed:
        return Place(epochs.processed)
    if batches.is_last_batch:
        return Place(epochs.processed + 1, cut=batches.current.completed < batches.current.processed)
    return Place(epochs.processed, batches.current.processed)


def start_where_the_run_stands(sampler: Sampler[Any], trainer: Trainer, batch_size: int) -> None:
    """Let the sampler of a new training loader begin where the trainer goes on.

    Lightning tells a sampler its epoch after it has made the loader's iterator. Workers have drawn the first
    samples by then, those of epoch 0 in a resumed run.

    Args:
        sampler: One of `attnlab.data.sampling` begins in mid-epoch, too; others with ``set_epoch`` at the
            epoch's start.
        trainer: Its state is restored already.
        batch_size: Samples per process and step.
    """
    place = place_of(trainer)
    if hasattr(sampler, "start_at"):
        sampler.start_at(place.epoch, place.batches * batch_size)
        repeated = "nothing is repeated"
    else:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(place.epoch)
        repeated = f"{type(sampler).__name__} has no start_at(), so the epoch's first batches are repeated"
    if place.batches:
        rank_zero_info(
            f"The checkpoint is from within epoch {place.epoch}: going on after batch {place.batches}; "
            f"{repeated}."
        )
    elif place.cut:
        rank_zero_info(
            f"The checkpoint was made after the last batch of epoch {place.epoch - 1}, before its end: going "
            "on with the next epoch, without that epoch's validation."
        )
