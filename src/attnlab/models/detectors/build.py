"""Detectors by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

from attnlab.attention.options import Option, check_options
from attnlab.errors import AttnlabError, known_name, unknown
from attnlab.models.detectors import torchvision
from attnlab.models.detectors.built import BuiltDetector
from attnlab.models.detectors.ssdlite import ssdlite
from attnlab.models.detectors.yolof import yolof
from attnlab.models.detectors.yolox import YOLOX, YOLOX_SIZES, yolox

# Functions of the number of classes and, by keyword, the options.
_BUILDERS: dict[str, Callable[..., BuiltDetector | YOLOX]] = {
    "faster_rcnn": torchvision.faster_rcnn,
    "retinanet": torchvision.retinanet,
    "fcos": torchvision.fcos,
    "ssdlite": ssdlite,
    "yolof": yolof,
    **{f"yolox_{variant}": partial(yolox, variant) for variant in YOLOX_SIZES},
}


def list_detectors() -> list[str]:
    """The names that `build_detector` knows."""
    return list(_BUILDERS)


def detector_options(network: str) -> list[Option]:
    """The options of a detector, with their types and defaults, in the order of its builder.

    Args:
        network: Name of the detector.

    Raises:
        AttnlabError: For an unknown name.
    """
    builder = _find(network)
    hints = get_type_hints(builder.func if isinstance(builder, partial) else builder)
    _, *parameters = inspect.signature(builder).parameters.values()
    return [Option(p.name, hints[p.name], p.default, "") for p in parameters]


def build_detector(network: str, num_classes: int, options: Mapping[str, Any] | None = None) -> BuiltDetector:
    """Build a detector with random weights.

    Args:
        network: A name of `list_detectors`, e.g. ``retinanet``.
        num_classes: Number of classes K, without a background.
        options: Further arguments of the detector, e.g. ``{"backbone": "resnet18"}``.

    Returns:
        The detector, with what its user must know of it.

    Raises:
        AttnlabError: For an unknown name or option, a value that the option does not take, or no classes.
    """
    builder = _find(network)
    if num_classes < 1:
        raise AttnlabError(f"A detector needs at least one class, got num_classes = {num_classes}.")
    # YAML has no tuples.
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in (options or {}).items()}
    check_options(f"detector '{network}'", detector_options(network), values)
    _check_ranges(network, values)
    built = builder(num_classes, **values)
    if isinstance(built, YOLOX):
        side = built.resizing.size
        return BuiltDetector(built, first_label=0, trunk="backbone", example_size=(side, side))
    return built


def _check_ranges(network: str, values: Mapping[str, Any]) -> None:
    for name in ("score_threshold", "nms_threshold"):
        if not 0 <= values.get(name, 0) <= 1:
            raise AttnlabError(f"{name} of {network} must be in 0..1, got {values[name]}.")
    for name in ("max_detections", "smallest_anchor"):
        value = values.get(name)
        if value is not None and value < 1:
            raise AttnlabError(f"{name} of {network} must be at least 1, got {value}.")


def _find(network: str) -> Callable[..., BuiltDetector | YOLOX]:
    name = known_name(network, _BUILDERS)
    if name not in _BUILDERS:
        raise unknown("detector", network, _BUILDERS)
    return _BUILDERS[name]
