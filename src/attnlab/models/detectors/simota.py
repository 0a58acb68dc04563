"""SimOTA: assignment of anchors to objects.

https://arxiv.org/abs/2107.08430, section 2.1 ("SimOTA"), a simplification of OTA,
https://arxiv.org/abs/2103.14259.

For each image, of the anchors a and the objects g, with predicted box b_a and class probabilities
p_a = sqrt(σ(class) · σ(objectness)):

    candidates anchors whose centre is in some object's box, or in the square of 2 · 2.5 strides around some
    object's centre cost(g, a) = BCE(p_a, onehot(class of g)) + 3 · (-log IoU(b_a, g))
                 + 100000 · [a is not in both the box and the square of g]
    k(g) = sum of the ten largest IoU(b_a, g) over the candidates, truncated to an integer, at least 1

The k(g) candidates of lowest cost are assigned to g; an anchor claimed by several objects gets the object of
lowest cost, among all objects of the image.

This is the algorithm of the paper's first release. Later releases of the authors' code use only the square of
2 · 1.5 strides for the candidates and the penalty, which ``centre_radius`` can only approximate.

All objects of all images are processed at once: T objects against A anchors. Memory is a few T x A matrices
of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlab.models.detectors.yolox_head import Predictions

CENTRE_RADIUS = 2.5
LARGEST_K = 10
IOU_WEIGHT = 3.0
OUTSIDE = 1e5


@dataclass(frozen=True)
class Truths:
    """The objects of a batch.

    Attributes:
        boxes: xyxy in pixels of the batch, float32, (T,4).
        labels: Class of each object, (T,).
        image: Index of each object's image in the batch, (T,).
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor


@dataclass(frozen=True)
class Assignment:
    """Anchors assigned to an object; each anchor of each image at most once.

    Attributes:
        image: Index of the image, (P,).
        anchor: Index of the anchor, (P,).
        truth: Index of the object among all of the batch, (P,).
        iou: IoU of the predicted box and the object's, (P,).
    """

    image: Tensor
    anchor: Tensor
    truth: Tensor
    iou: Tensor


@torch.no_grad()
def sim_ota(
    predictions: Predictions, boxes: Tensor, truths: Truths, centre_radius: float = CENTRE_RADIUS
) -> Assignment:
    """Assign anchors to the objects of a batch, sorted by image and anchor; empty without objects.

    Args:
        predictions: The head's, for B images and A anchors.
        boxes: The predicted boxes, xyxy in pixels of the batch, (B,A,4).
        truths: The objects.
        centre_radius: Half the side of the square around an object's centre, in strides.
    """
    image = truths.image
    if not len(image):
        none = image.new_zeros(0)
        return Assignment(none, none, none, boxes.new_zeros(0))
    inside, centred = _geometry(predictions, truths.boxes, centre_radius)
    # Whether an anchor is near any object of its image, (B,A), and the same for each object, (T,A).
    near = image.new_zeros(boxes.shape[:2], dtype=torch.int32).index_add_(0, image, (inside | centred).int())
    candidate = near > 0
    of_image = candidate[image]
    overlaps = iou(
        [side[image] for side in boxes.unbind(-1)], [side[:, None] for side in truths.boxes.unbind(-1)]
    )
    overlaps = overlaps.masked_fill(~of_image, 0.0)
    cost = _class_cost(predictions, candidate, truths) - IOU_WEIGHT * (overlaps + 1e-8).log()
    cost = (cost + OUTSIDE * ~(inside & centred)).masked_fill(~of_image, torch.inf)

    largest = min(LARGEST_K, cost.shape[1])
    k = overlaps.topk(largest, dim=1).values.sum(1).int().clamp(min=1)
    cheapest = cost.topk(largest, dim=1, largest=False)
    chosen = (torch.arange(largest, device=k.device) < k[:, None]) & cheapest.values.isfinite()
    truth = chosen.nonzero()[:, 0]
    anchor = cheapest.indices[chosen]
    image, anchor, truth = _one_truth_an_anchor(cost, image, anchor, truth)
    return Assignment(image, anchor, truth, overlaps[truth, anchor])


def iou(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """IoU of boxes given as x0, y0, x1 and y1, which are broadcast against each other."""
    ax0, ay0, ax1, ay1 = first
    bx0, by0, bx1, by1 = second
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    common = width * height
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - common
    return common / union.clamp(min=1e-9)


def _geometry(predictions: Predictions, truths: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Whether each anchor's centre is in each object's box, and in the square around its centre: (T,A)."""
    x, y = predictions.anchors.centres.unbind(-1)
    x0, y0, x1, y1 = (side[:, None] for side in truths.unbind(-1))
    inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    reach = radius * predictions.anchors.strides[:, 0]
    centred = ((x - (x0 + x1) / 2).abs() < reach) & ((y - (y0 + y1) / 2).abs() < reach)
    return inside, centred


def _class_cost(predictions: Predictions, candidate: Tensor, truths: Truths) -> Tensor:
    """Binary cross-entropy of each anchor's classes with each object's class, (T,A); 0 for no candidates.

    The sum over the classes is, except for one term, the same for all objects: it is computed once per
    anchor.
    """
    classes, objectness = predictions.classes[candidate], predictions.objectness[candidate]  # (M,K), (M,)
    per_anchor = torch.zeros_like(predictions.objectness)
    background = _log_one_minus((classes.sigmoid() * objectness.sigmoid()[:, None]).sqrt())
    per_anchor[candidate] = -background.sum(1)
    logits = predictions.classes.transpose(1, 2)[truths.image, truths.labels]  # (T,A)
    log_p = (F.logsigmoid(logits) + F.logsigmoid(predictions.objectness)[truths.image]) / 2
    own = _log_one_minus(log_p.exp()) - log_p.clamp(min=-100)
    return per_anchor[truths.image] + own


def _log_one_minus(p: Tensor) -> Tensor:
    """log(1 - p), at least -100, as in PyTorch's binary cross-entropy."""
    return torch.log1p(-p).clamp(min=-100)


def _one_truth_an_anchor(
    cost: Tensor, image_of: Tensor, anchor: Tensor, truth: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, anchor and object of the pairs (anchor, truth), where each anchor keeps one object."""
    anchors = cost.shape[1]
    place, inverse, count = torch.unique(
        image_of[truth] * anchors + anchor, return_inverse=True, return_counts=True
    )
    image, anchor = place // anchors, place % anchors
    kept = torch.zeros_like(place).scatter_(0, inverse, truth)
    wanted = count > 1
    elsewhere = image_of[:, None] != image[wanted]
    kept[wanted] = cost[:, anchor[wanted]].masked_fill(elsewhere, torch.inf).argmin(0)
    return image, anchor, kept
