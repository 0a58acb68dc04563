"""What the command line adds to the Trainer of every run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar, RichProgressBar

from attnlab.callbacks import AtomicCheckpointIO, Pictures, Predictions, Records, ScoresFile
from attnlab.callbacks.checkpoint_io import LastCheckpoint
from attnlab.callbacks.monitors import MonitorCheck
from attnlab.views import Gallery, Record, Writer


def parts_of(
    subcommand: str, config: Any, exhibits: Sequence[str], scored: tuple[Path, Path] | None
) -> dict[str, Any]:
    """The Trainer's additional arguments: callbacks, plugins, and which of Lightning's own are switched off.

    Args:
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        config: Its options, their classes instantiated.
        exhibits: The options that configure the task's view.
        scored: The run's folder and the checkpoint, if a run's checkpoint is scored.
    """
    trainer = config["trainer"]
    callbacks, checkpoint_io = _as_list(trainer["callbacks"]), AtomicCheckpointIO()
    callbacks += [_shown_by(config[name]) for name in exhibits]
    parts: dict[str, Any] = {"plugins": [*_as_list(trainer["plugins"]), checkpoint_io]}
    if subcommand != "fit":
        parts["enable_checkpointing"] = False
    elif trainer["enable_checkpointing"] is not False:
        # First: of several, Lightning's own are asked which score is monitored.
        callbacks = [config["checkpoint"], LastCheckpoint(checkpoint_io), *callbacks]
    if subcommand == "fit":
        callbacks.append(MonitorCheck())
    # Without a terminal, a progress bar prints nothing until it ends.
    shown, terminal = trainer["enable_progress_bar"] is not False, sys.stdout.isatty()
    own = any(isinstance(callback, ProgressBar) for callback in callbacks)
    config["progress"].enabled = shown and not own and not terminal
    if not own:
        parts["enable_progress_bar"] = shown and terminal
        callbacks += [RichProgressBar()] if shown and terminal else []
    # The cost report replaces it: it adds sites and MACs and leaves out metrics.
    config["cost"].shown = trainer["enable_model_summary"] is not False
    parts["enable_model_summary"] = False
    if trainer["logger"] and subcommand == "fit":
        callbacks.append(LearningRateMonitor("step"))
    if subcommand in ("validate", "test") and scored is not None:
        callbacks.append(ScoresFile(*scored))
    return {**parts, "callbacks": callbacks}


def _shown_by(exhibit: Gallery | Record | Writer) -> Callback:
    """The callback that runs a part of a view."""
    if isinstance(exhibit, Gallery):
        return Pictures(exhibit)
    return Records(exhibit) if isinstance(exhibit, Record) else Predictions(exhibit)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
