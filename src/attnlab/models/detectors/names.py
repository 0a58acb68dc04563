"""Renames tensors from other projects and older versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

YOLOX_FILES = (
    "COCO-trained YOLOX weights are available on GitHub: "
    "https://github.com/bubbliiiing/yolox-pytorch/releases/tag/v1.0 (yolox_nano.pth and other sizes, of a "
    "PyTorch port), and https://github.com/Megvii-BaseDetection/YOLOX/releases/tag/0.1.1rc0 (of YOLOX's "
    "authors; need --model.network_options.pixels bgr255)."
)
# Names in torchvision's published files -> names in its networks since version 0.13.
_OLDER_NAMES = (
    (re.compile(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
_OLDER_RETINANET = re.compile(r"(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)$")
# Prefixes of YOLOX keys, theirs and ours. Megvii's files and those of the PyTorch port that ELA's authors
# used share their names, except for attention.
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
# ELA's authors: one module per channel count (64, 128, 256; those of 512 and 1024 are never called), and the
# sites that share it.
_YOLOX_ATTENTION = {
    "feat06": ("neck.inputs.c3",),
    "feat1": ("neck.inputs.c4", "neck.merge.p3", "neck.merge.n4"),
    "feat2": ("neck.inputs.c5", "neck.merge.p4", "neck.merge.n5"),
    "feat5": (),
    "feat10": (),
}
_YOLOX_ATTENTION_KEY = re.compile(r"backbone\.(feat\d+)\.(conv|gn)\.(.+)")


def newer_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of a torchvision detector from before version 0.13, in a new dict."""
    renamed = {}
    for key, value in state.items():
        for pattern, new in _OLDER_NAMES:
            key = pattern.sub(new, key)
        renamed[key] = value
    return renamed


def newer_retinanet_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for RetinaNet, whose convolutions used to alternate with numbered activations."""
    renamed = newer_names(state)
    return {
        _OLDER_RETINANET.sub(lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}", key): value
        for key, value in renamed.items()
    }


def rename_yolox_keys(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the weights of another project's YOLOX, in a new dict.

    Knows Megvii's names, alone or under ``model`` in a checkpoint, and those that ELA's authors added for
    attention in the neck; their modules are copied to each site that shares them. Other keys are unchanged.
    Megvii's weights need ``pixels: bgr255``.
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
