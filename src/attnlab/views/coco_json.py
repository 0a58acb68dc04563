"""Detections kept compactly, and as COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass
class ImageDetections:
    """What was found in one image.

    Attributes:
        index: Position in the data set.
        boxes: float32 (M, 4), x0, y0, x1, y1 in pixels.
        scores: float32 (M,), in 0..1.
        labels: int32 (M,), classes from 0.
        broken: Detections that were left out since their box or score is not a finite number.
    """

    index: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    broken: int = 0

    @classmethod
    def of(cls, index: int, detections: Mapping[str, Tensor]) -> ImageDetections:
        """Copy an image's ``boxes`` (M, 4), ``scores`` (M,) and ``labels`` (M,) from the device."""
        boxes, scores, labels = (detections[key].detach().cpu() for key in ("boxes", "scores", "labels"))
        boxes, scores = boxes.float().reshape(-1, 4), scores.float()
        finite = boxes.isfinite().all(1) & scores.isfinite()
        return cls(
            index,
            boxes[finite].numpy(),
            scores[finite].numpy(),
            labels[finite].int().numpy(),
            int((~finite).sum()),
        )

    def entries(self, image_id: int, category_ids: Sequence[int]) -> Iterator[str]:
        """COCO's JSON of each detection: ``image_id``, ``category_id``, ``bbox`` (x, y, w, h), ``score``.

        Boxes are rounded to a thousandth of a pixel, scores to a millionth.

        Args:
            image_id: The image's id.
            category_ids: The category id of each class.
        """
        for (x0, y0, x1, y1), score, label in zip(
            self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
        ):
            box = f"[{_number(x0, 3)},{_number(y0, 3)},{_number(x1 - x0, 3)},{_number(y1 - y0, 3)}]"
            yield (
                f'{{"image_id":{image_id},"category_id":{category_ids[label]},"bbox":{box},'
                f'"score":{_number(score, 6)}}}'
            )


def _number(value: float, decimals: int) -> str:
    """The shortest text of a rounded number that JSON reads."""
    return repr(round(value, decimals))


def json_list(entries: Iterator[str]) -> Iterator[str]:
    """The text of a JSON list of the given entries, one a line."""
    before = "[\n"
    for entry in entries:
        yield before + entry
        before = ",\n"
    yield "\n]" if before == ",\n" else "[]"


def summed_up(images: Sequence[ImageDetections]) -> str:
    """How many detections in how many images, and how many were left out."""
    count, broken = sum(len(image.scores) for image in images), sum(image.broken for image in images)
    left_out = f" ({broken} more with infinite or undefined numbers left out)" if broken else ""
    return f"{count} detections in {len(images)} images{left_out}"


def json_text(value: Any) -> str:
    """A value as compact JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


@dataclass
class Predicted:
    """An image and what was found in it."""

    path: str
    width: int
    height: int
    found: ImageDetections


def coco_text(
    images: Sequence[Predicted], class_names: Sequence[str], category_ids: Sequence[int]
) -> Iterator[str]:
    """Pieces of COCO's JSON of the images with their detections as annotations.

    Args:
        images: In the order of the input.
        class_names: K names.
        category_ids: The category id of each class.
    """
    heads = (
        json_text(
            {
                "id": image.found.index + 1,
                "file_name": image.path,
                "width": image.width,
                "height": image.height,
            }
        )
        for image in images
    )
    categories = (
        json_text({"id": category_id, "name": name})
        for category_id, name in zip(category_ids, class_names, strict=True)
    )
    yield '{"info":{"description":"Detections by attnlab"},\n"images":'
    yield from json_list(heads)
    yield ',\n"categories":'
    yield from json_list(categories)
    yield ',\n"annotations":'
    yield from json_list(_annotations(images, category_ids))
    yield "}\n"


def _annotations(images: Sequence[Predicted], category_ids: Sequence[int]) -> Iterator[str]:
    """Each detection as an annotation with an id, counted from 1."""
    number = 0
    for image in images:
        entries = image.found.entries(image.found.index + 1, category_ids)
        for entry, (x0, y0, x1, y1) in zip(entries, image.found.boxes.tolist(), strict=True):
            number += 1
            area = round((x1 - x0) * (y1 - y0), 3)
            yield f'{{"id":{number},{entry[1:-1]},"area":{area!r},"iscrowd":0}}'
