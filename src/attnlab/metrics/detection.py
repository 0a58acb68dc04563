"""Detection scores over a whole data set, by the protocols of COCO and of Pascal VOC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

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
        truths: How many objects of the class count, crowds and difficult ones left out.
    """

    ap: float
    ap50: float
    voc_ap50: float
    truths: int


@dataclass(frozen=True)
class DetectionResult:
    """What one pass over a data set came to.

    Attributes:
        coco: COCO's 12 numbers AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl, in 0..1; nan where there
            is no object for one.
        voc: Pascal VOC's ``AP50`` (area form, 2010 and later) and ``AP50_11point`` (2007), in 0..1: means
            over the classes with objects; nan without any.
        per_class: Scores of the classes that have an object that counts, by class name.
        absent: Classes without one. They are left out of every mean.
        images: How many images were scored.
        truths: How many objects count, crowds and difficult ones left out.
        detections: How many detections were scored.
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


class DetectionScores(Metric):
    """COCO's 12 numbers and Pascal VOC's AP50, collected per step and computed once.

    The state is 24 bytes a detection and 28 a true box, on the CPU. ``result`` brings it to the first
    process, sorts it by image id, scores it there and sends the result to the others, so it does not depend
    on batch size, on the order of the images or on how many processes shared them.

    Detections with a coordinate or a score that is nan or infinite are dropped. They count as nothing: an
    object that only they would have found is missed. Crowds and difficult objects are neither found nor
    missed in both protocols; in COCO's, difficult ones count as crowds.

    Args:
        class_names: Name of each class, in the order of its label.
    """

    full_state_update = False
    higher_is_better = True
    detections: list[Tensor]
    truths: list[Tensor]
    images: list[Tensor]

    def __init__(self, class_names: list[str]) -> None:
        # compute() gathers by itself: torchmetrics would send all boxes to all processes.
        super().__init__(sync_on_compute=False)
        self.class_names = list(class_names)
        # Integers, floats by their bits: module.to(torch.bfloat16) rounds states that are floats.
        self.add_state("detections", [], dist_reduce_fx="cat")  # int32 (M, 6): box, score, label
        self.add_state("truths", [], dist_reduce_fx="cat")  # int32 (N, 7): box, area, label, ignored
        self.add_state("images", [], dist_reduce_fx="cat")  # int64 (B, 3): id, its detections, its truths

    def update(self, detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Take in a batch.

        Args:
            detections: For each image ``boxes`` (M, 4) x0 y0 x1 y1 in pixels, ``scores`` (M,) and ``labels``
                (M,) in 0..K-1, of any float and integer type, on any device.
            targets: For each image ``boxes`` (N, 4), ``labels`` (N,), ``image_id`` and, if there are any,
                ``iscrowd`` (N,), ``difficult`` (N,) and ``area`` (N,) in square pixels; area is the box's
                unless it is given.

        Raises:
            AttnlabError: If the numbers of images or of boxes differ, a target has no boxes, or a label is
                outside 0..K-1.
        """
        ids, found, real = _checked(detections, targets)
        if not targets:
            return
        guesses = _bits(
            _joined(detections, "boxes").reshape(-1, 4),
            _joined(detections, "scores"),
            integers=[_joined(detections, "labels")],
        )
        objects = _bits(
            _joined(targets, "boxes").reshape(-1, 4),
            torch.cat([_area(target) for target in targets]),
            integers=[_joined(targets, "labels"), torch.cat([_ignored(target) for target in targets])],
        )
        for rows, counts, kind in ((guesses, found, "Detection"), (objects, real, "Truth")):
            self._check_labels(rows[:, 5], ids, counts, kind)
        images = torch.tensor([ids, found, real], dtype=torch.int64).T
        _append(self.detections, guesses)
        _append(self.truths, objects)
        _append(self.images, images)

    def compute(self) -> dict[str, Tensor]:
        """COCO's 12 numbers and ``voc/AP50``, ``voc/AP50_11point``; must be called on every process."""
        result = self.result()
        named = {**result.coco, **{f"voc/{name}": value for name, value in result.voc.items()}}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in named.items()}

    def result(self) -> DetectionResult:
        """Scores over everything seen so far, on all processes together.

        Must be called on every process. The first one computes, the others wait for it.

        Raises:
            AttnlabError: If an image was given twice.
        """
        own = tuple(
            torch.cat([part.cpu() for part in parts]).numpy() if parts else np.zeros((0, width), kind)
            for parts, width, kind in (
                (self.detections, 6, np.int32),
                (self.truths, 7, np.int32),
                (self.images, 3, np.int64),
            )
        )
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return score_packed([own], self.class_names)
        first = dist.get_rank() == 0
        shares: list[Any] | None = [None] * dist.get_world_size() if first else None
        dist.gather_object(own, shares, dst=0)
        answer: list[Any] = [None]
        if shares is not None:
            try:
                answer = [score_packed(shares, self.class_names)]
            except AttnlabError as error:
                answer = [error]
        dist.broadcast_object_list(answer, src=0)
        if isinstance(answer[0], AttnlabError):
            raise answer[0]
        return answer[0]

    def _check_labels(self, labels: Tensor, ids: list[int], counts: list[int], kind: str) -> None:
        wrong = (labels < 0) | (labels >= len(self.class_names))
        if wrong.any():
            place = int(wrong.nonzero()[0])
            image = np.repeat(ids, counts)[place]
            raise AttnlabError(
                f"{kind} of class {int(labels[place])} in image {image}: "
                f"labels must be in 0..{len(self.class_names) - 1}."
            )


def _checked(
    detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[int], list[int]]:
    """The image ids, and how many detections and objects each has."""
    if len(detections) != len(targets):
        raise AttnlabError(f"{len(detections)} detections cannot be scored on {len(targets)} targets.")
    if not targets:
        return [], [], []
    ids = torch.stack([torch.as_tensor(target["image_id"]).reshape(()) for target in targets]).tolist()
    for target, image in zip(targets, ids, strict=True):
        if "boxes" not in target or "labels" not in target:
            raise AttnlabError(
                f"Image {image} has no annotations, so nothing can be scored on it. "
                "Evaluate a split that has annotations."
            )
    found = [len(one["scores"]) for one in detections]
    real = [len(one["labels"]) for one in targets]
    for one, image, count in zip((*detections, *targets), [*ids, *ids], found + real, strict=True):
        if len(one["boxes"]) != count or len(one["labels"]) != count:
            raise AttnlabError(
                f"Image {image} has {len(one['boxes'])} boxes with {count} scores or labels; "
                "there must be one of each for each box."
            )
    return ids, found, real


def _joined(parts: Sequence[Mapping[str, Any]], key: str) -> Tensor:
    return torch.cat([part[key].detach() for part in parts])


def _area(target: Mapping[str, Any]) -> Tensor:
    if "area" in target:
        return target["area"].float()
    boxes = target["boxes"].reshape(-1, 4).float()
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _ignored(target: Mapping[str, Any]) -> Tensor:
    ignored = torch.zeros_like(target["labels"], dtype=torch.bool)
    for key in ("iscrowd", "difficult"):
        if key in target:
            ignored = ignored | target[key].bool()
    return ignored


def _bits(boxes: Tensor, values: Tensor, integers: list[Tensor]) -> Tensor:
    """int32 (rows, 5 + integers) on the CPU; the floats as float32, by their bits."""
    floats = torch.cat([boxes.float(), values.float()[:, None]], 1).view(torch.int32)
    return torch.cat([floats, *(column.to(torch.int32)[:, None] for column in integers)], 1).cpu()


def _append(parts: list[Tensor], rows: Tensor) -> None:
    """Append, and join parts of like size, so that few are left and each row is copied a few times only."""
    parts.append(rows)
    while len(parts) > 1 and len(parts[-2]) <= len(parts[-1]):
        parts[-2:] = [torch.cat([part.cpu() for part in parts[-2:]])]


def score_packed(shares: Sequence[tuple[NDArray[Any], ...]], class_names: list[str]) -> DetectionResult:
    """Scores from what the processes collected.

    Args:
        shares: Of each process the rows of its detections, truths and images, as ``DetectionScores`` keeps
            them.
        class_names: K names.

    Raises:
        AttnlabError: If an image is there twice.
    """
    found, real, images = (np.concatenate(parts) for parts in zip(*shares, strict=True))
    order = np.argsort(images[:, 0], kind="stable")
    ids = images[order, 0]
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise AttnlabError(
            f"Image {int(twice[0])} was scored twice. Each image_id may be given once between two resets."
        )
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    detections = _packed_detections(found, np.repeat(number, images[:, 1]))
    truths = _packed_truths(real, np.repeat(number, images[:, 2]))

    classes = len(class_names)
    coco = coco_scores(detections, truths, classes)
    voc = voc_scores(detections, truths, classes)
    counts = np.bincount(truths.labels[~truths.ignored], minlength=classes)
    per_class = {
        name: ClassAP(float(coco.ap[k]), float(coco.ap50[k]), float(voc.area[k]), int(counts[k]))
        for k, name in enumerate(class_names)
        if counts[k]
    }
    present = counts > 0
    return DetectionResult(
        coco=coco.numbers,
        voc={
            "AP50": float(voc.area[present].mean()) if present.any() else float("nan"),
            "AP50_11point": float(voc.eleven_point[present].mean()) if present.any() else float("nan"),
        },
        per_class=per_class,
        absent=[name for name in class_names if name not in per_class],
        images=len(images),
        truths=int(counts.sum()),
        detections=len(detections.labels),
        precision=coco.precision,
    )


def _packed_detections(rows: NDArray[np.int32], images: NDArray[np.int64]) -> PackedDetections:
    floats = np.ascontiguousarray(rows[:, :5]).view(np.float32)
    order = np.argsort(images, kind="stable")
    order = order[np.logical_and.reduce(np.isfinite(floats[order]), axis=1)]
    return PackedDetections(
        boxes=floats[order, :4], scores=floats[order, 4], labels=rows[order, 5], images=images[order]
    )


def _packed_truths(rows: NDArray[np.int32], images: NDArray[np.int64]) -> PackedTruths:
    floats = np.ascontiguousarray(rows[:, :5]).view(np.float32)
    order = np.argsort(images, kind="stable")
    return PackedTruths(
        boxes=floats[order, :4],
        area=floats[order, 4],
        labels=rows[order, 5],
        images=images[order],
        ignored=rows[order, 6].astype(bool),
    )
