"""Text and fonts: what is drawn where a font is missing, and that matplotlib is left as it was."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from attnlab.drawing import figures
from attnlab.drawing.confusion import confusion_picture
from attnlab.drawing.curves import precision_picture
from attnlab.drawing.figures import MISSING, fitted, new_figure, pixels_of, readable, words


@pytest.fixture
def fonts(monkeypatch):
    """Sets the installed fonts beside matplotlib's own."""

    def install(entries):
        monkeypatch.setattr(figures, "_installed", lambda: entries)

    monkeypatch.setattr(figures, "_warned", [])
    for known in (figures._family, figures._width):
        known.cache_clear()
    yield install
    for known in (figures._family, figures._width):
        known.cache_clear()


@pytest.mark.parametrize(
    ("name", "package"), [("狗", "fonts-noto-cjk"), ("ねこ", "fonts-noto-cjk"), ("ไทย", "fonts-noto`")]
)
def test_letters_without_a_font_become_boxes_with_one_warning(fonts, name, package):
    fonts([])
    with pytest.warns(UserWarning, match="No font for") as caught:
        assert readable(f"{name} A") == f"{MISSING * len(name)} A"
    assert package in str(caught[0].message)
    assert all(letter in str(caught[0].message) for letter in name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words("猫 and more")
        confusion_picture(np.eye(2), [name, "猫"])


def test_other_fonts_draw_what_matplotlibs_own_lacks(fonts, caplog):
    """A letter that is in the STIX fonts, which come with matplotlib, but not in DejaVu Sans."""
    letter = "\u2f13"
    stix = [font for font in figures.fontManager.ttflist if font.name == "STIXGeneral"]
    own = figures._letters(figures.fontManager.findfont(figures.OWN_FONT))
    letter = next(chr(code) for code in sorted(figures._letters(stix[0].fname)) if code not in own)
    fonts(stix)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = words(f"{letter}x", bold=True)
    assert not np.array_equal(drawn, words(f"{MISSING}x"))
    assert (drawn < 100).any()
    assert not caplog.records


def test_text_is_cut_to_its_width():
    assert fitted("cat", 100) == "cat"
    for width in (15, 40, 90):
        short = fitted("European fire salamander", width)
        assert words(short).shape[1] <= width
        assert short.endswith("…")
        assert "European fire salamander".startswith(short[:-1])
    middle = fitted("n01440764/ILSVRC2012_val_00000293.JPEG", 120, middle=True)
    assert middle.startswith("n01")
    assert middle.endswith("JPEG")


def test_text_has_its_colours_and_height():
    drawn = words("Hx", 20, (255, 0, 0), (0, 0, 255))
    assert {(255, 0, 0), (0, 0, 255)} <= {tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}
    rows = np.flatnonzero((drawn[..., 0] > 128).any(1))
    assert 14 <= np.ptp(rows) + 1 <= 16  # a capital has 0.73 of the size
    assert words("").shape[1] == 1


def test_names_are_no_formulas():
    assert words("$x_1$").shape[1] > words("x1").shape[1] + 10


@pytest.mark.parametrize("size", [(1, 1), (173, 59), (1000, 333)])
def test_a_figure_has_its_size_in_pixels(size):
    assert pixels_of(new_figure(*size)).shape == (size[1], size[0], 3)


def test_settings_are_neither_changed_nor_heeded():
    precision = np.full((10, 101, 3), 0.5)
    names = ["cat", "dog", "_$bird$"]

    def pictures():
        return confusion_picture(np.eye(3), names), precision_picture(precision, names, "a title")

    first = pictures()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "text.usetex": True, "figure.dpi": 50}):
        before = dict(matplotlib.rcParams)
        second = pictures()
        assert dict(matplotlib.rcParams) == before
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


def test_no_file_imports_pyplot():
    """It keeps every figure, and picks a backend; that Lightning stays away is import-linter's to say."""
    for path in Path(figures.__file__).parent.glob("*.py"):
        assert "pyplot" not in path.read_text(encoding="utf-8"), path.name


@pytest.mark.slow
def test_drawing_needs_no_pyplot_and_no_lightning():
    code = (
        "import sys, numpy as np; from attnlab.drawing import boxes, cards, confusion, curves, masks;"
        "confusion.confusion_picture(np.eye(50), [str(k) for k in range(50)]);"
        "sys.exit(bool({'matplotlib.pyplot', 'lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
