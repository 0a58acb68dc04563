"""Sheets of small pictures with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from attnlab.callbacks.drawing import Pixels
from attnlab.callbacks.text import GREY, INK, Colour, fitted, font, length, line_height

# A green and a red that also differ in lightness for eyes that do not tell the hues apart.
RIGHT: Colour = (0, 140, 95)
WRONG: Colour = (200, 40, 25)
CARD: Colour = (245, 245, 245)

MARGIN, GAP, PADDING, FRAME = 16, 10, 7, 3
NARROWEST = 146
TITLE = 16


@dataclass(frozen=True)
class Line:
    """A line of a caption: text at the left, shortened where it is too long, and a figure at the right.

    Attributes:
        text: What may be shortened.
        figure: What is always shown in full.
        colour: RGB.
        size: Font size in pixels.
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
        frame: RGB colour around the picture; None for none.
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
    columns = max(1, min(columns, len(cards)))
    rows = -(-len(cards) // columns)
    picture_height = max((card.image.shape[0] for card in cards), default=0)
    inside = max([NARROWEST, *(card.image.shape[1] + 2 * FRAME for card in cards)])
    caption = max((sum(line_height(line.size) + 1 for line in card.lines) for card in cards), default=0)
    width = inside + 2 * PADDING
    height = 2 * PADDING + 2 * FRAME + picture_height + 5 + caption
    top = MARGIN + line_height(TITLE) + GAP
    across = max(columns * (width + GAP) - GAP, length(title, TITLE)) + 2 * MARGIN
    down = top + rows * (height + GAP) - GAP + MARGIN
    page = Image.new("RGB", (across, down), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=font(TITLE))
    for index, card in enumerate(cards):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * (width + GAP), top + row * (height + GAP)
        draw.rounded_rectangle((x, y, x + width - 1, y + height - 1), radius=4, fill=CARD)
        _place(page, draw, card, (x + PADDING, y + PADDING), inside, picture_height + 2 * FRAME)
    return np.asarray(page)


def _place(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    card: Card,
    corner: tuple[int, int],
    width: int,
    height: int,
) -> None:
    """Draw one card's picture, in the middle of (height, width), and its caption below."""
    h, w = card.image.shape[:2]
    x, y = corner[0] + (width - w) // 2, corner[1] + (height - h) // 2
    if card.frame is not None:
        draw.rectangle((x - FRAME, y - FRAME, x + w + FRAME - 1, y + h + FRAME - 1), fill=card.frame)
    page.paste(Image.fromarray(card.image), (x, y))
    x, y = corner[0], corner[1] + height + 5
    for line in card.lines:
        figure = length(line.figure, line.size) if line.figure else 0
        room = width - figure - (8 if line.figure else 0)
        text = fitted(line.text, room, line.size, "middle" if line.is_path else "end")
        draw.text((x, y), text, fill=line.colour, font=font(line.size))
        draw.text((x + width - figure, y), line.figure, fill=line.colour, font=font(line.size))
        y += line_height(line.size) + 1
