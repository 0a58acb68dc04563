"""Pictures put together: side by side, in rows, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attnlab.drawing.figures import GREY, TEXT, WHITE, line_height, words
from attnlab.drawing.pixels import Colour, Pixels

# A legend has at most so many entries.
MOST = 24


def framed(
    picture: Pixels, height: int, width: int, ground: Colour = WHITE, place: tuple[float, float] = (0, 0)
) -> Pixels:
    """The picture on a sheet (height, width, 3) of a colour.

    Args:
        picture: RGB, uint8 (h, w, 3); what the sheet has no room for is cut off.
        height: The sheet's.
        width: The sheet's.
        ground: The sheet's colour.
        place: Share of the free room that is above and left of the picture; 0.5 is the middle.
    """
    sheet = np.empty((height, width, 3), np.uint8)
    sheet[:] = ground
    picture = picture[:height, :width]
    y, x = (round(share * (room - size)) for share, room, size in zip(place, sheet.shape, picture.shape))
    sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def beside(parts: Sequence[Pixels], gap: int = 0, ground: Colour = WHITE, middle: bool = False) -> Pixels:
    """Pictures from left to right, aligned at their tops or in the middle."""
    height, last = max(part.shape[0] for part in parts), len(parts) - 1
    place = (0.5 if middle else 0, 0)
    cells = [framed(p, height, p.shape[1] + (gap if i < last else 0), ground, place) for i, p in enumerate(parts)]
    return np.concatenate(cells, axis=1)


def below(parts: Sequence[Pixels], gap: int = 0, ground: Colour = WHITE) -> Pixels:
    """Pictures from top to bottom, aligned at the left."""
    width, last = max(part.shape[1] for part in parts), len(parts) - 1
    return np.concatenate(
        [framed(p, p.shape[0] + (gap if i < last else 0), width, ground) for i, p in enumerate(parts)]
    )


def margin(picture: Pixels, size: int, ground: Colour = WHITE) -> Pixels:
    """The picture with a margin of so many pixels on all sides."""
    return framed(picture, picture.shape[0] + 2 * size, picture.shape[1] + 2 * size, ground, (0.5, 0.5))


def grid(panels: Sequence[Pixels], columns: int = 2) -> Pixels:
    """Panels of any sizes on one white sheet, from left to right, in rows as high as they must be."""
    width = max(panel.shape[1] for panel in panels)
    cells = [framed(panel, panel.shape[0], width) for panel in panels]
    return below([beside(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def swatch(colour: Sequence[int]) -> Pixels:
    """A square of a colour with a thin edge, as high as a legend's line."""
    return framed(margin(np.full((11, 11, 3), colour, np.uint8), 1, GREY), line_height(TEXT), 13, place=(0.5, 0))


def legend(entries: Sequence[tuple[Pixels, str]], width: int) -> Pixels:
    """Swatches with their names, in lines of at most ``width`` pixels; of very many the first ones."""
    pieces = [
        beside([mark, words(name, TEXT, width=max(20, width - mark.shape[1] - 5))], 5)
        for mark, name in entries[:MOST]
    ]
    if len(entries) > MOST:
        pieces.append(words(f"and {len(entries) - MOST} more", TEXT, GREY))
    lines: list[list[Pixels]] = [[]]
    room = width
    for piece in pieces:
        if lines[-1] and piece.shape[1] > room:
            lines.append([])
            room = width
        lines[-1].append(piece)
        room -= piece.shape[1] + 14
    return below([beside(line, 14) for line in lines], 3)
