"""What YOLOX learns from.

https://arxiv.org/abs/2107.08430, section 2.1; the weights are those of the authors' code.

With N assigned anchors in the batch (at least 1), sums over them, and IoU of the predicted and the true box:

    iou        = 5 · Σ (1 - IoU²) / N
    objectness = Σ over all anchors of BCE(objectness, assigned or not) / N
    class      = Σ BCE(classes, onehot(class) · IoU) / N
    l1         = Σ |t - t*| / N            in the last part of the training only
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlab.models.detectors.simota import CENTRE_RADIUS, Truths, iou, sim_ota
from attnlab.models.detectors.yolox_head import Predictions

BOX_WEIGHT = 5.0


def yolox_losses(
    predictions: Predictions,
    targets: Sequence[Mapping[str, Any]],
    l1: bool = False,
    centre_radius: float = CENTRE_RADIUS,
) -> dict[str, Tensor]:
    """The losses of a batch, to be summed.

    Args:
        predictions: The head's.
        targets: One dict an image: ``boxes`` xyxy in pixels of the batch, ``labels``.
        l1: Whether the L1 loss of the offsets is among them.
        centre_radius: SimOTA's, in strides.

    Returns:
        ``iou``, ``objectness``, ``class`` and, if asked for, ``l1``: scalars.
    """
    truths = collect(targets, predictions.offsets)
    boxes = predictions.anchors.decode(predictions.offsets)
    assigned = sim_ota(predictions, boxes, truths, centre_radius)
    at = (assigned.image, assigned.anchor)
    count = max(len(assigned.truth), 1)
    true_boxes = truths.boxes[assigned.truth]

    overlaps = iou(boxes[at].unbind(-1), true_boxes.unbind(-1))
    objectness = torch.zeros_like(predictions.objectness)
    objectness[at] = 1.0
    classes = predictions.classes[at]
    class_targets = torch.zeros_like(classes)
    class_targets[torch.arange(len(classes), device=classes.device), truths.labels[assigned.truth]] = (
        assigned.iou
    )
    losses = {
        "iou": BOX_WEIGHT * (1 - overlaps.square()).sum() / count,
        "objectness": _bce(predictions.objectness, objectness) / count,
        "class": _bce(classes, class_targets) / count,
    }
    if l1:
        wanted = predictions.anchors[assigned.anchor].encode(true_boxes)
        losses["l1"] = (predictions.offsets[at] - wanted).abs().sum() / count
    return losses


def collect(targets: Sequence[Mapping[str, Any]], like: Tensor) -> Truths:
    """The objects of all images, on the device of ``like``, as float32 boxes and int64 labels."""
    counts = torch.tensor([len(target["labels"]) for target in targets])
    return Truths(
        boxes=torch.cat([target["boxes"] for target in targets]).to(like.device, torch.float32).view(-1, 4),
        labels=torch.cat([target["labels"] for target in targets]).to(like.device, torch.int64),
        image=torch.arange(len(targets)).repeat_interleave(counts).to(like.device),
    )


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
