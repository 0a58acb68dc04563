"""What runs beside training: pictures, cost, checkpoints, predictions, the closing table."""

from attnlab.callbacks.checkpoint_io import AtomicCheckpointIO
from attnlab.callbacks.cost import CostReport
from attnlab.callbacks.pictures import SegmentationPictures
from attnlab.callbacks.predictions import SegmentationWriter
from attnlab.callbacks.report import RunReport

__all__ = ["AtomicCheckpointIO", "CostReport", "RunReport", "SegmentationPictures", "SegmentationWriter"]
