"""Composing images: side by side, stacked, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attnlab.drawing.figures import GREY, TITLE, WHITE, words
from attnlab.drawing.pixels import Colour, Pixels

# Maximum number of legend entries; minimum width of pictures with text.
MOST, NARROWEST = 24, 200


def framed(picture: Pixels, height: int, width: int, ground: Colour = WHITE, place: float = 0) -> Pixels:
    """An image on a sheet (height, width, 3) of a colour, at the upper left, or centred with 0.5."""
    sheet = np.empty((height, width, 3), np.uint8)
    sheet[:] = ground
    high, wide = picture.shape[:2]
    y, x = round(place * (height - high)), round(place * (width - wide))
    sheet[y : y + high, x : x + wide] = picture
    return sheet


def margin(picture: Pixels, size: int, ground: Colour = WHITE) -> Pixels:
    """An image with a margin of a colour."""
    return framed(picture, picture.shape[0] + 2 * size, picture.shape[1] + 2 * size, ground, 0.5)


def stacked(parts: Sequence[Pixels], axis: int, gap: int = 0, ground: Colour = WHITE) -> Pixels:
    """Images stacked vertically (axis 0) or horizontally (axis 1), aligned at their upper left corners."""
    size = [max(part.shape[0] for part in parts), max(part.shape[1] for part in parts)]
    cells = []
    for left, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
        size[axis] = part.shape[axis] + (gap if left else 0)
        cells.append(framed(part, size[0], size[1], ground))
    return np.concatenate(cells, axis)


def grid(panels: Sequence[Pixels], columns: int = 2) -> Pixels:
    """Panels of any size on a white sheet, in rows from left to right."""
    width = max(panel.shape[1] for panel in panels)
    cells = [framed(panel, panel.shape[0], width) for panel in panels]
    return stacked([stacked(cells[i : i + columns], 1) for i in range(0, len(cells), columns)], 0)


def swatch(colour: Sequence[int]) -> Pixels:
    """A square of a colour with a thin edge."""
    return margin(np.full((11, 11, 3), colour, np.uint8), 1, GREY)


def legend(entries: Sequence[tuple[Pixels, str]], width: int) -> Pixels:
    """Swatches with names, in lines of at most ``width`` pixels; at most the first `MOST`."""
    pieces = [
        stacked([framed(mark, 18, 13, place=0.5), words(name, width=width - 20)], 1, 5)
        for mark, name in entries[:MOST]
    ]
    if len(entries) > MOST:
        pieces.append(words(f"and {len(entries) - MOST} more", ink=GREY))
    lines: list[list[Pixels]] = [[]]
    for piece in pieces:
        if lines[-1] and sum(part.shape[1] + 14 for part in lines[-1]) + piece.shape[1] > width:
            lines.append([])
        lines[-1].append(piece)
    return stacked([stacked(line, 1, 14) for line in lines], 0, 3)


def panel(
    name: str, note: str, cells: Sequence[tuple[Pixels, Pixels]], key: Sequence[tuple[Pixels, str]]
) -> Pixels:
    """Captioned images side by side, below a name and a note and above a legend."""
    # Leave room for captions of narrow images.
    width = max(NARROWEST, *(part.shape[1] for cell in cells for part in cell))
    row = stacked(
        [framed(cell, cell.shape[0], width) for cell in (stacked(pair, 0, 2) for pair in cells)], 1, 8
    )
    figures = words(note, TITLE, GREY)
    title = words(name, TITLE, width=row.shape[1] - figures.shape[1] - 16, middle=True, bold=True)
    parts = [stacked([title, figures], 1, 16), row, *([legend(key, row.shape[1])] if key else [])]
    return margin(stacked(parts, 0, 6), 8)
