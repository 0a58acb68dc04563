"""Networks for each task, built by name."""

from attnlab.models.built import BuiltNetwork
from attnlab.models.classifiers import build_classifier
from attnlab.models.detectors import build_detector, detector_options, list_detectors
from attnlab.models.segmenters import Segmenter, architectures, build_segmenter
from attnlab.models.weights import WeightsReport, load_weights, read_state_dict, weights_file

__all__ = [
    "BuiltNetwork",
    "Segmenter",
    "WeightsReport",
    "architectures",
    "build_classifier",
    "build_detector",
    "build_segmenter",
    "detector_options",
    "list_detectors",
    "load_weights",
    "read_state_dict",
    "weights_file",
]
