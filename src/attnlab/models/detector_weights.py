"""Pretrained weights of detectors: of the whole network, whose classes may be others, or of its backbone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from attnlab.errors import AttnlabError
from attnlab.models.classifier_weights import library_classifier_weights
from attnlab.models.detectors import detector_options
from attnlab.models.detectors.ssdlite import SSDLiteTrunk
from attnlab.models.detectors.yolox import YOLOX
from attnlab.models.detectors.yolox_weights import rename_yolox_keys
from attnlab.models.weights import YOLOX_FILES, Fit, compare, load_backbone

# Layers with outputs for each class: torchvision's, YOLOX's and YOLOF's.
_CLASS_LAYERS = re.compile(
    r"roi_heads\.box_predictor\.(cls_score|bbox_pred)\."
    r"|head\.classification_head\.(cls_logits\.|module_list\.\d+\.1\.)"
    r"|head\.class_logits\."
    r"|decoder\.class_logits\."
)
_ATTENTION = re.compile(r"(^|\.)(attention\.|attention_alpha$)")
# Names of torchvision's published files -> those that its networks have had since version 0.13.
_OLDER_NAMES = (
    (re.compile(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
_OLDER_RETINANET = re.compile(r"(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)$")


@dataclass(frozen=True)
class DetectorWeightsReport:
    """What a load did.

    Attributes:
        source: File or library the weights came from.
        part: What they are of: ``detector`` or ``backbone``.
        loaded: How many tensors were taken over.
        new: Keys of attention modules, which keep their initial values.
        restarted: Keys of layers for other classes, which keep their initial values.
        unused: Keys of the source that have no place here: a classifier, and parts that are not used.
    """

    source: str
    part: str
    loaded: int
    new: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for a log."""
        text = (
            f"Weights of the {self.part} from {self.source}: {self.loaded} tensors loaded, {len(self.new)} "
            f"of attention modules start anew, {len(self.unused)} left out"
        )
        if self.restarted:
            text += f"; for another number of classes, these start anew: {', '.join(self.restarted)}"
        return f"{text}."


def library_detector_weights(network: str, options: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """ImageNet weights, torchvision's, of the network that a detector's backbone is part of.

    They are downloaded where they are not cached.

    Args:
        network: Name of the detector, as for `build_detector`.
        options: Its options.

    Raises:
        AttnlabError: When there are no such weights, or they cannot be fetched.
    """
    values = {option.name: option.default for option in detector_options(network)} | dict(options or {})
    instead = "--model.weights FILE with weights of the detector or its backbone, or --model.weights none."
    if "backbone" not in values:
        where = f" {YOLOX_FILES}" if network.startswith("yolox") else ""
        raise AttnlabError(
            f"Nobody publishes ImageNet weights of {network}'s backbone. Pass {instead}{where}"
        )
    if values.get("reduced_tail"):
        raise AttnlabError(
            f"The ImageNet weights of {values['backbone']} are for the whole network. Set reduced_tail of "
            f"{network} to false, or pass {instead}"
        )
    return library_classifier_weights(f"torchvision/{values['backbone']}")


def load_detector(
    network: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    trunk: str,
    new: Collection[str] = frozenset(),
) -> DetectorWeightsReport:
    """Load weights into a detector, whether attention is attached already or not.

    Weights are taken for the whole detector's if more of them have a place in it than in its backbone alone.
    A prefix of the source's keys (``module.``, ``network.``) is dropped; names of other YOLOX projects, and
    of older versions of torchvision, are translated. Layers that depend on the classes keep their random
    start where the source has them for another number.

    Args:
        network: Changed in place.
        state: The source's tensors by name.
        source: How to call the source in messages.
        trunk: Name of the submodule that weights of a classification network are for.
        new: Keys of the network that its attention modules have added, and that the source may lack.

    Raises:
        AttnlabError: When any other tensor is missing, is left over or has another shape; nothing is loaded
            then. A classifier, and stages after the last that the backbone uses, may be left over.
    """
    state = rename_yolox_keys(state) if isinstance(network, YOLOX) else _newer_names(network, state)
    backbone = network.get_submodule(trunk)
    new_in_backbone = {key.removeprefix(f"{trunk}.") for key in new if key.startswith(f"{trunk}.")}
    whole, part = compare(network, state, new), compare(backbone, state, new_in_backbone)
    if isinstance(backbone, SSDLiteTrunk):
        # Cut in two, the backbone has other names than the classifier.
        renamed = backbone.rename_classifier_keys(state)
        fit = compare(backbone, renamed, new_in_backbone)
        if len(fit.fitting) > max(len(part.fitting), len(whole.fitting)):
            state, part = renamed, fit
    if not whole.fitting and not part.fitting:
        raise AttnlabError(
            f"{source} has weights neither of {type(network).__name__} nor of its backbone: its keys are "
            f"{_some(state)}, and here they are {_some(network.state_dict())}."
        )
    if len(whole.fitting) > len(part.fitting):
        return _load_whole(network, whole, source)
    _refuse_attention(part, source)
    kept = {key: value for key, value in state.items() if not _is_counter_left(key, part)}
    report = load_backbone(backbone, kept, source, new_in_backbone)
    anew = [f"{trunk}.{key}" for key in report.new]
    anew += sorted(key for key in new if not key.startswith(f"{trunk}."))
    return DetectorWeightsReport(source, "backbone", report.loaded, anew, unused=report.unused)


def _load_whole(network: nn.Module, fit: Fit, source: str) -> DetectorWeightsReport:
    _refuse_attention(fit, source)
    restarted = [key for key in fit.shapes if _CLASS_LAYERS.match(key) and _differ_in_classes(fit, key)]
    fit = replace(
        fit,
        fitting={key: value for key, value in fit.fitting.items() if key not in restarted},
        shapes={key: shapes for key, shapes in fit.shapes.items() if key not in restarted},
    )
    if problems := fit.problems([key for key in fit.left if not key.endswith("num_batches_tracked")]):
        raise AttnlabError(
            f"The weights of {source} do not fit the detector {type(network).__name__}: {problems}. Choose "
            "the detector they were trained with, with the same options."
        )
    network.load_state_dict(fit.fitting, strict=False)
    return DetectorWeightsReport(source, "detector", len(fit.fitting), fit.new, restarted)


def _differ_in_classes(fit: Fit, key: str) -> bool:
    theirs, ours = fit.shapes[key]
    return theirs[1:] == ours[1:]


def _refuse_attention(fit: Fit, source: str) -> None:
    """Attention that was trained with the other weights cannot be left out without a word."""
    if strangers := [key for key in fit.left if _ATTENTION.search(key)]:
        raise AttnlabError(
            f"{source} has weights of attention modules that the network has not: {_some(strangers)}. Set "
            "--model.attention to the one that it was trained with."
        )


def _is_counter_left(key: str, fit: Fit) -> bool:
    """A BatchNorm's counter that the frozen one here has not."""
    return key.endswith("num_batches_tracked") and key.removeprefix(fit.prefix) in fit.left


def _newer_names(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    patterns = _OLDER_NAMES if hasattr(network, "backbone") and hasattr(network.backbone, "fpn") else ()
    renamed = {}
    for key, value in state.items():
        for pattern, new in patterns:
            key = pattern.sub(new, key)
        if isinstance(network, RetinaNet):
            # The convolutions alternated with activations that had numbers of their own.
            key = _OLDER_RETINANET.sub(lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}", key)
        renamed[key] = value
    return renamed


def _some(keys: Collection[str], shown: int = 3) -> str:
    more = f", … ({len(keys)} in all)" if len(keys) > shown else ""
    return ", ".join(list(keys)[:shown]) + more
