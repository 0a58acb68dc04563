"""Cards with captions on a sheet."""

import numpy as np
import pytest

from attnlab.callbacks.sheets import CARD, FRAME, RIGHT, WRONG, Card, Line, path_line, sheet
from attnlab.callbacks.text import fitted, length, percent


def blue(value):
    """A colour that no text has, at whose edges there are all greys."""
    return value, 0, 200


def card(value, frame=None, **line):
    return Card(np.tile(np.array(blue(value), np.uint8), (40, 50, 1)), (Line("name", **line),), frame)


def box(page, colour):
    """Top, left, bottom and right of all pixels of a colour."""
    rows, columns = np.nonzero((page == colour).all(-1))
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def test_cards_are_read_from_left_to_right_and_down():
    page = sheet([card(10), card(20), card(33), card(44)], "four", columns=3)
    places = [box(page, blue(value)) for value in (10, 20, 33, 44)]
    assert all((bottom - top, right - left) == (40, 50) for top, left, bottom, right in places)
    tops, lefts = [place[0] for place in places], [place[1] for place in places]
    assert tops[0] == tops[1] == tops[2] < tops[3]
    assert lefts[0] == lefts[3] < lefts[1] < lefts[2]


def test_a_frame_is_around_its_picture_alone():
    page = sheet([card(10, RIGHT, colour=(1, 1, 1)), card(20, WRONG, colour=(1, 1, 1))], "two")
    for value, colour in ((10, RIGHT), (20, WRONG)):
        top, left, bottom, right = box(page, blue(value))
        assert box(page, colour) == (top - FRAME, left - FRAME, bottom + FRAME, right + FRAME)
        assert tuple(page[top - FRAME - 1, left]) == CARD


@pytest.mark.parametrize("size", [(40, 50), (10, 300)])
def test_nothing_is_cut_off(size):
    """Long captions and a long title leave the margin white, and the cards' inner margin as it is."""
    name = "a very long class name that no card has room for"
    lines = (Line(name, "99.9%", WRONG), path_line(f"n01440764/{name}.JPEG"))
    page = sheet([Card(np.zeros((*size, 3), np.uint8), lines)] * 2, "a title much longer than two cards " * 3)
    assert (page[:, :8] == 255).all()
    assert (page[:, -8:] == 255).all()
    assert (page[-8:] == 255).all()
    _, left, _, _ = box(page, CARD)
    assert (page[60:-40, left + 1 : left + 6] == CARD).all()


def test_a_sheet_without_cards_is_its_title():
    page = sheet([], "No mistakes")
    assert page.shape[0] < 80
    assert (page < 128).any()


def test_fitted_keeps_to_its_width():
    assert fitted("cat", 100, 12) == "cat"
    for width in (15, 40, 90):
        short = fitted("European fire salamander", width, 12)
        assert length(short, 12) <= width
        assert short.endswith("…")
        assert "European fire salamander".startswith(short[:-1])
    middle = fitted("n01440764/ILSVRC2012_val_00000293.JPEG", 120, 12, cut="middle")
    assert length(middle, 12) <= 120
    assert middle.startswith("n01")
    assert middle.endswith("JPEG")


def test_names_lose_accents_that_the_font_lacks_and_line_breaks():
    assert fitted("bébé\nÄpfel", 500, 12) == "bebe Apfel"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100%"),
        (0.934, "93%"),
        (0.0994, "9.9%"),
        (0.0996, "10%"),
        (0.025, "2.5%"),
        (0.0002, "<0.1%"),
        (0.0, "0%"),
        (float("nan"), "NaN"),
    ],
)
def test_percent(share, text):
    assert percent(share) == text
