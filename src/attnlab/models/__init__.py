"""Networks for each task, built by name."""

from attnlab.models.classifier_weights import (
    ClassifierWeightsReport,
    library_classifier_weights,
    load_classifier,
)
from attnlab.models.classifiers import build_classifier, head_name
from attnlab.models.segmenters import Segmenter, architectures, build_segmenter
from attnlab.models.weights import WeightsReport, library_encoder_weights, load_backbone, read_state_dict

__all__ = [
    "ClassifierWeightsReport",
    "Segmenter",
    "WeightsReport",
    "architectures",
    "build_classifier",
    "build_segmenter",
    "head_name",
    "library_classifier_weights",
    "library_encoder_weights",
    "load_backbone",
    "load_classifier",
    "read_state_dict",
]
