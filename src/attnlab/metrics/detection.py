"""Detection metrics over a whole data set, by the protocols of COCO and Pascal VOC."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from attnlab.errors import AttnlabError
from attnlab.metrics.coco_ap import coco_scores
from attnlab.metrics.packed_boxes import PackedDetections, PackedTruths
from attnlab.metrics.voc_ap import voc_scores


@dataclass(frozen=True)
class ClassAP:
    """Average precision of one class, in 0..1.

    Attributes:
        ap: COCO's, mean over the IoU thresholds 0.50 to 0.95.
        ap50: COCO's at IoU 0.50.
        voc_ap50: Pascal VOC's at IoU 0.50, area form.
        truths: Number of the class's objects, without crowd and difficult ones.
    """

    ap: float
    ap50: float
    voc_ap50: float
    truths: int


@dataclass(frozen=True)
class DetectionResult:
    """Scores of one pass over a data set.

    Attributes:
        coco: COCO's 12 metrics AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl, in 0..1; NaN without
            objects for it.
        voc: Pascal VOC's ``AP50`` (area form, 2010 and later) and ``AP50_11point`` (2007), in 0..1: means
            over the classes with objects; NaN without any.
        per_class: Scores of the classes with counted objects, by class name.
        absent: Classes without, which are left out of every mean.
        images: Number of images scored.
        truths: Number of objects, without crowd and difficult ones.
        detections: Number of detections scored.
        precision: float64 (10, 101, K), COCO's precision by IoU threshold 0.50, 0.55 … 0.95 and recall 0.00,
            0.01 … 1.00, for all areas and 100 detections; -1 for absent classes.
    """

    coco: dict[str, float]
    voc: dict[str, float]
    per_class: dict[str, ClassAP]
    absent: list[str]
    images: int
    truths: int
    detections: int
    precision: NDArray[np.float64]


class _Image(NamedTuple):
    """An image's data: the fields of `PackedDetections` and `PackedTruths`."""

    id: int
    found: tuple[NDArray[Any], ...]
    real: tuple[NDArray[Any], ...]


class DetectionScores:
    """COCO's 12 metrics and Pascal VOC's AP50, collected per step and computed once.

    The data are NumPy arrays, 24 bytes per detection and 25 per true box, unaffected by precision and device.
    ``result`` gathers them on the first process, sorts them by image id, scores them and broadcasts the
    result, which depends neither on batch size nor on image order nor on the number of processes.

    Detections with a NaN or infinite coordinate or score are dropped. In both protocols crowd and difficult
    objects are neither found nor missed; in COCO's, difficult ones count as crowds.

    Args:
        class_names: Name of each class, in the order of its label.
    """

    def __init__(self, class_names: list[str]) -> None:
        self.class_names = list(class_names)
        self._images: list[_Image] = []

    def reset(self) -> None:
        """Clear the collected data."""
        self._images = []

    def merge_state(self, other: DetectionScores) -> None:
        """Add another one's collected data."""
        self._images += other._images

    def update(self, detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch.

        Args:
            detections: For each image ``boxes`` (M, 4) x0 y0 x1 y1 in pixels, ``scores`` (M,) and ``labels``
                (M,) in 0..K-1; arrays, or tensors on any device, of any float and integer type.
            targets: For each image ``boxes`` (N, 4), ``labels`` (N,), ``image_id`` and optionally ``iscrowd``
                (N,), ``difficult`` (N,) and ``area`` (N,) in square pixels (default: the box's).

        Raises:
            AttnlabError: The numbers of images or boxes differ, a target has no boxes, or a label is outside
                0..K-1.
        """
        if len(detections) != len(targets):
            raise AttnlabError(
                f"Detections of {len(detections)} images cannot be scored on {len(targets)} targets."
            )
        self._images += [self._image(one, target) for one, target in zip(detections, targets, strict=True)]

    def _image(self, detections: Mapping[str, Any], target: Mapping[str, Any]) -> _Image:
        image = int(target["image_id"])
        if "boxes" not in target or "labels" not in target:
            raise AttnlabError(
                f"Image {image} has no annotations to score on. Evaluate a split that has annotations."
            )
        guesses = _array(detections["labels"], np.int32)
        found = _array(detections["boxes"]), _array(detections["scores"]), guesses
        boxes, labels = _array(target["boxes"]), _array(target["labels"], np.int32)
        for own, *others in (found, (boxes, labels)):
            counts = {len(other) for other in others}
            if counts != {len(own)}:
                raise AttnlabError(
                    f"Image {image} has {len(own)} boxes but {max(counts - {len(own)})} scores or labels; "
                    "each box needs one of each."
                )
        for kind, ones in (("Detection", guesses), ("Truth", labels)):
            wrong = ones[(ones < 0) | (ones >= len(self.class_names))]
            if len(wrong):
                raise AttnlabError(
                    f"{kind} of class {wrong[0]} in image {image}: "
                    f"labels must be in 0..{len(self.class_names) - 1}."
                )
        boxes = boxes.reshape(-1, 4)
        area = _array(target["area"]) if "area" in target else (boxes[:, 2:] - boxes[:, :2]).prod(1)
        ignored = np.zeros(len(labels), bool)
        for key in ("iscrowd", "difficult"):
            if key in target:
                ignored |= _array(target[key], bool)
        return _Image(image, (found[0].reshape(-1, 4), *found[1:]), (boxes, labels, area, ignored))

    def compute(self) -> dict[str, Tensor]:
        """COCO's 12 metrics and ``voc/AP50``, ``voc/AP50_11point``; must be called on every process."""
        result = self.result()
        named = {**result.coco, **{f"voc/{name}": value for name, value in result.voc.items()}}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in named.items()}

    def result(self) -> DetectionResult:
        """Scores over everything seen so far, on all processes together.

        Must be called on every process. The first one computes, the others wait.

        Raises:
            AttnlabError: An image was given twice.
        """
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return _scored(self._images, self.class_names)
        first = dist.get_rank() == 0
        shares: list[Any] | None = [None] * dist.get_world_size() if first else None
        dist.gather_object(self._images, shares, dst=0)
        answer: list[Any] = [None]
        if shares is not None:
            try:
                answer = [_scored([image for share in shares for image in share], self.class_names)]
            except AttnlabError as error:
                answer = [error]
        dist.broadcast_object_list(answer, src=0)
        if isinstance(answer[0], AttnlabError):
            raise answer[0]
        return answer[0]


def _array(values: Any, dtype: type = np.float32) -> NDArray[Any]:
    """A tensor or array as an array."""
    if isinstance(values, Tensor):
        # NumPy does not know bfloat16.
        values = (values.float() if values.is_floating_point() else values).detach().cpu().numpy()
    return np.asarray(values).astype(dtype)


def _scored(images: Sequence[_Image], class_names: list[str]) -> DetectionResult:
    images = sorted(images, key=lambda image: image.id)
    for before, image in itertools.pairwise(images):
        if before.id == image.id:
            raise AttnlabError(
                f"Image {image.id} was scored twice. Each image_id may occur only once between resets."
            )
    boxes, scores, labels, numbers = _joined([image.found for image in images], _NO_DETECTION)
    finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
    detections = PackedDetections(boxes[finite], scores[finite], labels[finite], numbers[finite])
    boxes, labels, area, ignored, numbers = _joined([image.real for image in images], _NO_TRUTH)
    truths = PackedTruths(boxes, labels, numbers, area, ignored)

    classes = len(class_names)
    coco = coco_scores(detections, truths, classes)
    voc = voc_scores(detections, truths, classes)
    counts = np.bincount(truths.labels[~truths.ignored], minlength=classes)
    present = np.flatnonzero(counts)
    per_class = {
        class_names[k]: ClassAP(float(coco.ap[k]), float(coco.ap50[k]), float(voc.area[k]), int(counts[k]))
        for k in present
    }
    of_voc = {"AP50": voc.area, "AP50_11point": voc.eleven_point}
    return DetectionResult(
        coco=coco.numbers,
        voc={
            name: float(values[present].mean()) if len(present) else math.nan
            for name, values in of_voc.items()
        },
        per_class=per_class,
        absent=[name for name in class_names if name not in per_class],
        images=len(images),
        truths=int(counts.sum()),
        detections=len(detections.labels),
        precision=coco.precision,
    )


_NO_DETECTION = (np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
_NO_TRUTH = (_NO_DETECTION[0], _NO_DETECTION[2], _NO_DETECTION[1], np.empty(0, bool))


def _joined(parts: Sequence[tuple[NDArray[Any], ...]], empty: tuple[NDArray[Any], ...]) -> list[NDArray[Any]]:
    """The concatenated fields of all images, and the number of each row's image."""
    fields = [np.concatenate(columns) for columns in zip(empty, *parts, strict=True)]
    return [*fields, np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])]
