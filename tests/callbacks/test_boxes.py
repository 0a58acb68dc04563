"""Labelled boxes: what lies where, pixel by pixel."""

import itertools

import numpy as np
import pytest
import torch

from attnlab.callbacks.boxes import (
    Box,
    bright,
    detected,
    draw_boxes,
    ink_on,
    picture_of,
    scaled,
    truths,
)

NAMES = ["cat", "dog", "traffic light"]
PALETTE = [(0, 200, 0), (230, 120, 0), (0, 80, 255)]
GREY = np.full((300, 480, 3), 128, np.uint8)


def changed(picture, ground=GREY):
    return (picture != ground).any(-1)


def test_the_outline_lies_on_the_boxs_border():
    drawn = draw_boxes(GREY, [Box((100, 150, 300, 250), 0, 0.9)], NAMES, PALETTE)
    colour = list(PALETTE[0])
    # 480 pixels: two pixels wide, inwards from the first and last pixel inside the box.
    for row, column in ((200, 100), (200, 101), (200, 299), (200, 298), (150, 250), (249, 200)):
        assert drawn[row, column].tolist() == colour
    for row, column in ((200, 102), (200, 297), (200, 99), (200, 300)):  # the edge is darker than the ground
        assert drawn[row, column].max() < 128
    assert not changed(drawn)[160:240, 110:290].any()
    assert not changed(drawn)[252:].any()
    assert not changed(drawn)[:, :98].any()
    assert (GREY == 128).all()  # the image itself is left alone


def test_a_truth_has_white_edges():
    drawn = draw_boxes(GREY, [Box((100, 150, 300, 250), 0)], NAMES, PALETTE)
    assert drawn[200, 100].tolist() == drawn[200, 101].tolist() == list(PALETTE[0])
    assert drawn[200, 99].tolist() == drawn[200, 102].tolist() == [255, 255, 255]


def test_crowds_are_dashed():
    whole = draw_boxes(GREY, [Box((20, 50, 460, 290), 0)], NAMES, PALETTE)
    dashed = draw_boxes(GREY, [Box((20, 50, 460, 290), 0, None, "crowd")], NAMES, PALETTE)
    side = [(p[100:280, 20] == PALETTE[0]).all(-1) for p in (whole, dashed)]
    assert side[0].all()
    assert 0.3 < side[1].mean() < 0.7
    runs = [len(list(group)) for _, group in itertools.groupby(side[1])]
    assert max(runs) < 20


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 255, 0), (0, 0, 200), (128, 128, 128)])
def test_the_ink_has_the_higher_contrast(colour):
    def linear(value):
        share = value / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    light = sum(w * linear(v) for w, v in zip((0.2126, 0.7152, 0.0722), colour, strict=True))
    on_white, on_black = 1.05 / (light + 0.05), (light + 0.05) / 0.05
    assert ink_on(colour) == ((0, 0, 0) if on_black > on_white else (255, 255, 255))


@pytest.mark.parametrize(
    "corners",
    [(0, 0, 480, 300), (470, 0, 480, 10), (0, 290, 10, 300), (470, 290, 480, 300), (-50, -50, 20, 20)],
)
def test_labels_stay_whole_inside_the_picture(corners):
    """The label's colour takes the same area as that of a box in the middle."""

    def ground(box):
        label = Box(box, 2, 0.5)
        drawn = draw_boxes(GREY, [label], NAMES, PALETTE).astype(int)
        return changed(drawn)

    with_label = ground(corners).sum()
    # A label of "traffic light 0.50" is far larger than the box of 10 pixels.
    assert with_label > 110 * 14
    assert drawn_shape(corners) == GREY.shape


def drawn_shape(corners):
    return draw_boxes(GREY, [Box(corners, 2, 0.5)], NAMES, PALETTE).shape


def test_higher_scores_lie_on_top():
    """Where two outlines cross, in whatever order the boxes are given."""
    low, high = Box((100, 100, 300, 280), 0, 0.4), Box((200, 150, 400, 250), 1, 0.8)
    for boxes in ([low, high], [high, low]):
        drawn = draw_boxes(GREY, boxes, NAMES, PALETTE)
        assert drawn[249, 299].tolist() == list(PALETTE[1])


def of_colour(drawn, colour):
    """How many pixels of outlines and labels have a class's colour."""
    return int((drawn == colour).all(-1).sum())


def test_labels_keep_clear_of_each_other():
    """Of two boxes one just inside the other, both labels can be seen whole."""
    boxes = [Box((100, 100, 300, 250), 0, 0.9), Box((104, 104, 296, 246), 1, 0.8)]
    both = draw_boxes(GREY, boxes, NAMES, PALETTE)
    for box in boxes:
        outline = 2 * 2 * (box.corners[2] - box.corners[0] + box.corners[3] - box.corners[1])
        alone = of_colour(draw_boxes(GREY, [box], NAMES, PALETTE), PALETTE[box.label])
        assert alone > outline + 300
        # Less a little, where a label lies on the other's outline.
        assert of_colour(both, PALETTE[box.label]) > alone - 150


def test_a_full_picture_leaves_out_labels_of_low_scores():
    generator = np.random.default_rng(0)
    ground = np.full((200, 200, 3), 128, np.uint8)
    corners = [(x, y, x + 80, y + 80) for x, y in generator.uniform(0, 120, (200, 2))]
    boxes = [Box(c, 1 if k else 0, 0.5 if k else 0.99) for k, c in enumerate(corners)]
    drawn = draw_boxes(ground, boxes, NAMES, PALETTE)
    alone = [Box((60, 60, 140, 140), 0, 0.99), *(Box((0, 0, 1, 1), 1, 0.1) for _ in range(30))]
    label = of_colour(draw_boxes(ground, alone, NAMES, PALETTE), PALETTE[0]) - 4 * 79
    # The best box has its label whole, though those of others may lie on its outline.
    assert of_colour(drawn, PALETTE[0]) >= label > 300
    # There is room for 90 labels of 43 x 10 pixels, and for the outlines of one pixel: 200 would cover all.
    assert of_colour(drawn, PALETTE[1]) < 200 * 200 * 0.8


@pytest.mark.parametrize("shape", [(1, 1), (2, 480), (480, 3), (20, 20)])
def test_pictures_too_small_for_a_label_are_drawn_without(shape):
    ground = np.zeros((*shape, 3), np.uint8)
    height, width = shape
    drawn = draw_boxes(ground, [Box((0, 0, width, height), 1, 0.5)], NAMES, PALETTE)
    assert drawn.shape == ground.shape
    assert drawn[0, 0].tolist() == list(PALETTE[1])


def test_boxes_without_any_leave_the_picture():
    assert np.array_equal(draw_boxes(GREY, [], NAMES, PALETTE), GREY)


@pytest.mark.parametrize(
    ("size", "drawn", "factors"),
    [
        ((100, 50), (480, 240), (4.8, 4.8)),
        ((640, 480), (640, 480), (1, 1)),
        ((4000, 3000), (1600, 1200), (0.4, 0.4)),
        ((4000, 20), (1600, 8), (0.4, 0.4)),
        ((4000, 1), (1600, 1), (0.4, 1)),
    ],
)
def test_pictures_come_to_a_size_that_suits_labels(size, drawn, factors):
    width, height = size
    pixels, grown = picture_of(torch.full((3, height, width), 0.5), 480, 1600)
    assert pixels.shape == (drawn[1], drawn[0], 3)
    assert grown == pytest.approx(factors)
    assert (pixels == 128).all()


def test_boxes_scale_with_the_picture():
    (box,) = scaled([Box((10, 20, 30, 40), 1, 0.5, "crowd")], (2, 0.5))
    assert box == Box((20, 10, 60, 20), 1, 0.5, "crowd")


def test_detections_below_the_score_are_left_out():
    detections = {
        "boxes": torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        "scores": torch.tensor([0.9, 0.5, 0.25]),
        "labels": torch.tensor([2, 0, 1]),
    }
    assert detected(detections, 0.5) == [
        Box((0, 1, 2, 3), 2, pytest.approx(0.9)),
        Box((4, 5, 6, 7), 0, 0.5),
    ]
    assert len(detected(detections)) == 3


def test_truths_tell_crowds_and_difficult_ones():
    target = {
        "boxes": torch.tensor([[0.0, 0, 1, 1]] * 3),
        "labels": torch.tensor([0, 1, 2]),
        "iscrowd": torch.tensor([False, True, False]),
        "difficult": torch.tensor([False, False, True]),
    }
    assert [(box.label, box.note) for box in truths(target)] == [(0, ""), (1, "crowd"), (2, "difficult")]
    plain = {key: target[key] for key in ("boxes", "labels")}
    assert [box.note for box in truths(plain)] == ["", "", ""]
    assert all(box.score is None for box in truths(plain))


def test_dark_colours_become_bright_at_the_same_hue():
    lifted = bright([(0, 0, 0), (128, 0, 0), (64, 128, 0), (255, 255, 255)])
    assert lifted[0] == (150, 150, 150)
    assert lifted[1][0] > 190
    assert lifted[1][1:] == (0, 0)
    assert lifted[2][1] == pytest.approx(2 * lifted[2][0], abs=1)
    assert lifted[3] == (255, 255, 255)
