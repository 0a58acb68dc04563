"""VOC's average precision against the development kit's procedure, in plain loops and exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from attnlab.metrics import voc_ap
from attnlab.metrics.packed_boxes import PackedDetections, PackedTruths
from attnlab.metrics.voc_ap import voc_scores

PROBLEMS = 200


def kit_overlap(a: list[int], b: list[int]) -> Fraction:
    """IoU of boxes that include their last pixel, hence the ones."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return Fraction(0)
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return Fraction(width * height, area_a + area_b - width * height)


def inclusive(box: np.ndarray) -> list[int]:
    """The kit's coordinates, counted from 1, of a half-open box counted from 0."""
    return [int(box[0]) + 1, int(box[1]) + 1, int(box[2]), int(box[3])]


def kit_marks(detections: PackedDetections, truths: PackedTruths, label: int) -> tuple[list[tuple], int, int]:
    """(true positives, false positives) so far, after each detection; objects; matches that were refused."""
    objects = [
        {"image": image, "box": inclusive(box), "difficult": bool(aside), "taken": False}
        for box, own, image, aside in zip(
            truths.boxes, truths.labels, truths.images, truths.ignored, strict=True
        )
        if own == label
    ]
    guesses = [
        (float(value), int(image), inclusive(box))
        for value, own, image, box in zip(
            detections.scores, detections.labels, detections.images, detections.boxes, strict=True
        )
        if own == label
    ]
    tp = fp = refused = 0
    curve = []
    for _, image, box in sorted(guesses, key=lambda guess: -guess[0]):
        best, chosen = Fraction(0), None
        for one in objects:
            overlap = kit_overlap(box, one["box"]) if one["image"] == image else Fraction(0)
            if overlap > best:
                best, chosen = overlap, one
        if chosen is None or best < Fraction(1, 2):
            fp += 1
        elif not chosen["difficult"]:
            fp += chosen["taken"]
            refused += chosen["taken"]
            tp += not chosen["taken"]
            chosen["taken"] = True
        curve.append((tp, fp))
    return curve, sum(not one["difficult"] for one in objects), refused


def kit_ap(curve: list[tuple], positives: int) -> tuple[float, float]:
    """Area and 11-point form."""
    points = [(Fraction(tp, positives), Fraction(tp, tp + fp)) for tp, fp in curve if tp + fp]
    eleven = Fraction(0)
    for tenth in range(11):
        reached = [precision for recall, precision in points if recall >= Fraction(tenth, 10)]
        eleven += max(reached, default=Fraction(0)) / 11
    recalls = [Fraction(0), *(recall for recall, _ in points), Fraction(1)]
    heights = [Fraction(0), *(precision for _, precision in points), Fraction(0)]
    for place in reversed(range(len(heights) - 1)):
        heights[place] = max(heights[place], heights[place + 1])
    area = sum((recalls[place] - recalls[place - 1]) * heights[place] for place in range(1, len(recalls)))
    return float(area), float(eleven)


def problem(seed: int) -> tuple[PackedDetections, PackedTruths, int]:
    """Boxes of few sides on a coarse grid, repeated at will; scores of few values on every other problem."""
    rng = np.random.default_rng(seed)
    classes, images = int(rng.integers(1, 4)), int(rng.integers(1, 5))

    def boxes(count: int) -> np.ndarray:
        corner = rng.integers(0, 6, (count, 2)) * 4
        return np.concatenate([corner, corner + rng.choice([4, 8, 12, 16], (count, 2))], 1).astype(np.float32)

    real, found = int(rng.integers(0, 14)), int(rng.integers(0, 40))
    truths = PackedTruths(
        boxes=boxes(real),
        labels=rng.integers(0, classes, real),
        images=np.sort(rng.integers(0, images, real)),
        area=np.ones(real, np.float32),
        ignored=rng.random(real) < 0.25,
    )
    guesses, labels = boxes(found), rng.integers(0, classes, found)
    places = rng.integers(0, images, found)
    for row in np.flatnonzero(rng.random(found) < 0.6) if real else ():
        near = rng.integers(real)
        guesses[row] = truths.boxes[near] + (rng.integers(0, 3, 4) if rng.random() < 0.6 else 0)
        labels[row], places[row] = truths.labels[near], truths.images[near]
    order = np.argsort(places, kind="stable")
    scores = (rng.integers(0, 5, found) / 4 if seed % 2 else rng.random(found)).astype(np.float32)
    return PackedDetections(guesses[order], scores, labels[order], places[order]), truths, classes


def one_class(
    truths: list[list[float]], found: list[list[float]], difficult: tuple[int, ...] = ()
) -> tuple[float, float]:
    """Area and 11-point form for one image; the detections by falling score."""
    ignored = np.isin(np.arange(len(truths)), difficult)
    none = np.zeros(len(truths), int)
    real = PackedTruths(np.float32(truths), none, none, np.ones(len(truths), np.float32), ignored)
    none = np.zeros(len(found), int)
    scores = np.linspace(1, 0.5, len(found), dtype=np.float32)
    result = voc_scores(PackedDetections(np.float32(found), scores, none, none), real, 1)
    return float(result.area[0]), float(result.eleven_point[0])


@pytest.mark.parametrize("first", range(0, PROBLEMS, 50))
def test_equals_the_kits_procedure(first):
    for seed in range(first, first + 50):
        detections, truths, classes = problem(seed)
        ours = voc_scores(detections, truths, classes)
        for label in range(classes):
            curve, positives, _ = kit_marks(detections, truths, label)
            expected = kit_ap(curve, positives) if positives else (np.nan, np.nan)
            np.testing.assert_allclose(
                (ours.area[label], ours.eleven_point[label]), expected, rtol=0, atol=1e-12, err_msg=str(seed)
            )


def test_the_problems_have_what_they_are_for():
    problems = [problem(seed) for seed in range(PROBLEMS)]
    marks = [kit_marks(d, t, label) for d, t, classes in problems for label in range(classes)]
    assert sum(refused for *_, refused in marks) > 50
    assert sum(not positives for _, positives, _ in marks) > 5
    assert sum(positives > 0 and not curve for curve, positives, _ in marks) > 5
    assert sum(len(curve) > sum(curve[-1]) for curve, *_ in marks if curve) > 50  # difficult ones matched
    halves = sum(
        kit_overlap(inclusive(a), inclusive(b)) == Fraction(1, 2)
        for d, t, _ in problems
        for a in d.boxes
        for b in t.boxes
    )
    assert halves > 20


def test_pairs_in_portions_come_to_the_same(monkeypatch):
    given = [problem(seed) for seed in range(40)]
    whole = [voc_scores(*one) for one in given]
    monkeypatch.setattr(voc_ap, "PAIRS_AT_ONCE", 3)
    for one, expected in zip(given, whole, strict=True):
        np.testing.assert_array_equal(voc_scores(*one).area, expected.area)
        np.testing.assert_array_equal(voc_scores(*one).eleven_point, expected.eleven_point)


def test_an_overlap_of_exactly_half_is_enough():
    assert one_class([[0, 0, 10, 10]], [[0, 0, 10, 20]]) == (1.0, pytest.approx(1.0))
    assert one_class([[0, 0, 10, 10]], [[0, 0, 10, 20.01]]) == (0.0, 0.0)


def test_a_second_match_is_false_even_if_another_object_would_do():
    """Both are nearest to the first object; COCO would give the second detection the second object."""
    truths = [[0, 0, 10, 10], [0, 2, 10, 12]]
    assert one_class(truths, [[0, 0, 10, 10], [0, 0, 10, 10]])[0] == 0.5


def test_a_difficult_object_is_neither_found_nor_missed():
    truths = [[0, 0, 10, 10], [50, 50, 60, 60]]
    assert one_class(truths, [[0, 0, 10, 10], [50, 50, 60, 60]], difficult=(0,)) == (1.0, pytest.approx(1.0))
    assert one_class(truths, [[0, 0, 10, 10]] * 3, difficult=(0,)) == (0.0, 0.0)
    assert np.isnan(one_class(truths, [[0, 0, 10, 10]], difficult=(0, 1))).all()


@pytest.mark.parametrize("found", range(11))
def test_each_tenth_of_recall_is_reached_by_as_many_objects(found):
    """In floating point 3 / 10 < 0.1 * 3."""
    truths = [[20 * k, 0, 20 * k + 10, 10] for k in range(10)]
    expected = (found / 10, pytest.approx((found + 1) / 11 if found else 0))
    assert one_class(truths, [*truths[:found], [0, 50, 9, 59]]) == expected
