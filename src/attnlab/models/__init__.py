"""Networks for each task, built by name."""

from attnlab.models.classifiers import build_classifier, head_name
from attnlab.models.detector_weights import library_detector_weights, load_detector
from attnlab.models.detectors import BuiltDetector, build_detector, detector_options, list_detectors
from attnlab.models.segmenters import Segmenter, architectures, build_segmenter
from attnlab.models.weights import (
    WeightsReport,
    library_classifier_weights,
    library_encoder_weights,
    load_backbone,
    load_classifier,
    read_state_dict,
    weights_file,
)

__all__ = [
    "BuiltDetector",
    "Segmenter",
    "WeightsReport",
    "architectures",
    "build_classifier",
    "build_detector",
    "build_segmenter",
    "detector_options",
    "head_name",
    "library_classifier_weights",
    "library_detector_weights",
    "library_encoder_weights",
    "list_detectors",
    "load_backbone",
    "load_classifier",
    "load_detector",
    "read_state_dict",
    "weights_file",
]
