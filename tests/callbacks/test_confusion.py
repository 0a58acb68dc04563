"""The picture of a confusion matrix."""

import numpy as np
import pytest

from attnlab.callbacks.confusion import (
    GRID,
    NO_IMAGES,
    WHITE_FROM,
    confusion_picture,
    heat,
    most_confused,
    row_shares,
    shade,
)

MATRIX = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]])


def luminance(colours):
    """Relative luminance of sRGB colours, by its definition (IEC 61966-2-1)."""
    value = np.asarray(colours) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_rows_are_normalised_and_empty_ones_have_no_share():
    shares = row_shares(MATRIX)
    assert shares[0].tolist() == [0.8, 0.2, 0.0]
    assert np.isnan(shares[1]).all()
    assert shares[2].tolist() == [0.25, 0.0, 0.75]


def test_more_is_darker_from_almost_white_to_almost_black():
    shades = shade(np.linspace(0, 1, 60))
    brightness = luminance(shades)
    assert (np.diff(brightness) < 0).all()
    assert brightness[0] > 0.9
    assert brightness[-1] < 0.05
    assert (shades[5:, 2] > shades[5:, 0]).all()  # blue


def test_written_numbers_can_be_read():
    """WCAG's contrast of at least 4.5 to 1."""
    shares = np.linspace(0, 1, 101)
    brightness = luminance(shade(shares))
    assert ((brightness[shares <= WHITE_FROM] + 0.05) / 0.05).min() > 4.5
    assert (1.05 / (brightness[shares > WHITE_FROM] + 0.05)).min() > 4.5


def test_cells_have_their_colours():
    pixels = heat(MATRIX, 20)
    assert pixels.shape == (60, 60, 3)
    for row in range(3):
        for column in range(3):
            expected = NO_IMAGES if row == 1 else tuple(shade(np.array(row_shares(MATRIX)[row, column])))
            inside = pixels[20 * row : 20 * row + 19, 20 * column : 20 * column + 19]
            assert (inside == expected).all()
    assert (pixels[19] == GRID).all()


def test_small_cells_have_no_grid():
    assert np.array_equal(heat(MATRIX, 1), shade(row_shares(MATRIX)))


def test_thousands_of_classes_are_drawn_in_blocks_of_their_largest_share():
    matrix = np.zeros((2100, 2100), np.int64)
    np.fill_diagonal(matrix, 1)
    matrix[7] = 0
    matrix[7, 2099] = 5
    matrix[2097:] = 0
    pixels = heat(matrix, 1)
    assert pixels.shape == (700, 700, 3)
    full, none = tuple(shade(np.array(1.0))), tuple(shade(np.array(0.0)))
    assert tuple(pixels[2, 699]) == full
    assert tuple(pixels[300, 300]) == full
    assert tuple(pixels[2, 3]) == none
    assert (pixels[699] == NO_IMAGES).all()


def test_most_confused_pairs_come_by_count():
    matrix = np.array([[90, 3, 7], [0, 5, 3], [9, 0, 1]])
    assert most_confused(matrix, 3) == [(2, 0, 9, 10), (0, 2, 7, 100), (0, 1, 3, 100)]
    assert len(most_confused(matrix, 20)) == 4
    assert most_confused(np.diag([4, 4]), 5) == []
    assert matrix[0, 0] == 90  # The matrix itself is left alone.


@pytest.mark.parametrize("classes", [1, 2, 10, 25, 26, 40, 41, 150])
def test_the_picture_holds_the_matrix_and_cuts_nothing_off(classes):
    rng = np.random.default_rng(classes)
    matrix = rng.integers(0, 9, (classes, classes))
    matrix[classes // 2] = 0
    names = [f"a class with the number {index}" for index in range(classes)]
    picture = confusion_picture(matrix, names)
    assert picture.dtype == np.uint8
    for edge in (picture[:8], picture[-8:], picture[:, :8], picture[:, -8:]):
        assert (edge == 255).all()
    # Sought without its first row and column, where nothing is written either.
    dark = np.nonzero((picture == NO_IMAGES).all(-1).sum(1) > classes)[0]
    assert len(dark) >= 5


def test_percentages_are_written_up_to_25_classes():
    def ink(classes, side):
        cells = confusion_picture(np.full((classes, classes), 10), [str(k) for k in range(classes)])
        colour = shade(np.array(1 / classes))
        top, left = (axis.min() for axis in np.nonzero((cells == colour).all(-1)))
        cell = cells[top : top + side, left : left + side]
        return bool((cell != colour).any())

    assert ink(25, side=33)
    assert not ink(26, side=18)


def test_larger_matrices_list_their_pairs():
    matrix = np.diag(np.full(60, 10))
    names = [f"class {index}" for index in range(60)]
    plain = confusion_picture(matrix, names)
    matrix[3, 5] = 4
    assert confusion_picture(matrix, names).shape[0] > plain.shape[0] + 20
