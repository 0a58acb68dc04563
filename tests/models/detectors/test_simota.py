"""SimOTA against a loop over images, objects and anchors, written from the paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attnlab.models.detectors.simota import Truths, sim_ota
from attnlab.models.detectors.yolox_head import Anchors, Predictions

SIDE = 96  # 12 x 12 + 6 x 6 + 3 x 3 anchors


def anchors() -> Anchors:
    cells, strides = [], []
    for stride in (8, 16, 32):
        for row in range(SIDE // stride):
            for column in range(SIDE // stride):
                cells.append([float(column), float(row)])
                strides.append([float(stride)])
    return Anchors(torch.tensor(cells), torch.tensor(strides))


def problem(seed: int, counts: list[int], classes: int = 3) -> tuple[Predictions, Tensor, Truths]:
    """Predictions that are partly good: boxes near objects, and noise."""
    random = torch.Generator().manual_seed(seed)
    all_anchors = anchors()
    total = len(all_anchors.cells)
    images = len(counts)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    corner = uniform(sum(counts), 2) * (SIDE - 8)
    size = 4 + uniform(sum(counts), 2) * 60
    truths = Truths(
        boxes=torch.cat([corner, (corner + size).clamp(max=SIDE)], dim=1),
        labels=torch.randint(0, classes, (sum(counts),), generator=random),
        image=torch.arange(images).repeat_interleave(torch.tensor(counts)),
    )
    middle = all_anchors.centres + (uniform(images, total, 2) - 0.5) * 12
    half = 3 + uniform(images, total, 2) * 30
    boxes = torch.cat([middle - half, middle + half], dim=-1)
    predictions = Predictions(
        offsets=all_anchors.encode(boxes),
        objectness=4 * torch.randn(images, total, generator=random),
        classes=4 * torch.randn(images, total, classes, generator=random),
        anchors=all_anchors,
    )
    return predictions, boxes, truths


def box_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_loops(
    predictions: Predictions, boxes: Tensor, truths: Truths, radius: float
) -> dict[tuple[int, int], tuple[int, float]]:
    """(image, anchor) -> (object, IoU)."""
    result: dict[tuple[int, int], tuple[int, float]] = {}
    places = list(
        zip(predictions.anchors.cells.tolist(), predictions.anchors.strides[:, 0].tolist(), strict=True)
    )
    for image in range(len(boxes)):
        objects = [t for t in range(len(truths.labels)) if truths.image[t] == image]
        in_box, in_square = {}, {}
        for t in objects:
            x0, y0, x1, y1 = truths.boxes[t].tolist()
            for a, ((column, row), stride) in enumerate(places):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                in_box[t, a] = x0 < x < x1 and y0 < y < y1
                away = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2))
                in_square[t, a] = away < radius * stride
        candidates = [a for a in range(len(places)) if any(in_box[t, a] or in_square[t, a] for t in objects)]
        cost, overlap = {}, {}
        for t in objects:
            for a in candidates:
                overlap[t, a] = box_iou(boxes[image, a].tolist(), truths.boxes[t].tolist())
                cost[t, a] = -3 * math.log(overlap[t, a] + 1e-8)
                for c, logit in enumerate(predictions.classes[image, a].tolist()):
                    p = math.sqrt(sigmoid(logit) * sigmoid(float(predictions.objectness[image, a])))
                    cost[t, a] -= math.log(p if c == truths.labels[t] else 1 - p)
                if not (in_box[t, a] and in_square[t, a]):
                    cost[t, a] += 100000
        wanted: dict[int, list[int]] = {}
        for t in objects:
            best = sorted((overlap[t, a] for a in candidates), reverse=True)[:10]
            for a in sorted(candidates, key=lambda a: cost[t, a])[: max(1, int(sum(best)))]:
                wanted.setdefault(a, []).append(t)
        for a, by in wanted.items():
            t = by[0] if len(by) == 1 else min(objects, key=lambda t: cost[t, a])
            result[image, a] = (t, overlap[t, a])
    return result


@pytest.mark.parametrize("radius", [2.5, 1.5])
@pytest.mark.parametrize("counts", [[1], [5], [2, 0, 4], [12, 3], [0, 1, 0]])
def test_as_the_loop(counts: list[int], radius: float) -> None:
    for seed in range(4):
        given = problem(seed, counts)
        found = sim_ota(*given, centre_radius=radius)
        expected = by_loops(*given, radius)
        pairs = list(zip(found.image.tolist(), found.anchor.tolist(), strict=True))
        assert pairs == sorted(expected)
        assert found.truth.tolist() == [expected[pair][0] for pair in pairs]
        assert found.iou.tolist() == pytest.approx([expected[pair][1] for pair in pairs], abs=1e-5)


def test_anchors_are_contested_in_the_problems() -> None:
    """Else the comparison above would say nothing about who wins."""
    predictions, boxes, truths = problem(0, [12, 3])
    alone = [
        Truths(truths.boxes[t : t + 1], truths.labels[t : t + 1], truths.image[t : t + 1]) for t in range(15)
    ]
    apart = sum(len(sim_ota(predictions, boxes, each).image) for each in alone)
    assert apart > len(sim_ota(predictions, boxes, truths).image)


def test_no_objects() -> None:
    found = sim_ota(*problem(0, [0, 0]))
    assert [len(part) for part in (found.image, found.anchor, found.truth, found.iou)] == [0, 0, 0, 0]


def test_perfect_boxes_get_ten_anchors() -> None:
    """Ten anchors with IoU 1 make k = 10; the anchors are the ones with the likeliest class."""
    predictions, boxes, _ = problem(0, [1], classes=1)
    truth = torch.tensor([[8.0, 8.0, 88.0, 88.0]])
    boxes = truth.expand_as(boxes)
    classes = torch.full_like(predictions.classes, -4.0)
    objectness = torch.zeros_like(predictions.objectness)
    centres = predictions.anchors.centres
    near = (((centres - 48).abs() < 20).all(1) & (predictions.anchors.strides[:, 0] == 8)).nonzero()[:, 0]
    likely = near[:10]
    classes[0, likely] = 4.0
    found = sim_ota(
        Predictions(predictions.offsets, objectness, classes, predictions.anchors),
        boxes,
        Truths(truth, torch.tensor([0]), torch.tensor([0])),
    )
    assert found.anchor.tolist() == likely.tolist()
    assert found.iou.tolist() == [1.0] * 10


def test_extreme_logits_stay_finite() -> None:
    predictions, boxes, truths = problem(1, [6])
    extreme = Predictions(
        predictions.offsets, predictions.objectness * 100, predictions.classes * 100, predictions.anchors
    )
    found = sim_ota(extreme, boxes, truths)
    assert set(found.truth.tolist()) <= set(range(6))
    assert len(found.truth) > 0
    assert found.iou.isfinite().all()


def test_every_object_alone_gets_an_anchor() -> None:
    """Even if it lies between all middles, and no predicted box touches it."""
    predictions, boxes, _ = problem(0, [1])
    truth = Truths(torch.tensor([[1.0, 1.0, 2.0, 2.0]]), torch.tensor([0]), torch.tensor([0]))
    assert len(sim_ota(predictions, boxes + 500, truth).anchor) == 1
