"""The average precision of the Pascal VOC challenges, from packed arrays.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2, and the
development kits of 2007 and 2012, which settle what the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnlab.metrics.packed_boxes import (
    BoolArray,
    FloatArray,
    IntArray,
    PackedDetections,
    PackedTruths,
    rows_by_class,
)

PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class VocScores:
    """Average precision of each class, in 0..1; NaN for a class without counted objects.

    Attributes:
        area: (K,), the area under the curve of precision over recall (VOC 2010 and later).
        eleven_point: (K,), the mean of the precisions at recalls 0.0, 0.1 … 1.0 (VOC 2007).
    """

    area: NDArray[np.float64]
    eleven_point: NDArray[np.float64]


def voc_scores(
    detections: PackedDetections, truths: PackedTruths, classes: int, threshold: float = 0.5
) -> VocScores:
    """Score like the development kit.

    The detections of a class over all images are sorted by descending score, the earlier row first among
    equals. Each is assigned to the object of its class and image with the highest IoU, the earlier one among
    equals. If that IoU is at least the threshold, the first detection of an object is a true positive and any
    further one a false positive; if the object is ignored, they are neither. Any other detection is a false
    positive. Unlike in COCO, a detection of a matched object never matches the second nearest.

    Like the kit's code, but unlike the paper, an IoU equal to the threshold is accepted. The kit's boxes
    include their last pixel, and it adds 1 to widths; boxes here are half-open, so that x1 - x0 is the same
    width.

    Args:
        detections: Rows in the order in which ties are to be broken.
        truths: The objects. Crowds, which VOC does not have, are treated as difficult objects.
        classes: K.
        threshold: Minimum IoU of a match.
    """
    match, overlap = best_matches(detections, truths)
    match = np.where(overlap >= threshold, match, -1)
    area = np.full(classes, np.nan)
    eleven_point = np.full(classes, np.nan)
    found = rows_by_class(detections.labels, classes)
    for k, real in enumerate(rows_by_class(truths.labels, classes)):
        positives = int((~truths.ignored[real]).sum())
        if positives:
            rows = found[k][np.argsort(-detections.scores[found[k]], kind="stable")]
            hits = true_positives(match[rows], truths.ignored)
            area[k], eleven_point[k] = _average_precisions(hits, positives)
    return VocScores(area=area, eleven_point=eleven_point)


def best_matches(
    detections: PackedDetections, truths: PackedTruths
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Row of the object of its image and class that each detection overlaps most, else -1, and IoU, (M,)."""
    size = int(max(detections.labels.max(initial=0), truths.labels.max(initial=0))) + 1
    wanted = detections.images.astype(np.int64) * size + detections.labels
    offered = truths.images.astype(np.int64) * size + truths.labels
    order = np.argsort(offered, kind="stable")
    first = np.searchsorted(offered[order], wanted, "left")
    counts = np.searchsorted(offered[order], wanted, "right") - first
    match = np.full(len(wanted), -1, np.int64)
    overlap = np.zeros(len(wanted))
    for rows in _portions(np.flatnonzero(counts), counts):
        starts = np.cumsum(counts[rows]) - counts[rows]
        within = np.arange(int(counts[rows].sum())) - np.repeat(starts, counts[rows])
        candidates = order[np.repeat(first[rows], counts[rows]) + within]
        iou = pair_iou(detections.boxes[np.repeat(rows, counts[rows])], truths.boxes[candidates])
        best = np.maximum.reduceat(iou, starts)
        is_best = np.flatnonzero(iou == np.repeat(best, counts[rows]))
        chosen = candidates[is_best[np.searchsorted(is_best, starts)]]
        match[rows], overlap[rows] = np.where(best > 0, chosen, -1), best
    return match, overlap


def _portions(rows: IntArray, counts: IntArray) -> Iterator[IntArray]:
    """Rows in chunks of limited numbers of pairs, to bound memory."""
    total = np.cumsum(counts[rows])
    limits = np.arange(PAIRS_AT_ONCE, int(total[-1]) if len(total) else 0, PAIRS_AT_ONCE)
    for portion in np.split(rows, np.searchsorted(total, limits)):
        if len(portion):
            yield portion


def pair_iou(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """IoU of boxes (P, 4) x0 y0 x1 y1, row by row, in float64; 0 where they do not overlap."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = sides.clip(0).prod(1)
    either = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - both
    iou: NDArray[np.float64] = np.divide(both, either, out=np.zeros_like(both), where=both > 0)
    return iou


def true_positives(match: IntArray, ignored: BoolArray) -> BoolArray:
    """Whether each detection is a true positive; those that are neither true nor false are left out.

    Detections, by descending score, are given by the row (M,) of their object, or -1.
    """
    aside: BoolArray = (match >= 0) & ignored[match]
    counting = match[~aside]
    objects, first = np.unique(counting, return_index=True)
    hits = np.zeros(len(counting), bool)
    hits[first[objects >= 0]] = True
    return hits


def _average_precisions(hits: BoolArray, positives: int) -> tuple[float, float]:
    """The area and the 11-point form, from true (True) and false positives by descending score."""
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    area = float(envelope[hits].sum()) / positives
    # Recall >= j / 10 in integers, so that 3 of 10 objects reach 0.3.
    places = np.searchsorted(10 * found, np.arange(11) * positives)
    eleven_point = float(envelope[places[places < len(hits)]].sum()) / 11
    return area, eleven_point
