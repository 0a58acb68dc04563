"""The length of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_EPOCHS = 20
"""Default number of epochs. Lightning's is a thousand."""


def is_given(trainer: Mapping[str, Any]) -> bool:
    """Whether the Trainer's options give a length: epochs, steps, time, or a trial run.

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
    """The length of a run, for its checkpoints; the default of a resumed run."""
    given = {key: trainer.get(key) for key in ("max_epochs", "max_steps")}
    return {key: value for key, value in given.items() if isinstance(value, int)}
