"""Sheets of small pictures with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from attnlab.drawing.figures import GREY, INK, RIGHT, TITLE, WRONG, line_height, text_width, words
from attnlab.drawing.layout import below, beside, framed, grid, margin
from attnlab.drawing.pixels import Colour, Pixels

__all__ = ["RIGHT", "WRONG", "Card", "Line", "path_line", "sheet"]

GROUND: Colour = (244, 244, 244)
MARGIN, GAP, PADDING, FRAME = 16, 10, 7, 4
NARROWEST = 150


@dataclass(frozen=True)
class Line:
    """A line of a caption: text at the left, shortened where it is too long, and a figure at the right.

    Attributes:
        text: What may be shortened.
        figure: What is always shown in full.
        colour: RGB.
        size: Size of the letters in pixels.
        is_path: The text is shortened in the middle.
    """

    text: str
    figure: str = ""
    colour: Colour = INK
    size: int = 12
    is_path: bool = False


@dataclass(frozen=True)
class Card:
    """A picture with its caption.

    Attributes:
        image: RGB, uint8 (H, W, 3).
        lines: The caption below it.
        frame: RGB colour around the picture (``RIGHT``, ``WRONG``); None for none.
    """

    image: Pixels
    lines: Sequence[Line] = field(default_factory=tuple)
    frame: Colour | None = None


def path_line(name: str) -> Line:
    """The file's name, small and grey."""
    return Line(name, colour=GREY, size=10, is_path=True)


def sheet(cards: Sequence[Card], title: str, columns: int = 6) -> Pixels:
    """Cards in rows, from left to right, below a title.

    Args:
        cards: In the order in which they are to be read; there may be none.
        title: What the sheet shows.
        columns: Cards a row, at most.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    parts = [words(title, TITLE, bold=True)]
    if cards:
        columns = max(1, min(columns, len(cards)))
        high = max(card.image.shape[0] for card in cards) + 2 * FRAME
        wide = max(NARROWEST, *(card.image.shape[1] + 2 * FRAME for card in cards))
        drawn = [_drawn(card, high, wide) for card in cards]
        low = max(card.shape[0] for card in drawn)
        drawn = [margin(framed(card, low, wide, GROUND), PADDING, GROUND) for card in drawn]
        # The gap is right of and below each card; the last ones' are the sheet's margin.
        parts.append(grid([framed(c, c.shape[0] + GAP, c.shape[1] + GAP) for c in drawn], columns))
    return margin(below(parts, GAP), MARGIN)


def _drawn(card: Card, height: int, width: int) -> Pixels:
    """One card's picture in the middle of (height, width), and its caption below."""
    picture = card.image if card.frame is None else margin(card.image, FRAME, card.frame)
    parts = [framed(picture, height, width, GROUND, (0.5, 0.5)), np.full((3, 1, 3), GROUND, np.uint8)]
    for line in card.lines:
        figure = text_width(line.figure, line.size) if line.figure else 0
        room = width - figure - (8 if figure else 0)
        text = words(line.text, line.size, line.colour, GROUND, room, line.is_path)
        text = framed(text, line_height(line.size), width - figure, GROUND)
        parts.append(beside([text, words(line.figure, line.size, line.colour, GROUND)]) if figure else text)
    return below(parts, 0, GROUND)
