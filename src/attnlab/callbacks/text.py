"""Text in pictures: the font, and text cut to a width."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

INK: Colour = (30, 30, 30)
GREY: Colour = (105, 105, 105)
ELLIPSIS = "…"


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, of a size in pixels."""
    found = ImageFont.load_default(size=size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def length(text: str, size: int) -> int:
    """Width of a line of text in pixels."""
    return round(font(size).getlength(text) + 0.5)


def plain(text: str) -> str:
    """One line without accents, which the font does not have."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def fitted(text: str, width: int, size: int, cut: Literal["end", "middle"] = "end") -> str:
    """The text, shortened by an ellipsis where it is wider than ``width`` pixels.

    Args:
        text: One line.
        width: Room in pixels.
        size: Font size in pixels.
        cut: Where characters are left out; in the middle, a file name keeps its number.
    """
    text = plain(text)
    if length(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        tail = kept // 2 if cut == "middle" else 0
        short = text[: kept - tail].rstrip() + ELLIPSIS + text[len(text) - tail :]
        if length(short, size) <= width:
            return short
    return ELLIPSIS


def write_upwards(sheet: Image.Image, place: tuple[int, int], text: str, size: int, colour: Colour) -> None:
    """Write a line from bottom to top; ``place`` (x, y) is its upper left corner on the sheet."""
    line = Image.new("L", (length(text, size), line_height(size)))
    ImageDraw.Draw(line).text((0, 0), text, fill=255, font=font(size))
    turned = line.transpose(Image.Transpose.ROTATE_90)
    sheet.paste(colour, (*place, place[0] + turned.width, place[1] + turned.height), turned)


def line_height(size: int) -> int:
    """Height in pixels of a line of text with its ascenders and descenders."""
    ascent, descent = font(size).getmetrics()
    return ascent + descent


def percent(share: float) -> str:
    """A share in 0..1 in per cent, with a decimal below ten: ``93%``, ``2.5%``, ``<0.1%``."""
    if share != share:
        return "NaN"
    value = 100 * share
    if 0 < value < 0.1:
        return "<0.1%"
    return f"{value:.1f}%" if 0 < value < 9.95 else f"{value:.0f}%"
