"""Callbacks: pictures, cost, checkpoints, predictions, the final table."""

from attnlab.callbacks.checkpoint_io import AtomicCheckpointIO
from attnlab.callbacks.cost import CostReport
from attnlab.callbacks.exhibits import Pictures, Predictions, Records
from attnlab.callbacks.progress import ProgressLines
from attnlab.callbacks.ramped_ema import RampedEMA
from attnlab.callbacks.report import RunReport
from attnlab.callbacks.scores_file import ScoresFile

__all__ = [
    "AtomicCheckpointIO",
    "CostReport",
    "Pictures",
    "Predictions",
    "ProgressLines",
    "RampedEMA",
    "Records",
    "RunReport",
    "ScoresFile",
]
