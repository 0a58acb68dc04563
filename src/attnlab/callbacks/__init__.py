"""What runs beside training: pictures, cost, checkpoints, predictions, the closing table."""

from attnlab.callbacks.checkpoint_io import AtomicCheckpointIO
from attnlab.callbacks.cost import CostReport
from attnlab.callbacks.pictures import Pictures
from attnlab.callbacks.predictions import Predictions
from attnlab.callbacks.progress import ProgressLines
from attnlab.callbacks.ramped_ema import RampedEMA
from attnlab.callbacks.records import Records
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
