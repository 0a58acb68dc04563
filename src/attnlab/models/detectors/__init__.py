"""Object detectors, built by name: torchvision's, YOLOX and YOLOF."""

from attnlab.models.detectors.build import build_detector, detector_options, list_detectors

__all__ = ["build_detector", "detector_options", "list_detectors"]
