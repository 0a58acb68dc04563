"""Sheets of thumbnails with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from attnlab.drawing.figures import GREY, INK, TITLE, words
from attnlab.drawing.layout import framed, grid, margin, stacked
from attnlab.drawing.pixels import Colour, Pixels

GROUND: Colour = (244, 244, 244)
MARGIN, GAP, PADDING, FRAME, NARROWEST = 16, 10, 7, 4, 150


@dataclass(frozen=True)
class CaptionLine:
    """A line of a caption: a text, shortened if too long (a path in its middle), and a figure."""

    text: str
    figure: str = ""
    colour: Colour = INK
    size: int = 12
    is_path: bool = False


@dataclass(frozen=True)
class Card:
    """An image (H, W, 3), its caption, and the frame's colour (``figures.RIGHT`` or ``WRONG``) or None."""

    image: Pixels
    lines: Sequence[CaptionLine] = field(default_factory=tuple)
    frame: Colour | None = None


def path_line(name: str) -> CaptionLine:
    """A file's name, small and grey."""
    return CaptionLine(name, colour=GREY, size=10, is_path=True)


def sheet(cards: Sequence[Card], title: str, columns: int = 6) -> Pixels:
    """Any number of cards in rows of at most ``columns`` below a title: RGB, uint8 (H, W, 3)."""
    parts = [words(title, TITLE, bold=True)]
    if cards:
        size = np.max([card.image.shape[:2] for card in cards], 0) + 2 * FRAME
        drawn = [_drawn(card, int(size[0]), max(NARROWEST, int(size[1]))) for card in cards]
        low, wide = max(card.shape[0] for card in drawn), drawn[0].shape[1]
        drawn = [margin(framed(card, low, wide, GROUND), PADDING, GROUND) for card in drawn]
        spaced = [framed(card, card.shape[0] + GAP, card.shape[1] + GAP) for card in drawn]
        parts.append(grid(spaced, columns)[:-GAP, :-GAP])
    return margin(stacked(parts, 0, GAP), MARGIN)


def _drawn(card: Card, height: int, width: int) -> Pixels:
    """One card: its image centred in (height, width), and its caption below."""
    picture = card.image if card.frame is None else margin(card.image, FRAME, card.frame)
    parts = [framed(picture, height, width, GROUND, 0.5)]
    for line in card.lines:
        figure = words(line.figure, line.size, line.colour, GROUND)
        room = width - figure.shape[1]
        text = words(line.text, line.size, line.colour, GROUND, room - 6, line.is_path)
        parts.append(stacked([framed(text, text.shape[0], room, GROUND), figure], 1))
    return stacked(parts, 0, 2, GROUND)
