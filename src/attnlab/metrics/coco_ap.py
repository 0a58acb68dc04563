"""The scores of the COCO detection challenge, from packed arrays.

Protocol: https://cocodataset.org/#detection-eval (Lin et al., ECCV 2014). The matching of boxes and the
curves are faster-coco-eval's, in C++.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]
from numpy.typing import NDArray

from attnlab.metrics.packed_boxes import FloatArray, IntArray, PackedDetections, PackedTruths, rows_by_class

THRESHOLDS, RECALLS, AREAS, LIMITS = 10, 101, 4, 3


@dataclass(frozen=True)
class CocoScores:
    """Results of COCO's evaluation.

    Attributes:
        numbers: The 12 numbers AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl, in 0..1; NaN without
            ground truth for it.
        ap: (K,), AP of each class over the IoU thresholds 0.50 to 0.95; NaN without ground truth.
        ap50: (K,), AP of each class at the IoU threshold 0.50; NaN without ground truth.
        precision: (10, 101, K), the highest precision at each recall 0.00, 0.01 … 1.00 or beyond, by IoU
            threshold; all areas, 100 detections; -1 for classes without ground truth.
    """

    numbers: dict[str, float]
    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]
    precision: NDArray[np.float64]


def coco_scores(detections: PackedDetections, truths: PackedTruths, classes: int) -> CocoScores:
    """Score as pycocotools does, class after class.

    Per image and class, the 100 detections with the highest scores are used; among equal scores the earlier
    row ranks first, also across images. A crowd may be matched by any number of detections, with the
    intersection over the detection's area as IoU; neither it nor they count. Difficult objects are treated as
    crowds, as in the usual conversions of Pascal VOC to COCO's format. An object is small, medium or large by
    the annotation's area (limits 32^2 and 96^2 square pixels, inclusive on both sides).

    One class at a time, since the evaluator needs a dictionary per box, freed before the next class.

    Args:
        detections: Rows in tie-breaking order.
        truths: The objects.
        classes: K.
    """
    precision = np.full((THRESHOLDS, RECALLS, classes, AREAS, LIMITS), -1.0)
    recall = np.full((THRESHOLDS, classes, AREAS, LIMITS), -1.0)
    found = rows_by_class(detections.labels, classes)
    for k, real in enumerate(rows_by_class(truths.labels, classes)):
        if truths.ignored[real].all():
            continue
        # Garbage collection would scan all the dictionaries repeatedly while they are made.
        collected = gc.isenabled()
        gc.disable()
        try:
            curves = _evaluate(detections, found[k], truths, real)
        finally:
            if collected:
                gc.enable()
        precision[:, :, k], recall[:, k] = curves["precision"][:, :, 0], curves["recall"][:, 0]

    everything = precision[..., 0, 2]
    areas = {"s": 1, "m": 2, "l": 3}
    numbers = {
        "AP": _mean(everything),
        "AP50": _mean(everything[0]),
        "AP75": _mean(everything[5]),
        **{f"AP{name}": _mean(precision[..., area, 2]) for name, area in areas.items()},
        **{f"AR{limit}": _mean(recall[..., 0, m]) for m, limit in enumerate((1, 10, 100))},
        **{f"AR{name}": _mean(recall[..., area, 2]) for name, area in areas.items()},
    }
    return CocoScores(
        numbers=numbers,
        ap=np.array([_mean(everything[:, :, k]) for k in range(classes)]),
        ap50=np.array([_mean(everything[0, :, k]) for k in range(classes)]),
        precision=everything.copy(),
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the defined values; NaN if there are none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")


def _evaluate(
    detections: PackedDetections, found: IntArray, truths: PackedTruths, real: IntArray
) -> dict[str, Any]:
    """Precision (10, 101, 1, 4, 3) and recall (10, 1, 4, 3) of these rows' single class."""
    objects = _annotations(
        truths.boxes[real], truths.images[real], truths.area[real], iscrowd=truths.ignored[real].astype(int)
    )
    guesses = _annotations(
        detections.boxes[found],
        detections.images[found],
        score=detections.scores[found].astype(np.float64),
    )
    images = np.union1d(truths.images[real], detections.images[found])
    frame = {"images": [{"id": image} for image in images.tolist()], "categories": [{"id": 1}]}
    evaluator = COCOeval_faster(
        COCO({**frame, "annotations": objects}), COCO({**frame, "annotations": guesses}), "bbox"
    )
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval


def _annotations(
    boxes: FloatArray, images: IntArray, area: FloatArray | None = None, **more: NDArray[Any]
) -> list[dict[str, Any]]:
    """One dictionary per box, numbered from 1 as 0 means 'no match'. The default area is the box's."""
    exact = boxes.astype(np.float64)
    exact[:, 2:] -= exact[:, :2]
    areas = exact[:, 2:].clip(0).prod(1) if area is None else area.astype(np.float64)
    (name, values), *_ = more.items()
    rows = zip(exact.tolist(), areas.tolist(), images.tolist(), values.tolist(), strict=True)
    return [
        {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": size, name: value}
        for number, (box, size, image, value) in enumerate(rows, start=1)
    ]
