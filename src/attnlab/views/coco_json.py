"""Detections kept compactly, and as COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass
class ImageDetections:
    """The detections in one image.

    Attributes:
        boxes: float32 (M, 4), x0, y0, x1, y1 in pixels.
        scores: float32 (M,), in 0..1.
        labels: int32 (M,), classes from 0.
        broken: Number of detections dropped because their box or score is not finite.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    broken: int = 0

    @classmethod
    def of(cls, detections: Mapping[str, Tensor]) -> ImageDetections:
        """Copy an image's ``boxes`` (M, 4), ``scores`` (M,) and ``labels`` (M,) from the device."""
        boxes, scores, labels = (detections[key].detach().cpu() for key in ("boxes", "scores", "labels"))
        boxes, scores = boxes.float().reshape(-1, 4), scores.float()
        finite = boxes.isfinite().all(1) & scores.isfinite()
        kept = (boxes[finite].numpy(), scores[finite].numpy(), labels[finite].int().numpy())
        return cls(*kept, broken=int((~finite).sum()))

    def entries(self, image_id: int, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """COCO's entry of each detection: ``image_id``, ``category_id``, ``bbox`` (x, y, w, h), ``score``.

        Boxes are rounded to a thousandth of a pixel, scores to a millionth. Classes get the given ids.
        """
        found = (self.boxes.tolist(), self.scores.tolist(), self.labels.tolist())
        for (x0, y0, x1, y1), score, label in zip(*found, strict=True):
            yield {
                "image_id": image_id,
                "category_id": category_ids[label],
                "bbox": [round(x0, 3), round(y0, 3), round(x1 - x0, 3), round(y1 - y0, 3)],
                "score": round(score, 6),
            }


def json_list(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The text of a JSON list of the entries, one per line."""
    before = "[\n"
    for entry in entries:
        yield before + COMPACT.encode(entry)
        before = ",\n"
    yield "\n]" if before == ",\n" else "[]"


def summed_up(images: Sequence[ImageDetections]) -> str:
    """The numbers of detections, images, and dropped detections, as text."""
    count, broken = sum(len(image.scores) for image in images), sum(image.broken for image in images)
    left_out = f" ({broken} with NaN or infinite values dropped)" if broken else ""
    return f"{count} detections in {len(images)} images{left_out}"


def coco_text(
    images: Sequence[tuple[dict[str, Any], ImageDetections]],
    class_names: Sequence[str],
    category_ids: Sequence[int],
) -> Iterator[str]:
    """Pieces of a COCO JSON of images, each an entry (``id`` …) and its detections."""
    classes = zip(category_ids, class_names, strict=True)
    lists: dict[str, Iterable[dict[str, Any]]] = {
        "images": (image for image, _ in images),
        "categories": ({"id": category_id, "name": name} for category_id, name in classes),
        "annotations": _annotations(images, category_ids),
    }
    yield '{"info":{"description":"Detections by attnlab"}'
    for name, entries in lists.items():
        yield f',\n"{name}":'
        yield from json_list(entries)
    yield "}\n"


def _annotations(
    images: Sequence[tuple[dict[str, Any], ImageDetections]], category_ids: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Each detection as an annotation with an id, counted from 1."""
    number = 0
    for image, found in images:
        entries = found.entries(image["id"], category_ids)
        for entry, (x0, y0, x1, y1) in zip(entries, found.boxes.tolist(), strict=True):
            number += 1
            yield {"id": number, **entry, "area": round((x1 - x0) * (y1 - y0), 3), "iscrowd": 0}
