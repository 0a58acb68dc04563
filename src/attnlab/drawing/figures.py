"""matplotlib figures and text as arrays, with fonts for all letters and text shortened to a width."""

from __future__ import annotations

import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findSystemFonts, fontManager, get_font

from attnlab.drawing.pixels import Colour, Pixels

INK: Colour = (30, 30, 30)
GREY: Colour = (100, 100, 100)
WHITE: Colour = (255, 255, 255)
# A green and a red that also differ in lightness, for colour-blind readers.
RIGHT: Colour = (0, 150, 100)
WRONG: Colour = (205, 30, 25)
# Font sizes in pixels; at 72 dpi, a point is a pixel.
TEXT, TITLE, DPI = 13, 15, 72
# matplotlib's font, and the character shown for letters that no font has.
OWN_FONT, MISSING = "DejaVu Sans", "□"
# Letters this process has been warned about.
_warned: list[str] = []
PLAIN = {"font.size": 12, "text.parse_math": False, "axes.edgecolor": "0.4"}
TITLES = {"axes.titlelocation": "left", "axes.titlesize": TEXT, "figure.titlesize": TITLE}


def new_figure(width: int, height: int) -> Figure:
    """A white figure of a size in pixels; font and line sizes are in pixels, too."""
    # The hundredth keeps rounding errors from losing a pixel.
    return Figure(((width + 0.01) / DPI, (height + 0.01) / DPI), DPI, facecolor="white")


def axes_at(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes of a size in pixels, with their upper left corner at x, y of the figure."""
    across, down = figure.bbox.size
    return figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))


def pixels_of(figure: Figure, margin: int | None = None) -> Pixels:
    """The drawn figure, uint8 (H, W, 3); with a margin, white borders are cropped to this many pixels."""
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
    """A context with fixed matplotlib settings, independent of the user's, and fonts for the texts."""
    font = _font("".join(texts), 12, True)
    weights = {"axes.titleweight": font.get_weight(), "figure.titleweight": font.get_weight()}
    with style.context(["default", {**PLAIN, **TITLES, **weights, "font.family": font.get_family()}]):
        yield


def fitted(text: str, width: float, size: int = TEXT, middle: bool = False, bold: bool = False) -> str:
    """A line of text, shortened to a width in pixels with an ellipsis at the end or in the middle."""
    text = readable(text)
    if _width(text, size, bold) <= width:
        return text

    def short(kept: int) -> str:
        tail = kept // 2 if middle else 0
        return text[: kept - tail].rstrip() + "…" + text[len(text) - tail :]

    fits = bisect_right(range(len(text)), width, key=lambda kept: _width(short(kept), size, bold))
    return short(max(0, fits - 1))


def words(
    text: str,
    size: int = TEXT,
    ink: Colour = INK,
    ground: Colour = WHITE,
    width: float = np.inf,
    middle: bool = False,
    bold: bool = False,
) -> Pixels:
    """A line of text on a background: uint8 (1.36 × size, W, 3); see ``fitted``."""
    text = fitted(text, width, size, middle, bold)
    renderer = RendererAgg(max(1, _width(text, size, bold)), round(1.36 * size), DPI)
    renderer.draw_text(renderer.new_gc(), 0, round(1.04 * size), text, _font(text, size, bold), 0)
    cover = np.asarray(renderer.buffer_rgba())[..., 3:] / 255
    return (np.array(ground) * (1 - cover) + np.array(ink) * cover).round().astype(np.uint8)


def readable(text: str) -> str:
    """One line of drawable letters: boxes replace those that no font has, with one warning."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    letters = [letter for letter in text if unicodedata.category(letter)[0] != "C"]
    unknown = "".join(sorted({letter for letter in letters if _family(letter) is None}))
    if unknown and not _warned:
        _warned.append(unknown)
        wide = {"W", "F"} & {unicodedata.east_asian_width(letter) for letter in unknown}
        package = f"fonts-noto{'-cjk' * bool(wide)}"
        advice = f"Install one, e.g. `apt-get install {package}`, and restart."
        warnings.warn(
            f"No font for the letters {unknown}: pictures show {MISSING} instead. {advice}", stacklevel=2
        )
    return "".join(MISSING if letter in unknown else letter for letter in letters)


@lru_cache(maxsize=4096)
def _width(text: str, size: int, bold: bool) -> int:
    measured = RendererAgg(1, 1, DPI).get_text_width_height_descent(text, _font(text, size, bold), False)
    return int(np.ceil(measured[0]))


def _font(text: str, size: int, bold: bool) -> FontProperties:
    """The fonts that have a text's letters, matplotlib's own first."""
    found = dict.fromkeys([OWN_FONT, *(_family(letter) or OWN_FONT for letter in readable(text))])
    # Other fonts may lack bold letters, about which matplotlib would warn.
    weight = "bold" if bold and len(found) == 1 else "normal"
    return FontProperties(family=list(found), style="normal", weight=weight, size=size)


@cache
def _family(letter: str) -> str | None:
    """The family of the first font that has a letter."""
    if ord(letter) in _letters(fontManager.findfont(OWN_FONT)):
        return OWN_FONT
    return next((font.name for font in _installed() if ord(letter) in _letters(font.fname)), None)


@cache
def _installed() -> list[FontEntry]:
    """All installed fonts, upright sans-serif ones and simplified Han letters first."""
    # matplotlib caches its list on disk, where a newly installed font is missing.
    for path in set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}:
        with suppress(OSError, RuntimeError, ValueError, KeyError):
            fontManager.addfont(path)

    def rank(font: FontEntry) -> tuple[object, ...]:
        plain = font.style == "normal" and font.weight == 400
        return not plain, "Sans" not in font.name, "Mono" in font.name, "CJK SC" not in font.name, font.name

    # matplotlib's last-resort font has only boxes.
    return sorted((font for font in fontManager.ttflist if "Last Resort" not in font.name), key=rank)


@cache
def _letters(path: str) -> frozenset[int]:
    """Code points of a font file's letters; empty for an unreadable file."""
    with suppress(OSError, RuntimeError):
        return frozenset(get_font(path).get_charmap())
    return frozenset()
