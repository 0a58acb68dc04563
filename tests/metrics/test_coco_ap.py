"""COCO's numbers against pycocotools, the reference of the challenge."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from attnlab.metrics.coco_ap import CocoScores, coco_scores
from attnlab.metrics.packed_boxes import PackedDetections, PackedTruths

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
PROBLEMS = 200
EDGES = [32.0**2, 96.0**2, np.nextafter(np.float32(32**2), np.float32(0)), 96.0**2 + 1 / 64]


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes on a grid, so that overlaps and areas repeat; many of sides 32 and 96."""
    sides = rng.choice([4, 16, 32, 32, 64, 96, 96, 128], (count, 2))
    corner = rng.integers(0, 8, (count, 2)) * 8
    return np.concatenate([corner, corner + sides], 1).astype(np.float32)


def without_image(truths: PackedTruths, image: int) -> PackedTruths:
    keep = truths.images != image
    fields = ("boxes", "labels", "images", "area", "ignored")
    return PackedTruths(**{name: getattr(truths, name)[keep] for name in fields})


def problem(seed: int, crowds: float = 0.15) -> tuple[PackedDetections, PackedTruths, int]:
    """A small data set: some images without truths or detections, classes without either, many ties."""
    rng = np.random.default_rng(seed)
    classes, images = int(rng.integers(1, 5)), int(rng.integers(1, 7))
    real = int(rng.integers(0, 25)) if seed % 10 else 0
    boxes = random_boxes(rng, real)
    sides = boxes[:, 2:] - boxes[:, :2]
    area = np.where(rng.random(real) < 0.5, sides.prod(1), rng.choice(EDGES, real)).astype(np.float32)
    truths = PackedTruths(
        boxes=boxes,
        labels=rng.integers(0, classes, real),
        images=np.sort(rng.integers(0, images, real)),
        area=area,
        ignored=rng.random(real) < crowds,
    )
    # More than 100 of a class in an image, now and then.
    found = int(rng.integers(0, 60)) if seed % 8 else 230
    if seed % 8 == 0:
        classes = 1
        truths = PackedTruths(truths.boxes, truths.labels * 0, truths.images, truths.area, truths.ignored)
        images = min(images, 2)
        truths.images.clip(0, images - 1, out=truths.images)
    guesses = random_boxes(rng, found)
    labels, places = rng.integers(0, classes, found), np.sort(rng.integers(0, images, found))
    for row in np.flatnonzero(rng.random(found) < 0.6) if real else ():
        near = rng.integers(real)
        shift = rng.integers(-6, 7, 4) if rng.random() < 0.7 else 0
        guesses[row] = truths.boxes[near] + shift
        labels[row], places[row] = truths.labels[near], truths.images[near]
    guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
    order = np.argsort(places, kind="stable")
    if seed % 3 == 1:
        truths = without_image(truths, 0)
        order = order[places[order] != images - 1]
        found = len(order)
    scores = (rng.integers(0, 8, found) / 8 if seed % 2 else rng.random(found)).astype(np.float32)
    return PackedDetections(guesses[order], scores, labels[order], places[order]), truths, classes


def rows(boxes: np.ndarray) -> list[list[float]]:
    exact = boxes.astype(np.float64)
    return np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], 1).tolist()


def reference(detections: PackedDetections, truths: PackedTruths, classes: int) -> COCOeval:
    images = range(int(max(detections.images.max(initial=0), truths.images.max(initial=0))) + 1)
    frame = {"images": [{"id": i} for i in images], "categories": [{"id": k} for k in range(classes)]}
    annotations = [
        {
            "id": n + 1,
            "bbox": box,
            "area": float(truths.area[n]),
            "iscrowd": int(truths.ignored[n]),
            "image_id": int(truths.images[n]),
            "category_id": int(truths.labels[n]),
        }
        for n, box in enumerate(rows(truths.boxes))
    ]
    guesses = [
        {
            "id": n + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "score": float(detections.scores[n]),
            "image_id": int(detections.images[n]),
            "category_id": int(detections.labels[n]),
        }
        for n, box in enumerate(rows(detections.boxes))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        sides = COCO(), COCO()
        for side, content in zip(sides, (annotations, guesses), strict=True):
            side.dataset = {**frame, "annotations": content}
            side.createIndex()
        evaluation = COCOeval(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_same(ours: CocoScores, theirs: COCOeval) -> None:
    expected = np.where(theirs.stats == -1, np.nan, theirs.stats)
    assert list(ours.numbers) == NAMES
    np.testing.assert_allclose(list(ours.numbers.values()), expected, rtol=0, atol=1e-6)
    curves = theirs.eval["precision"][..., 0, 2]
    np.testing.assert_allclose(ours.precision, curves, rtol=0, atol=1e-6)
    for k in range(curves.shape[2]):
        absent = (curves[..., k] == -1).all()
        for value, part in ((ours.ap[k], curves[..., k]), (ours.ap50[k], curves[0, :, k])):
            np.testing.assert_allclose(value, np.nan if absent else part.mean(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("first", range(0, PROBLEMS, 20))
def test_equals_pycocotools(first):
    for seed in range(first, first + 20):
        given = problem(seed)
        assert_same(coco_scores(*given), reference(*given))


@pytest.mark.parametrize(
    "seen",
    [
        lambda d, t: t.ignored.any(),
        lambda d, t: len(t.labels) == 0 and len(d.labels) > 0,
        lambda d, t: len(d.labels) == 0 and len(t.labels) > 0,
        lambda d, t: len(d.labels) and np.bincount(d.images * 5 + d.labels).max() > 100,
        lambda d, t: len(np.unique(d.scores)) < len(d.scores) / 4,
        lambda d, t: (t.area == 32**2).any() and (t.area == 96**2).any(),
        lambda d, t: bool(set(d.images) - set(t.images)) and bool(set(t.images) - set(d.images)),
    ],
    ids=["crowd", "no truths", "no detections", "over 100", "ties", "edges", "empty images"],
)
def test_the_problems_have_what_they_are_for(seen: Callable):
    assert sum(bool(seen(*problem(seed)[:2])) for seed in range(PROBLEMS)) >= 2


def test_a_crowd_takes_any_number_of_detections():
    crowd = np.array([[0, 0, 100, 100], [200, 0, 240, 40]], np.float32)
    truths = PackedTruths(
        crowd, np.zeros(2, int), np.zeros(2, int), np.float32([1e4, 1600]), np.array([True, False])
    )
    boxes = np.float32([[0, 0, 20, 20], [50, 50, 70, 70], [80, 80, 100, 100], [200, 0, 240, 40]])
    detections = PackedDetections(boxes, np.float32([0.9, 0.8, 0.7, 0.6]), np.zeros(4, int), np.zeros(4, int))
    assert coco_scores(detections, truths, 1).numbers["AP"] == pytest.approx(1.0)


def test_only_crowds_is_no_truth():
    truths = PackedTruths(
        np.float32([[0, 0, 9, 9]]), np.zeros(1, int), np.zeros(1, int), np.float32([81]), np.array([True])
    )
    detections = PackedDetections(truths.boxes, np.float32([0.9]), np.zeros(1, int), np.zeros(1, int))
    scores = coco_scores(detections, truths, 2)
    assert all(np.isnan(value) for value in scores.numbers.values())
    assert np.isnan(scores.ap).all()
    assert (scores.precision == -1).all()
