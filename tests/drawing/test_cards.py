"""Sheets of cards, read back from their pictures."""

from __future__ import annotations

import numpy as np
import pytest

from attnlab.drawing.cards import CaptionLine, Card, path_line, sheet
from attnlab.drawing.figures import RIGHT, WRONG


def box(page, colour):
    """Top, left, bottom and right of all pixels of a colour."""
    rows, columns = np.nonzero((page == colour).all(-1))
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def test_cards_are_read_from_left_to_right_with_frames_around_their_pictures():
    colours = [(value, 0, 200) for value in (10, 20, 33, 44)]
    cards = [Card(np.tile(np.array(c, np.uint8), (40, 50, 1)), [CaptionLine("name")], WRONG) for c in colours]
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
    lines = (CaptionLine(name, "99.9%", RIGHT), path_line(f"n01440764/{name}.JPEG"))
    page = sheet([Card(np.zeros((*size, 3), np.uint8), lines)] * 2, "a title longer than two cards " * 3)
    for edge in (page[:12], page[-12:], page[:, :12], page[:, -12:]):
        assert (edge == 255).all()
    assert sheet([], "No mistakes").shape[0] < 80
