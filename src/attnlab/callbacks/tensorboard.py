"""TensorBoard with scores first."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger

# Sections are in alphabetical order, and the first two are open: scores, then training.
SCORE, TRAIN = "score/", "train/"


class ScoresFirst(TensorBoardLogger):
    """Lightning's TensorBoardLogger, opening on scores and losses.

    Learning rates (``lr-AdamW/head``) are in the training section, and the epoch number is left out. The
    options are Lightning's.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars under their display names."""
        shown = {
            f"{TRAIN}{name}" if name.startswith("lr-") else name: value
            for name, value in metrics.items()
            if name != "epoch"
        }
        super().log_metrics(shown, step)
