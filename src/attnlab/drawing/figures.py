"""matplotlib's figures and text as arrays: fonts that have the letters, and text cut to a width."""

from __future__ import annotations

import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findSystemFonts, fontManager, get_font
from numpy.typing import NDArray

from attnlab.drawing.pixels import Colour, Pixels

INK: Colour = (30, 30, 30)
GREY: Colour = (100, 100, 100)
WHITE: Colour = (255, 255, 255)
# A green and a red that also differ in lightness, for eyes that do not tell the hues apart.
RIGHT: Colour = (0, 140, 95)
WRONG: Colour = (205, 30, 25)
TEXT, TITLE = 13, 15
# At 72 dots an inch, a point is a pixel.
DPI = 72
# The font that comes with matplotlib, and its letter for those that no font has.
OWN_FONT, MISSING = "DejaVu Sans", "□"
# What this process has been warned of: once is enough.
_warned: list[str] = []


def new_figure(width: int, height: int) -> Figure:
    """A white figure of a size in pixels, in which sizes of letters and lines are pixels, too."""
    # The hundredth keeps a quotient just below a whole number from losing a pixel.
    return Figure(((width + 0.01) / DPI, (height + 0.01) / DPI), DPI, facecolor="white")


def axes_at(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes of a size in pixels; x, y is their upper left corner, from that of the figure."""
    across, down = figure.bbox.size
    return figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))


def pixels_of(figure: Figure, margin: int | None = None) -> Pixels:
    """The drawn figure, uint8 (H, W, 3); with a margin, all white beyond so many pixels is cut off."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    if margin is None:
        return drawn
    rows, columns = np.nonzero((drawn < 255).any(-1))
    inside = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return np.pad(inside, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)


@contextmanager
def plain_style(texts: Iterable[str]) -> Iterator[None]:
    """Within it matplotlib has its default settings, whatever a user's own are, and fonts for the texts."""
    light = {"axes.edgecolor": "0.4", "xtick.color": "0.4", "ytick.color": "0.4", "axes.linewidth": 0.8}
    dark = {"xtick.labelcolor": "0.1", "ytick.labelcolor": "0.1", "text.parse_math": False, "font.size": 12}
    family = families("".join(texts))
    weight = _weight(family, True)
    titles = {"axes.titlelocation": "left", "axes.titlesize": TEXT, "axes.titleweight": weight}
    whole = {"font.family": family, "figure.titlesize": TITLE, "figure.titleweight": weight}
    with style.context(["default", {**light, **dark, **titles, **whole}]):
        yield


def readable(text: str) -> str:
    """One line of letters that can be drawn; those that no installed font has become boxes.

    Warns, once, of such letters, and says what to install.
    """
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    letters = [letter for letter in text if unicodedata.category(letter)[0] != "C"]
    unknown = {letter for letter in letters if _font_of(letter) is None}
    if unknown and not _warned:
        east = any(unicodedata.east_asian_width(letter) in "WF" for letter in unknown)
        _warned.append(
            f"No installed font has the letters {''.join(sorted(unknown))}: pictures show {MISSING} "
            f"for such letters. Install a font that has them, e.g. "
            f"`apt-get install {'fonts-noto-cjk' if east else 'fonts-noto'}`, and start again."
        )
        warnings.warn(_warned[0], stacklevel=2)
    return "".join(MISSING if letter in unknown else letter for letter in letters)


def families(text: str) -> list[str]:
    """The font families that have a text's letters, matplotlib's own first."""
    found = (_font_of(letter) for letter in readable(text))
    return list(dict.fromkeys([OWN_FONT, *(name for name in found if name)]))


def fitted(text: str, width: float, size: int = TEXT, middle: bool = False, bold: bool = False) -> str:
    """A line of text, shortened by an ellipsis where it is wider than ``width``.

    Args:
        text: What is to be written.
        width: Room in pixels.
        size: Size of the letters in pixels.
        middle: Letters are left out in the middle and not at the end: a file name keeps its number.
        bold: The letters are bold.
    """
    text = readable(text)
    if _width(text, size, bold) <= width:
        return text

    def short(kept: int) -> str:
        tail = kept // 2 if middle else 0
        return text[: kept - tail].rstrip() + "…" + text[len(text) - tail :]

    return short(
        max(0, bisect_right(range(len(text)), width, key=lambda n: _width(short(n), size, bold)) - 1)
    )


def words(
    text: str,
    size: int = TEXT,
    ink: Colour = INK,
    ground: Colour = WHITE,
    width: float = np.inf,
    middle: bool = False,
    bold: bool = False,
) -> Pixels:
    """A line of text as a picture as wide as the text: uint8 (1.36 × size, W, 3).

    Args:
        text: What is written; it is shortened where it is wider than ``width``, see ``fitted``.
        size: Size of the letters in pixels.
        ink: RGB of the letters.
        ground: RGB behind them.
        width: Room in pixels.
        middle: It is shortened in the middle.
        bold: The letters are bold.
    """
    cover = _cover(fitted(text, width, size, middle, bold), size, bold)[..., None]
    return (np.array(ground) * (1 - cover) + np.array(ink) * cover).round().astype(np.uint8)


@lru_cache(maxsize=1024)
def _cover(text: str, size: int, bold: bool) -> NDArray[np.float64]:
    """How much of each pixel a line of text covers, in 0..1."""
    renderer = RendererAgg(max(1, _width(text, size, bold)), round(1.36 * size), DPI)
    renderer.draw_text(renderer.new_gc(), 0, round(1.04 * size), text, _font(text, size, bold), 0)
    return np.asarray(renderer.buffer_rgba())[..., 3] / 255


@lru_cache(maxsize=4096)
def _width(text: str, size: int, bold: bool) -> int:
    measured = RendererAgg(1, 1, DPI).get_text_width_height_descent(text, _font(text, size, bold), False)
    return int(np.ceil(measured[0]))


def _font(text: str, size: int, bold: bool) -> FontProperties:
    family = families(text)
    return FontProperties(family, "normal", "normal", _weight(family, bold), "normal", size)


def _weight(family: Sequence[str], bold: bool) -> str:
    """Bold is for texts in matplotlib's own font: others may have no bold letters, and then it complains."""
    return "bold" if bold and len(family) == 1 else "normal"


@cache
def _font_of(letter: str) -> str | None:
    """The family of the first font that has a letter."""
    if ord(letter) in _letters(fontManager.findfont(OWN_FONT)):
        return OWN_FONT
    return next((font.name for font in _installed() if ord(letter) in _letters(font.fname)), None)


@cache
def _installed() -> list[FontEntry]:
    """All installed fonts, upright sans-serif ones first, and of Han letters their simplified forms."""
    # matplotlib's list is kept on disk, and older than a font that was installed just now.
    for path in set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}:
        with suppress(OSError, RuntimeError, ValueError, KeyError):
            fontManager.addfont(path)

    def rank(font: FontEntry) -> tuple[object, ...]:
        plain = font.style == "normal" and font.weight == 400
        return not plain, "Sans" not in font.name, "Mono" in font.name, "CJK SC" not in font.name, font.name

    # matplotlib's own last resort has no letters, but boxes for all.
    return sorted((font for font in fontManager.ttflist if "Last Resort" not in font.name), key=rank)


@cache
def _letters(path: str) -> frozenset[int]:
    """Code points of a font file's letters; none of a file that cannot be read."""
    with suppress(OSError, RuntimeError):
        return frozenset(get_font(path).get_charmap())
    return frozenset()
