"""Labelled boxes: what lies where, and what is right and wrong."""

import itertools

import numpy as np
import pytest
import torch

from attnlab.drawing.boxes import (
    VERDICTS,
    Box,
    bright,
    detected,
    detection_panel,
    draw_boxes,
    judged,
    scaled,
    truths,
)

NAMES = ["cat", "dog", "traffic light"]
PALETTE = [(0, 255, 0), (255, 120, 0), (0, 80, 255)]
GREY = np.full((300, 480, 3), 128, np.uint8)


def changed(picture, ground=GREY):
    return (picture != ground).any(-1)


def of_colour(drawn, colour):
    return int((drawn == colour).all(-1).sum())


def colours(panel):
    return {tuple(colour) for colour in panel.reshape(-1, 3).tolist()}


@pytest.mark.parametrize(("score", "rim"), [(0.9, 0), (None, 255)])
def test_the_outline_lies_on_the_boxs_border_with_a_rim(score, rim):
    drawn = draw_boxes(GREY, [Box((100, 150, 300, 250), 0, score)], NAMES, PALETTE)
    for row, column in ((200, 100), (200, 101), (200, 299), (200, 298), (249, 200)):
        assert tuple(drawn[row, column]) == PALETTE[0]
    for row, column in ((200, 102), (200, 297), (200, 99), (200, 300)):
        assert (drawn[row, column] == rim).all()
    assert not changed(drawn)[160:240, 110:290].any()
    assert not changed(drawn)[252:].any()
    assert (GREY == 128).all()  # the image itself is left alone


def test_crowds_are_dashed():
    dashed = draw_boxes(GREY, [Box((20, 50, 460, 290), 0, None, "crowd")], NAMES, PALETTE)
    side = (dashed[100:280, 20] == PALETTE[0]).all(-1)
    assert 0.3 < side.mean() < 0.8
    assert max(len(list(group)) for _, group in itertools.groupby(side)) < 20


@pytest.mark.parametrize(
    "corners", [(0, 0, 480, 300), (470, 290, 480, 300), (-50, -50, 20, 20), (900, 9, 950, 20)]
)
def test_labels_stay_whole_inside_the_picture(corners):
    drawn = draw_boxes(GREY, [Box(corners, 2, 0.5)], NAMES, PALETTE)
    # A label of "traffic light 0.50" is far larger than the box of 10 pixels.
    assert changed(drawn).sum() > 110 * 14
    assert drawn.shape == GREY.shape


def test_every_truth_has_its_label():
    """Rows of boxes that touch: at each a label of its colour with dark letters."""
    boxes = [Box((x, y, x + 78, y + 70), 1) for x in range(0, 480, 80) for y in (0, 75, 150, 225)]
    drawn = draw_boxes(GREY, boxes, NAMES, PALETTE)
    for box in boxes:
        x, y = (int(value) for value in box.corners[:2])
        near = drawn[max(0, y - 17) : y + 17, x : x + 40]
        assert of_colour(near, PALETTE[1]) > 200
        assert (near.max(-1) < 90).sum() > 10


def test_a_full_picture_leaves_out_labels_of_low_scores():
    generator = np.random.default_rng(0)
    corners = [(x, y, x + 80, y + 80) for x, y in generator.uniform(0, 120, (200, 2))]
    boxes = [Box(c, 1 if k else 0, 0.5 if k else 0.99) for k, c in enumerate(corners)]
    ground = np.full((200, 200, 3), 128, np.uint8)
    drawn = draw_boxes(ground, boxes, NAMES, PALETTE)
    assert of_colour(drawn, PALETTE[0]) > 300
    assert np.array_equal(drawn, draw_boxes(ground, boxes, NAMES, PALETTE))


@pytest.mark.parametrize("shape", [(1, 1), (2, 480), (480, 3), (20, 20)])
def test_pictures_too_small_for_a_label_are_drawn_without(shape):
    height, width = shape
    drawn = draw_boxes(np.zeros((*shape, 3), np.uint8), [Box((0, 0, width, height), 1, 0.5)], NAMES, PALETTE)
    assert drawn.shape == (*shape, 3)
    assert tuple(drawn[0, 0]) == PALETTE[1]


def test_no_boxes_leave_the_picture():
    assert np.array_equal(draw_boxes(GREY, [], NAMES, PALETTE), GREY)


def test_dark_colours_become_bright_at_the_same_hue():
    lifted = bright([(0, 0, 0), (128, 0, 0), (255, 255, 255)])
    assert lifted[0] == (150, 150, 150)
    assert lifted[1][0] > 190
    assert lifted[1][1:] == (0, 0)
    assert lifted[2] == (255, 255, 255)


def test_boxes_come_from_detections_and_targets():
    found = {
        "boxes": torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]),
        "scores": torch.tensor([0.5, 0.25]),
        "labels": torch.tensor([2, 0]),
    }
    assert detected(found, 0.5) == [Box((0, 1, 2, 3), 2, 0.5)]
    target = {
        "boxes": np.array([[0.0, 0, 1, 1]] * 3),
        "labels": np.array([0, 1, 2]),
        "iscrowd": np.array([False, True, False]),
        "difficult": np.array([False, False, True]),
    }
    assert [(box.label, box.note) for box in truths(target)] == [(0, ""), (1, "crowd"), (2, "difficult")]
    assert [box.note for box in truths({key: target[key] for key in ("boxes", "labels")})] == [""] * 3
    assert scaled(truths(target), (2, 0.5))[1] == Box((0, 0, 2, 0.5), 1, None, "crowd")


def verdicts(boxes):
    return [box.verdict for box in boxes]


def test_each_object_is_found_once_by_the_best_of_its_class():
    objects = [Box((0, 0, 10, 10), 0), Box((20, 0, 30, 10), 0), Box((40, 0, 50, 10), 1)]
    found = [
        Box((0, 0, 10, 9), 0, 0.5),  # the second on the first object
        Box((0, 0, 10, 10), 0, 0.9),
        Box((40, 0, 50, 10), 0, 0.8),  # of another class
        Box((20, 0, 30, 4), 0, 0.7),  # too little of the second
    ]
    missed, false = judged(objects, found)
    assert verdicts(missed) == ["right", "wrong", "wrong"]
    assert verdicts(false) == ["wrong", "right", "wrong", "wrong"]
    assert judged([], []) == ([], [])
    assert verdicts(judged(objects, [])[0]) == ["wrong"] * 3


@pytest.mark.parametrize(("height", "verdict"), [(5.0, "right"), (4.9, "wrong")])
def test_an_overlap_of_exactly_half_is_enough(height, verdict):
    objects, found = judged([Box((0, 0, 10, 10), 0)], [Box((0, 0, 10, height), 0, 0.9)])
    assert verdicts(objects) == verdicts(found) == [verdict]


def test_crowds_and_difficult_objects_are_not_scored():
    objects = [Box((0, 0, 100, 100), 0, None, "crowd"), Box((200, 0, 210, 10), 0, None, "difficult")]
    found = [Box((5, 5, 9, 9), 0, 0.9), Box((200, 0, 210, 9), 0, 0.8), Box((5, 5, 9, 9), 1, 0.7)]
    assert [verdicts(boxes) for boxes in judged(objects, found)] == [
        ["not scored"] * 2,
        ["not scored", "not scored", "wrong"],
    ]


def found_of(boxes, scores, labels):
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "scores": torch.tensor(scores),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def test_truths_stand_left_and_detections_right():
    """The truth is missed; the detection of its place is of another class; one is below the score."""
    image = torch.full((3, 100, 200), 0.5)
    objects = [Box((20, 40, 100, 90), 0), Box((120, 40, 190, 90), 2)]
    found = found_of(
        [(120.0, 40.0, 190.0, 90.0), (20.0, 40.0, 100.0, 90.0), (1.0, 1.0, 9.0, 9.0)],
        (0.8, 0.7, 0.1),
        (2, 1, 1),
    )
    panel = detection_panel(image, objects, found, "a.jpg", NAMES, PALETTE, 400, 0.3)
    middle = panel.shape[1] // 2
    for half in (panel[60:240, :middle], panel[60:240, middle:]):
        assert {VERDICTS["right"], VERDICTS["wrong"]} <= colours(half)
    none = detection_panel(image, [], found_of([], [], []), "a.jpg", NAMES, PALETTE, 400, 0.3)
    assert not {VERDICTS["right"], VERDICTS["wrong"]} & colours(none[:240])


def test_detections_without_truths_stand_alone_in_their_classes_colours():
    image = torch.full((3, 100, 200), 0.5, dtype=torch.bfloat16)
    found = found_of([(20.0, 40.0, 100.0, 90.0)], (0.8,), (1,))
    panel = detection_panel(image, None, found, "a", NAMES, PALETTE, 400, 0.3)
    assert panel.shape[1] < 440
    assert PALETTE[1] in colours(panel[:240])
    assert PALETTE[1] in colours(panel[-30:])  # the legend


@pytest.mark.parametrize("size", [(20, 4000), (4000, 20), (1, 1), (32, 32)])
def test_extreme_pictures_are_drawn(size):
    found = found_of([(0.0, 0.0, 1.0, 1.0)], (0.9,), (1,))
    panel = detection_panel(torch.rand(3, *size), [], found, "a" * 300, NAMES, PALETTE, 480, 0.3)
    assert 400 < panel.shape[1] < 1100
    assert panel.shape[0] < 640


def test_captions_are_whole_beside_the_narrowest_pictures():
    noted = [Box((0, 0, 1, 1), 0, None, note) for note in ("crowd", "difficult") for _ in range(100)]
    objects = [*noted, *([Box((0, 0, 5, 9), 1)] * 1000)]
    panel = detection_panel(torch.rand(3, 90, 5), objects, found_of([], [], []), "a", NAMES, PALETTE, 90, 0.3)
    assert panel.shape[1] > 2 * 280
    alone = detection_panel(torch.rand(3, 9, 9), None, found_of([], [], []), "a", NAMES, PALETTE, 90, 0.3)
    assert alone.shape[1] == 216
