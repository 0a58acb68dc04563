"""Confusion matrices, read back from their pictures."""

from __future__ import annotations

import time

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from attnlab.drawing.confusion import confusion_picture, most_confused, row_shares
from tests.drawing.conftest import names_of


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
    drawn, other = (confusion_picture(confused(k), names_of(k)) for k in (classes, classes + 1))
    plain = confusion_picture(np.diag(np.diag(confused(classes))), names_of(classes))
    assert drawn.shape[0] > plain.shape[0]
    # The same two classes, of however many, look the same but for the title and the whole matrix.
    assert drawn[60:120, 180:300].shape == other[60:120, 180:300].shape


@pytest.mark.parametrize(("classes", "written"), [(2, 2 * 2), (25, 25 * 25), (26, 0)])
def test_cells_have_percentages_up_to_25_classes(figure_of, classes, written):
    confusion_picture(np.full((classes, classes), 10), [str(k) for k in range(classes)])
    texts = [text.get_text() for text in figure_of[0].axes[0].texts]
    assert texts == [f"{100 / classes:.0f}"] * written


def test_percentages_are_those_of_the_row_in_its_cell(figure_of):
    confusion_picture(np.array([[997, 3, 0], [0, 0, 0], [1, 2, 1]]), ["a", "b", "c"])
    cells = {text.get_position()[::-1]: text.get_text() for text in figure_of[0].axes[0].texts}
    assert cells == {(0, 0): "100", (0, 1): "<1", (2, 0): "25", (2, 1): "50", (2, 2): "25"}
    assert figure_of[0].get_suptitle() == "3 classes: 1004 images, 99% correct"


def luminance(colour):
    """Relative luminance of an sRGB colour, by its definition (IEC 61966-2-1)."""
    value = np.asarray(colour[:3])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) @ (
        0.2126,
        0.7152,
        0.0722,
    )


def test_percentages_can_be_read_on_any_blue(figure_of):
    """WCAG's contrast of at least 4.5 to 1."""
    for first in range(1, 101, 20):
        matrix = np.zeros((20, 20), int)
        matrix[:, 0] = range(first, first + 20)
        matrix[:, 1] = 100 - matrix[:, 0]
        confusion_picture(matrix, [str(k) for k in range(20)])
        axes = figure_of.pop().axes[0]
        inks = {
            text.get_position()[1]: text.get_color() for text in axes.texts if text.get_position()[0] == 0
        }
        for row in range(20):
            ground = luminance(axes.images[0].to_rgba((first + row) / 100))
            ink = luminance(to_rgb(inks[row]))
            assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5


def test_the_list_beside_a_large_matrix_counts_its_pairs(figure_of):
    matrix = np.diag(np.full(60, 10))
    matrix[3, 5], matrix[9, 0] = 4, 2
    confusion_picture(matrix, [f"class {k}" for k in range(60)])
    (axes,) = (axes for axes in figure_of[0].axes if "Most confused" in axes.get_title("left"))
    texts = {text.get_text() for text in axes.texts}
    assert texts == {"4 of 14", "2 of 12", "class 3 → class 5", "class 9 → class 0"}
