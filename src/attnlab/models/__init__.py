"""Networks for each task, built by name."""

from attnlab.models.classifier_weights import (
    ClassifierWeightsReport,
    library_classifier_weights,
    load_classifier,
)
from attnlab.models.classifiers import build_classifier, head_name
from attnlab.models.detectors import BuiltDetector, build_detector, detector_options, list_detectors
from attnlab.models.segmenters import Segmenter, architectures, build_segmenter
from attnlab.models.weights import WeightsReport, library_encoder_weights, load_backbone, read_state_dict

__all__ = [
    "BuiltDetector",
    "ClassifierWeightsReport",
    "Segmenter",
    "WeightsReport",
    "architectures",
    "build_classifier",
    "build_detector",
    "build_segmenter",
    "detector_options",
    "head_name",
    "library_classifier_weights",
    "library_encoder_weights",
    "list_detectors",
    "load_backbone",
    "load_classifier",
    "read_state_dict",
]
