"""Confusion matrices, curves and sheets of cards, read back from their pictures."""

import time

import numpy as np
import pytest
import torch

from attnlab.drawing.cards import Card, Line, path_line, sheet
from attnlab.drawing.confusion import confusion_picture, most_confused, row_shares
from attnlab.drawing.curves import precision_picture
from attnlab.drawing.figures import RIGHT, WRONG
from attnlab.drawing.pixels import denormalise, fitted_to, percent, thumbnail


def names_of(classes):
    return [f"a class with the number {index}" for index in range(classes)]


def confused(classes):
    matrix = 9 * np.eye(classes, dtype=np.int64)
    matrix[0, -1] = 3
    return matrix


def test_rows_are_normalised_and_empty_ones_have_no_share():
    shares = row_shares(np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]]))
    assert shares[0].tolist() == [0.8, 0.2, 0.0]
    assert np.isnan(shares[1]).all()


def test_most_confused_pairs_come_by_count():
    matrix = np.array([[90, 3, 7], [0, 5, 3], [9, 0, 1]])
    assert most_confused(matrix, 3) == [(2, 0, 9, 10), (0, 2, 7, 100), (0, 1, 3, 100)]
    assert len(most_confused(matrix, 20)) == 4
    assert most_confused(np.diag([4, 4]), 5) == []
    assert matrix[0, 0] == 90  # The matrix itself is left alone.


@pytest.mark.parametrize("classes", [1, 2, 20, 40, 41, 1000])
def test_a_confusion_picture_is_bounded_and_cuts_nothing_off(classes):
    start = time.perf_counter()
    matrix = confused(classes)
    matrix[classes // 2] = 0
    drawn = confusion_picture(matrix, names_of(classes))
    assert time.perf_counter() - start < 6
    assert drawn.shape[0] < 1200
    assert drawn.shape[1] < 1500
    for edge in (drawn[:8], drawn[-8:], drawn[:, :8], drawn[:, -8:]):
        assert (edge == 255).all()


def test_cells_are_darker_the_more_they_hold_and_rows_without_images_are_grey():
    matrix = np.array([[60, 30, 10], [0, 0, 0], [0, 0, 9]])
    drawn = confusion_picture(matrix, ["a", "b", "c"]).astype(int)
    # The frame of the axes gives the place of the cells, of 60 pixels each.
    rows, columns = np.nonzero((drawn[..., 2] - drawn[..., 0] > 5) & (drawn[..., 2] > 60))
    top, left = rows.min(), columns.min()
    middle = [[drawn[top + 60 * i + 12, left + 60 * j + 12].sum() for j in range(3)] for i in range(3)]
    assert middle[0][0] < middle[0][1] < middle[0][2] < middle[2][0]
    grey = drawn[top + 64 : top + 116, left + 4 : left + 176]
    assert np.ptp(grey, axis=-1).max() < 12
    assert len(np.unique(grey)) > 2  # hatched


@pytest.mark.parametrize("classes", [60, 1000])
def test_of_many_classes_the_confused_ones_are_seen(classes):
    matrix = confused(classes)
    plain = confusion_picture(np.diag(np.diag(matrix)), names_of(classes))
    assert confusion_picture(matrix, names_of(classes)).shape[0] > plain.shape[0]
    # The same two classes, of however many, look the same but for the title and the whole matrix.
    cells = [confusion_picture(confused(k), names_of(k))[60:120, 180:300] for k in (classes, classes + 1)]
    assert cells[0].shape == cells[1].shape


@pytest.mark.parametrize("classes", [1, 10, 11, 80])
def test_curves_lie_at_their_precision(classes):
    precision = np.full((10, 101, classes), 0.0)
    precision[0] = 0.5
    drawn = precision_picture(precision, names_of(classes), "a title")
    blue = (drawn == (0, 114, 190)).all(-1)
    level = blue[:, :450].sum(1)
    # Both ends of the axis: the black line of the mean over IoUs is at 0.05, the orange one at 0.
    bottom = np.flatnonzero((drawn == (230, 120, 30)).all(-1)[:, :450].sum(1) > 300)
    height = bottom.mean() - np.flatnonzero(level > 300).mean()
    assert height / (360 / 1.01) == pytest.approx(0.5, abs=0.01)
    assert drawn.shape[1] < 1500


def test_classes_without_truths_have_no_curve():
    precision = np.full((10, 101, 3), 0.5)
    precision[:, :, 1] = -1
    both = precision_picture(precision[:, :, [0, 2]], ["a", "c"])
    assert np.array_equal(precision_picture(precision, ["a", "b", "c"]), both)
    assert precision_picture(np.full((10, 101, 2), -1.0), ["a", "b"]) is None


def box(page, colour):
    """Top, left, bottom and right of all pixels of a colour."""
    rows, columns = np.nonzero((page == colour).all(-1))
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def test_cards_are_read_from_left_to_right_with_frames_around_their_pictures():
    colours = [(value, 0, 200) for value in (10, 20, 33, 44)]
    cards = [Card(np.tile(np.array(c, np.uint8), (40, 50, 1)), [Line("name")], WRONG) for c in colours]
    page = sheet(cards, "four", columns=3)
    places = [box(page, colour) for colour in colours]
    assert all((bottom - top, right - left) == (40, 50) for top, left, bottom, right in places)
    tops, lefts = [place[0] for place in places], [place[1] for place in places]
    assert tops[0] == tops[1] == tops[2] < tops[3]
    assert lefts[0] == lefts[3] < lefts[1] < lefts[2]
    top, left, _, _ = places[0]
    assert (page[top - 4 : top, left - 4] == WRONG).all()


@pytest.mark.parametrize("size", [(40, 50), (10, 300)])
def test_long_captions_and_titles_leave_the_margin_white(size):
    name = "a very long class name that no card has room for"
    lines = (Line(name, "99.9%", RIGHT), path_line(f"n01440764/{name}.JPEG"))
    page = sheet([Card(np.zeros((*size, 3), np.uint8), lines)] * 2, "a title longer than two cards " * 3)
    for edge in (page[:12], page[-12:], page[:, :12], page[:, -12:]):
        assert (edge == 255).all()
    assert sheet([], "No mistakes").shape[0] < 80


def test_small_images_grow_by_whole_factors_and_large_ones_shrink():
    small = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)
    grown = thumbnail(small, 8)
    assert np.array_equal(grown, small.permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1))
    assert thumbnail(torch.zeros(3, 100, 400, dtype=torch.uint8), 128).shape == (32, 128, 3)
    assert thumbnail(torch.zeros(3, 1, 4000, dtype=torch.uint8), 128).shape == (1, 128, 3)


@pytest.mark.parametrize(
    ("size", "drawn", "factors"),
    [((100, 50), (480, 240), (4.8, 4.8)), ((640, 480), (640, 480), (1, 1)), ((4000, 1), (1600, 1), (0.4, 1))],
)
def test_pictures_come_to_a_size_that_suits_labels(size, drawn, factors):
    pixels, grown = fitted_to(torch.full((3, size[1], size[0]), 0.5), 480, 1600)
    assert pixels.shape == (drawn[1], drawn[0], 3)
    assert grown == pytest.approx(factors)
    assert (pixels == 128).all()


def test_denormalise_is_the_inverse_of_normalising():
    original = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normal = (original / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(denormalise(normal, mean, std), original)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100%"), (0.0994, "9.9%"), (0.0996, "10%"), (0.0002, "<0.1%"), (0.0, "0%"), (np.nan, "NaN")],
)
def test_percent(share, text):
    assert percent(share) == text
