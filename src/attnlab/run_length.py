"""How long a training is, where nobody says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_EPOCHS = 20
"""Passes over the training images where no length is given. Lightning's own are a thousand."""


def is_given(trainer: Mapping[str, Any]) -> bool:
    """Whether the Trainer's options say how long to train: in epochs, in steps, by the clock, or as a trial.

    Args:
        trainer: The options of Lightning's Trainer.
    """
    steps = trainer.get("max_steps")
    return (
        trainer.get("max_epochs") is not None
        or (steps is not None and steps != -1)
        or trainer.get("max_time") is not None
        or bool(trainer.get("fast_dev_run"))
    )


def remembered(trainer: Mapping[str, Any]) -> dict[str, int]:
    """The length of a run, for its checkpoints: what a resumed run takes where it is given no other."""
    given = {key: trainer.get(key) for key in ("max_epochs", "max_steps")}
    return {key: value for key, value in given.items() if isinstance(value, int)}
