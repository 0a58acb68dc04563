"""What runs beside training: pictures, cost, checkpoints, predictions, the closing table."""

from attnlab.callbacks.checkpoint_io import AtomicCheckpointIO
from attnlab.callbacks.class_table import ClassAPTable, ClassTable
from attnlab.callbacks.classification_pictures import ClassificationPictures
from attnlab.callbacks.classification_writer import ClassificationWriter
from attnlab.callbacks.cost import CostReport
from attnlab.callbacks.detection_pictures import DetectionPictures
from attnlab.callbacks.detection_writer import DetectionWriter
from attnlab.callbacks.detections_file import DetectionsFile
from attnlab.callbacks.pictures import PicturesCallback
from attnlab.callbacks.precision_curves import PrecisionCurves
from attnlab.callbacks.progress import ProgressLines
from attnlab.callbacks.ramped_ema import RampedEMA
from attnlab.callbacks.report import RunReport
from attnlab.callbacks.scores_file import ScoresFile
from attnlab.callbacks.segmentation_pictures import SegmentationPictures
from attnlab.callbacks.segmentation_writer import SegmentationWriter

__all__ = [
    "AtomicCheckpointIO",
    "ClassAPTable",
    "ClassTable",
    "ClassificationPictures",
    "ClassificationWriter",
    "CostReport",
    "DetectionPictures",
    "DetectionWriter",
    "DetectionsFile",
    "PicturesCallback",
    "PrecisionCurves",
    "ProgressLines",
    "RampedEMA",
    "RunReport",
    "ScoresFile",
    "SegmentationPictures",
    "SegmentationWriter",
]
