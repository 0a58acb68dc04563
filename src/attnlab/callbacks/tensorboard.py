"""TensorBoard with what one looks for at the top."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger

# Sections stand in alphabetical order, and the first two are open: scores, then training.
SCORE, TRAIN = "score/", "train/"


class ScoresFirst(TensorBoardLogger):
    """Lightning's TensorBoardLogger, which opens on scores and losses.

    Learning rates (``lr-AdamW/head``) stand in the section of training, and the number of the epoch, which
    tells nothing, is left out. Options are those of Lightning's.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars under the names by which they are shown."""
        shown = {
            f"{TRAIN}{name}" if name.startswith("lr-") else name: value
            for name, value in metrics.items()
            if name != "epoch"
        }
        super().log_metrics(shown, step)
