"""Object detectors, built by name: torchvision's, YOLOX and YOLOF."""

from attnlab.models.detectors.build import build_detector, detector_options, list_detectors
from attnlab.models.detectors.recipe import BuiltDetector

__all__ = ["BuiltDetector", "build_detector", "detector_options", "list_detectors"]
