"""Pretrained weights of detectors: of the whole network, whose classes may be others, or of its backbone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from attnlab.errors import AttnlabError
from attnlab.models.detectors import detector_options
from attnlab.models.detectors.ssdlite import SSDLiteTrunk
from attnlab.models.detectors.yolox import YOLOX
from attnlab.models.weights import (
    YOLOX_FILES,
    WeightsReport,
    compare,
    library_classifier_weights,
    load_backbone,
    some,
)

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
# Beginnings of keys of a YOLOX, theirs and ours. Megvii's own files, and those of the PyTorch port that ELA's
# authors started from, share their names; only attention has further ones.
_YOLOX_MODULES = (
    ("backbone.backbone.stem.", "backbone.stem."),
    ("backbone.backbone.dark", "backbone.stage"),
    ("backbone.lateral_conv0.", "neck.lateral5."),
    ("backbone.reduce_conv1.", "neck.lateral4."),
    ("backbone.C3_p4.", "neck.top_down."),
    ("backbone.C3_p3.", "neck.outputs.p3."),
    ("backbone.C3_n3.", "neck.outputs.n4."),
    ("backbone.C3_n4.", "neck.outputs.n5."),
    ("backbone.bu_conv2.", "neck.down3."),
    ("backbone.bu_conv1.", "neck.down4."),
    ("head.stems.", "head.stems."),
    ("head.cls_convs.", "head.class_towers."),
    ("head.reg_convs.", "head.box_towers."),
    ("head.cls_preds.", "head.class_logits."),
    ("head.reg_preds.", "head.box_offsets."),
    ("head.obj_preds.", "head.objectness."),
)
# Parts of such keys.
_PARTS = ((".bn.", ".norm."), (".dconv.", ".depthwise."), (".pconv.", ".pointwise."), (".m.", ".blocks."))
# ELA's authors: one module a channel count (64, 128, 256; those of 512 and 1024 are never called), and the
# sites that share it.
_YOLOX_ATTENTION = {
    "feat06": ("neck.inputs.c3",),
    "feat1": ("neck.inputs.c4", "neck.merge.p3", "neck.merge.n4"),
    "feat2": ("neck.inputs.c5", "neck.merge.p4", "neck.merge.n5"),
    "feat5": (),
    "feat10": (),
}
_YOLOX_ATTENTION_KEY = re.compile(r"backbone\.(feat\d+)\.(conv|gn)\.(.+)")


def library_detector_weights(network: str, options: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """ImageNet weights, torchvision's, of the network that a detector's backbone is part of.

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
) -> WeightsReport:
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
            f"{some(state)}, and here they are {some(network.state_dict())}."
        )
    is_whole = len(whole.fitting) > len(part.fitting)
    fit = whole if is_whole else part
    # Attention that was trained with the other weights cannot be left out without a word.
    if strangers := [key for key in fit.left if _ATTENTION.search(key)]:
        raise AttnlabError(
            f"{source} has weights of attention modules that the network has not: {some(strangers)}. Set "
            "--model.attention to the one that it was trained with."
        )
    # Counters of BatchNorms that are frozen here, and have none.
    counters = {key for key in fit.left if key.endswith("num_batches_tracked")}
    if is_whole:
        of_classes = {key: shapes for key, shapes in fit.shapes.items() if _CLASS_LAYERS.match(key)}
        restarted = [key for key, (theirs, ours) in of_classes.items() if theirs[1:] == ours[1:]]
        fit = fit.without(restarted)
        stray = [key for key in fit.left if key not in counters]
        choice = "detector they were trained with, with the same options"
        fit.load(network, source, stray, "the detector ", choice)
        return WeightsReport(source, "detector", len(fit.fitting), fit.new, restarted=restarted)
    kept = {key: value for key, value in state.items() if key.removeprefix(fit.prefix) not in counters}
    report = load_backbone(backbone, kept, source, new_in_backbone)
    anew = [f"{trunk}.{key}" for key in report.new]
    anew += sorted(key for key in new if not key.startswith(f"{trunk}."))
    return replace(report, new=anew)


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


def rename_yolox_keys(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Put the weights of a YOLOX of another project under our names, in a new dict.

    Known are Megvii's names, alone or under ``model`` in a checkpoint, and those that ELA's authors added for
    attention in the neck, whose modules come once for each site that shares them. Keys that are ours, or
    nobody's, stay as they are. Megvii's weights need ``pixels: bgr255``.
    """
    model = state.get("model")
    renamed: dict[str, Tensor] = {}
    for key, tensor in (model if isinstance(model, Mapping) else state).items():
        attention = _YOLOX_ATTENTION_KEY.fullmatch(key)
        if attention and attention[1] in _YOLOX_ATTENTION:
            part = "norm" if attention[2] == "gn" else "conv"
            for site in _YOLOX_ATTENTION[attention[1]]:
                renamed[f"{site}.attention.{part}.{attention[3]}"] = tensor
            continue
        for theirs, ours in _YOLOX_MODULES:
            if key.startswith(theirs):
                key = ours + key.removeprefix(theirs)
                for part, new in _PARTS:
                    key = key.replace(part, new)
                break
        renamed[key] = tensor
    return renamed
