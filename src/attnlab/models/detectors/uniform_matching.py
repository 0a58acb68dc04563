"""Uniform matching of YOLOF (arXiv 2103.09460, section 4.2): equally many positive anchors per object.

With anchors on one map, many overlap large objects sufficiently, but none small ones. Here each object gets
the k anchors nearest to it and, as in the authors' code, the k anchors whose predicted boxes are nearest,
whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou

BACKGROUND = -1
IGNORED = -2


@dataclass(frozen=True)
class UniformAssignment:
    """The targets of an image's anchors.

    Attributes:
        labels: Class of each anchor (R,), `BACKGROUND` or `IGNORED`.
        anchors: Index of the anchor of each positive pair (P,).
        truths: Index of the object of each positive pair (P,).
    """

    labels: Tensor
    anchors: Tensor
    truths: Tensor


@torch.no_grad()
def match_uniformly(
    anchors: Tensor,
    predicted: Tensor,
    boxes: Tensor,
    labels: Tensor,
    matches: int = 4,
    positive_threshold: float = 0.15,
    negative_threshold: float = 0.7,
) -> UniformAssignment:
    """Assign the objects of one image to anchors.

    The distance of two boxes is the L1 distance of (centre x, centre y, width, height) in pixels. A pair of
    an object and an anchor whose IoU is below the positive threshold is dropped, and its anchor ignored
    unless another pair makes it positive. An anchor that is not positive is ignored if its predicted box has
    an IoU above the negative threshold with an object. An anchor paired with several objects gets the class
    of the one it overlaps most; in the published code this is arbitrary. A pair found both by the anchor and
    by its prediction appears twice.

    Args:
        anchors: Anchors (R, 4), xyxy in pixels.
        predicted: The box predicted from each (R, 4), xyxy in pixels.
        boxes: Objects (N, 4), xyxy in pixels; N may be 0.
        labels: Their classes (N,), int64.
        matches: The number k of anchors, and of predicted boxes, per object.
        positive_threshold: IoU of anchor and object, 0 to 1.
        negative_threshold: IoU of predicted box and object, 0 to 1.
    """
    nearest = torch.cat([_nearest(anchors, boxes, matches), _nearest(predicted, boxes, matches)])
    truths = torch.arange(len(boxes), device=boxes.device).expand_as(nearest).flatten()
    positives = nearest.flatten()
    overlap = box_iou(anchors, boxes)[positives, truths]
    # A column of zeros, so that there is a maximum even without objects.
    best_predicted = F.pad(box_iou(predicted, boxes), (0, 1)).amax(dim=1)

    assigned = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    assigned[best_predicted > negative_threshold] = IGNORED
    kept = overlap >= positive_threshold
    assigned[positives[~kept]] = IGNORED
    positives, truths, overlap = positives[kept], truths[kept], overlap[kept]
    best = overlap.new_zeros(len(anchors)).scatter_reduce(0, positives, overlap, "amax")
    wins = overlap == best[positives]
    classes = torch.full_like(assigned, BACKGROUND)
    classes = classes.scatter_reduce(0, positives[wins], labels[truths[wins]], "amax")
    return UniformAssignment(torch.where(classes >= 0, classes, assigned), positives, truths)


def _nearest(candidates: Tensor, boxes: Tensor, count: int) -> Tensor:
    """Indices (k, N) of the candidates nearest to each box."""
    distances = torch.cdist(
        box_convert(candidates, "xyxy", "cxcywh"), box_convert(boxes, "xyxy", "cxcywh"), p=1
    )
    return distances.topk(min(count, len(candidates)), dim=0, largest=False).indices
