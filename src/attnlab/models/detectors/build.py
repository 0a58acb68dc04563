"""Detectors by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

from attnlab.attention.options import Option, check_options
from attnlab.errors import AttnlabError, known_name, unknown
from attnlab.models.detectors.recipe import BuiltDetector, Recipe
from attnlab.models.detectors.ssdlite import SSDLite
from attnlab.models.detectors.torchvision import FCOS, FasterRCNN, RetinaNet
from attnlab.models.detectors.yolof import YOLOFRecipe
from attnlab.models.detectors.yolox import YOLOX, YOLOX_SIZES

# What takes the number of classes and, by keyword, the options.
_BUILDERS: dict[str, Callable[..., Recipe | YOLOX]] = {
    "faster_rcnn": FasterRCNN,
    "retinanet": RetinaNet,
    "fcos": FCOS,
    "ssdlite": SSDLite,
    "yolof": YOLOFRecipe,
    **{f"yolox_{variant}": partial(YOLOX, size) for variant, size in YOLOX_SIZES.items()},
}


def list_detectors() -> list[str]:
    """The names that `build_detector` knows."""
    return list(_BUILDERS)


def detector_options(network: str) -> list[Option]:
    """The options of a detector, with their types and defaults.

    Raises:
        AttnlabError: For an unknown name.
    """
    builder = _find(network)
    hints = get_type_hints(getattr(builder, "func", builder).__init__)
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
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()}
    check_options(f"detector '{network}'", detector_options(network), values)
    for name in ("score_threshold", "nms_threshold"):
        if not 0 <= values.get(name, 0) <= 1:
            raise AttnlabError(f"{name} of {network} must be in 0..1, got {values[name]}.")
    for name in ("max_detections", "smallest_anchor"):
        value = values.get(name)
        if value is not None and value < 1:
            raise AttnlabError(f"{name} of {network} must be at least 1, got {value}.")
    built = builder(num_classes, **values)
    if isinstance(built, Recipe):
        return built.build()
    side = built.resizing.size
    return BuiltDetector(built, first_label=0, trunk="backbone", example_size=(side, side))


def _find(network: str) -> Callable[..., Recipe | YOLOX]:
    name = known_name(network, _BUILDERS)
    if name not in _BUILDERS:
        raise unknown("detector", network, _BUILDERS)
    return _BUILDERS[name]
