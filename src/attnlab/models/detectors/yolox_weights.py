"""YOLOX weights of other projects under our names.

Megvii's own files, and those of the PyTorch port that ELA's authors started from, share their names. So one
map serves all; only attention has further ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_MODULES = (
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
    ("head.cls_convs.", "head.class_towers."),
    ("head.reg_convs.", "head.box_towers."),
    ("head.cls_preds.", "head.class_logits."),
    ("head.reg_preds.", "head.box_offsets."),
    ("head.obj_preds.", "head.objectness."),
)
"""Beginnings of keys, theirs and ours."""

_LAYERS = ((".bn.", ".norm."), (".dconv.", ".depthwise."), (".pconv.", ".pointwise."), (".m.", ".blocks."))
"""Parts of keys, within what `_MODULES` names."""

_ATTENTION = {
    "feat06": ("neck.inputs.c3",),
    "feat1": ("neck.inputs.c4", "neck.merge.p3", "neck.merge.n4"),
    "feat2": ("neck.inputs.c5", "neck.merge.p4", "neck.merge.n5"),
    "feat5": (),
    "feat10": (),
}
"""ELA's authors: one module a channel count (64, 128, 256; those of 512 and 1024 are never called)."""

_ATTENTION_KEY = re.compile(r"backbone\.(feat\d+)\.(conv|gn)\.(.+)")


def rename_yolox_keys(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Put the weights of a YOLOX of another project under our names.

    Known are Megvii's names, alone or under ``model`` in a checkpoint, and those that ELA's authors added for
    attention in the neck. Keys that are ours, or nobody's, stay as they are. A class count is not looked at,
    nor are values; Megvii's weights need ``pixels: bgr255``.

    Args:
        state: A state dict, or a checkpoint with one under ``model``.

    Returns:
        The tensors under our names, in a new dict. ELA's authors' modules come once for each site that shares
        them; those that they do not use are left out.
    """
    model = state.get("model")
    renamed: dict[str, Tensor] = {}
    for key, tensor in (model if isinstance(model, Mapping) else state).items():
        attention = _ATTENTION_KEY.fullmatch(key)
        if attention and attention[1] in _ATTENTION:
            part = "norm" if attention[2] == "gn" else "conv"
            for site in _ATTENTION[attention[1]]:
                renamed[f"{site}.attention.{part}.{attention[3]}"] = tensor
        else:
            renamed[_rename(key)] = tensor
    return renamed


def _rename(key: str) -> str:
    if key.startswith("head.stems."):
        return key.replace(".bn.", ".norm.")
    for theirs, ours in _MODULES:
        if key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
            for part, new in _LAYERS:
                key = key.replace(part, new)
            break
    return key
