"""matplotlib's figures and text as arrays: fonts that have the letters, and text cut to a width."""

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
# A green and a red that also differ in lightness, for eyes that do not tell the hues apart.
RIGHT: Colour = (0, 150, 100)
WRONG: Colour = (205, 30, 25)
# Sizes of letters in pixels; at 72 dots an inch, a point is a pixel.
TEXT, TITLE, DPI = 13, 15, 72
# The font that comes with matplotlib, and its letter for those that no font has.
OWN_FONT, MISSING = "DejaVu Sans", "□"
# What this process has been warned of.
_warned: list[str] = []
PLAIN = {"font.size": 12, "text.parse_math": False, "axes.edgecolor": "0.4"}
TITLES = {"axes.titlelocation": "left", "axes.titlesize": TEXT, "figure.titlesize": TITLE}


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
    """Within it matplotlib has settings of its own, whatever the user's are, and fonts for the texts."""
    font = _font("".join(texts), 12, True)
    weights = {"axes.titleweight": font.get_weight(), "figure.titleweight": font.get_weight()}
    with style.context(["default", {**PLAIN, **TITLES, **weights, "font.family": font.get_family()}]):
        yield


def fitted(text: str, width: float, size: int = TEXT, middle: bool = False, bold: bool = False) -> str:
    """A line of text, shortened to a width in pixels by an ellipsis at its end or in its middle."""
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
    """A line of text in a colour on another, as wide as it is: uint8 (1.36 × size, W, 3); see ``fitted``."""
    text = fitted(text, width, size, middle, bold)
    renderer = RendererAgg(max(1, _width(text, size, bold)), round(1.36 * size), DPI)
    renderer.draw_text(renderer.new_gc(), 0, round(1.04 * size), text, _font(text, size, bold), 0)
    cover = np.asarray(renderer.buffer_rgba())[..., 3:] / 255
    return (np.array(ground) * (1 - cover) + np.array(ink) * cover).round().astype(np.uint8)


def readable(text: str) -> str:
    """One line of letters that can be drawn: boxes for those that no font has, of which it warns once."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    letters = [letter for letter in text if unicodedata.category(letter)[0] != "C"]
    unknown = "".join(sorted({letter for letter in letters if _family(letter) is None}))
    if unknown and not _warned:
        _warned.append(unknown)
        wide = {"W", "F"} & {unicodedata.east_asian_width(letter) for letter in unknown}
        package = f"fonts-noto{'-cjk' * bool(wide)}"
        advice = f"Install a font that has them, e.g. `apt-get install {package}`, and start again."
        warnings.warn(f"No font has the letters {unknown}: pictures show {MISSING}. {advice}", stacklevel=2)
    return "".join(MISSING if letter in unknown else letter for letter in letters)


@lru_cache(maxsize=4096)
def _width(text: str, size: int, bold: bool) -> int:
    measured = RendererAgg(1, 1, DPI).get_text_width_height_descent(text, _font(text, size, bold), False)
    return int(np.ceil(measured[0]))


def _font(text: str, size: int, bold: bool) -> FontProperties:
    """The fonts that have a text's letters, matplotlib's own first."""
    found = dict.fromkeys([OWN_FONT, *(_family(letter) or OWN_FONT for letter in readable(text))])
    # Other fonts may have no bold letters, of which matplotlib would complain.
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
