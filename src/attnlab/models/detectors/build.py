"""Detectors by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, get_type_hints

from torch import Tensor

from attnlab.attention.options import Option, check_options
from attnlab.errors import AttnlabError, known_name, unknown
from attnlab.models.built import BuiltNetwork
from attnlab.models.detectors.names import YOLOX_FILES, rename_yolox_keys
from attnlab.models.detectors.recipe import Recipe
from attnlab.models.detectors.ssdlite import SSDLite
from attnlab.models.detectors.torchvision import FCOS, FasterRCNN, RetinaNet
from attnlab.models.detectors.yolof import YOLOFRecipe
from attnlab.models.detectors.yolox import YOLOX, YOLOX_SIZES
from attnlab.models.published import library_classifier_weights

# Options that do not make it another network: sizes and thresholds.
FREE_OPTIONS = frozenset(
    {"size", "train_sizes", "place", "fill", "interpolation", "min_size", "max_size", "l1_last"}
    | {"score_threshold", "nms_threshold", "max_detections", "centre_radius"}
    | {"trainable_layers", "proposals_trained"}
)
# Constructors that take the number of classes and, by keyword, the options.
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
        AttnlabError: Unknown name.
    """
    builder = _find(network)
    hints = get_type_hints(getattr(builder, "func", builder).__init__)
    _, *parameters = inspect.signature(builder).parameters.values()
    return [Option(p.name, hints[p.name], p.default, "") for p in parameters]


def build_detector(
    network: str = "faster_rcnn", num_classes: int = 80, network_options: Mapping[str, Any] | None = None
) -> BuiltNetwork:
    """Build a detector with random weights.

    Args:
        network: A name of `list_detectors`, e.g. ``retinanet``.
        num_classes: Number of classes K, without background.
        network_options: Further arguments of the detector, e.g. ``{"backbone": "resnet18"}``.

    Returns:
        The detector; its backbone takes weights of a classification network.

    Raises:
        AttnlabError: Unknown name or option, invalid value, or no classes.
    """
    builder, options = _find(network), detector_options(network)
    if num_classes < 1:
        raise AttnlabError(f"A detector needs at least one class, got num_classes = {num_classes}.")
    # YAML has no tuples.
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in (network_options or {}).items()}
    check_options(f"detector '{network}'", options, given)
    values: dict[str, Any] = {option.name: option.default for option in options} | given
    for name in ("score_threshold", "nms_threshold"):
        if not 0 <= values[name] <= 1:
            raise AttnlabError(f"{name} of {network} must be in 0..1, got {values[name]}.")
    for name in ("max_detections", "smallest_anchor"):
        value = values.get(name)
        if value is not None and value < 1:
            raise AttnlabError(f"{name} of {network} must be at least 1, got {value}.")
    made = builder(num_classes, **given)
    built = _yolox(made) if isinstance(made, YOLOX) else made.build()
    return replace(built, free_options=FREE_OPTIONS, imagenet=partial(_imagenet_weights, network, values))


def _yolox(network: YOLOX) -> BuiltNetwork:
    side = network.resizing.size
    return BuiltNetwork(
        network,
        "backbone",
        ("head.class_logits",),
        example_size=(side, side),
        first_label=0,
        renamings=(rename_yolox_keys,),
    )


def _imagenet_weights(network: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """ImageNet weights, from torchvision, for a detector's backbone."""
    instead = "--model.weights FILE with weights for the detector or its backbone, or --model.weights none."
    if "backbone" not in options:
        raise AttnlabError(
            f"There are no published ImageNet weights for {network}'s backbone. Use {instead} {YOLOX_FILES}"
        )
    if options.get("reduced_tail"):
        raise AttnlabError(
            f"The ImageNet weights of {options['backbone']} fit only the full network. Set reduced_tail of "
            f"{network} to false, or use {instead}"
        )
    return library_classifier_weights(f"torchvision/{options['backbone']}")


def _find(network: str) -> Callable[..., Recipe | YOLOX]:
    name = known_name(network, _BUILDERS)
    if name not in _BUILDERS:
        raise unknown("detector", network, _BUILDERS)
    return _BUILDERS[name]
