"""Networks for each task, built by name."""

from attnlab.models.segmenters import Segmenter, architectures, build_segmenter
from attnlab.models.weights import WeightsReport, library_encoder_weights, load_backbone, read_state_dict

__all__ = [
    "Segmenter",
    "WeightsReport",
    "architectures",
    "build_segmenter",
    "library_encoder_weights",
    "load_backbone",
    "read_state_dict",
]
