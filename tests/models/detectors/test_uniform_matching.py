"""Uniform matching, against the definition written with loops."""

import pytest
import torch

from attnlab.models.detectors.uniform_matching import BACKGROUND, IGNORED, match_uniformly


def l1(a: list[float], b: list[float]) -> float:
    """L1 distance of centres and sides."""
    centre = lambda box: [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]  # noqa: E731
    return sum(abs(x - y) for x, y in zip(centre(a), centre(b), strict=True))


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0.0, width) * max(0.0, height)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return inter / (area - inter)


def slow(anchors, predicted, boxes, labels, k, low, high):
    """Section 4.2 and the authors' thresholds, one anchor and one object at a time."""
    pairs = []
    for candidates in (anchors, predicted):
        for truth, box in enumerate(boxes):
            order = sorted(range(len(candidates)), key=lambda r: l1(candidates[r], box))
            pairs += [(r, truth) for r in order[:k]]
    classes = []
    for r in range(len(anchors)):
        mine = [truth for anchor, truth in pairs if anchor == r]
        good = [truth for truth in mine if iou(anchors[r], boxes[truth]) >= low]
        if good:
            classes.append(labels[max(good, key=lambda truth: iou(anchors[r], boxes[truth]))])
        elif mine or any(iou(predicted[r], box) > high for box in boxes):
            classes.append(IGNORED)
        else:
            classes.append(BACKGROUND)
    return classes, sorted((r, t) for r, t in pairs if iou(anchors[r], boxes[t]) >= low)


def random_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator) * 80
    return torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 40], dim=1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("matches", [1, 4])
def test_against_loops(seed, matches):
    generator = torch.Generator().manual_seed(seed)
    anchors = random_boxes(60, generator)
    predicted = anchors + torch.randn(60, 4, generator=generator)
    boxes, labels = random_boxes(7, generator), torch.randint(0, 5, (7,), generator=generator)
    # Some predictions that are good without being among the nearest of their object.
    predicted[:20] = boxes[torch.arange(20) % 7] + torch.rand(20, 4, generator=generator)
    found = match_uniformly(anchors, predicted, boxes, labels, matches, 0.15, 0.7)
    classes, pairs = slow(
        anchors.tolist(), predicted.tolist(), boxes.tolist(), labels.tolist(), matches, 0.15, 0.7
    )
    assert found.labels.tolist() == classes
    assert sorted(zip(found.anchors.tolist(), found.truths.tolist(), strict=True)) == pairs
    assert {BACKGROUND, IGNORED} <= set(classes)


def test_small_and_large_objects_get_as_many():
    """The point of the method: the largest IoU would give a hundred anchors to one, none to the other."""
    y, x = torch.meshgrid(torch.arange(0.0, 320, 32), torch.arange(0.0, 320, 32), indexing="ij")
    centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4)
    sides = torch.tensor([32.0, 64, 128, 256]).repeat(len(centres))
    anchors = centres.repeat_interleave(4, 0) + sides[:, None] / 2 * torch.tensor([-1, -1, 1, 1])
    boxes = torch.tensor([[20.0, 20, 300, 300], [150, 150, 180, 185]])
    found = match_uniformly(anchors, anchors, boxes, torch.tensor([0, 1]), matches=4, positive_threshold=0.0)
    assert found.truths.bincount().tolist() == [8, 8]
    assert (found.labels >= 0).sum() == 8


def test_an_anchor_of_two_objects_is_of_the_one_it_overlaps_most():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 9], [0, 0, 10, 6]])
    found = match_uniformly(anchors, anchors, boxes, torch.tensor([4, 1, 3]))
    assert found.labels.tolist() == [1]
    assert sorted(found.truths.tolist()) == [0, 0, 1, 1, 2, 2]


def test_without_objects_all_is_background():
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 20]])
    found = match_uniformly(anchors, anchors, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert found.labels.tolist() == [BACKGROUND, BACKGROUND]
    assert found.anchors.tolist() == found.truths.tolist() == []
