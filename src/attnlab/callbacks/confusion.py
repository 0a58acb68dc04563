"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from attnlab.callbacks.drawing import Pixels
from attnlab.callbacks.text import GREY, INK, Colour, fitted, font, length, line_height, write_upwards

# Up to so many classes have their names at the axes, up to so many their percentages in the cells.
NAMED, WRITTEN = 40, 25
# Matrices of more classes are drawn in blocks of several classes a pixel.
LARGEST = 1000

MARGIN, GAP, SMALL, TITLE = 16, 8, 12, 16
LABEL = 150
# The share from which white is easier to read than black.
WHITE_FROM = 0.36
NO_IMAGES: Colour = (205, 205, 205)
GRID: Colour = (225, 225, 225)
MARKS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)

Matrix = NDArray[np.int64]


def row_shares(matrix: Matrix) -> NDArray[np.float64]:
    """Each row divided by its sum: (K, K) in 0..1, NaN in the rows of classes without images."""
    matrix = np.asarray(matrix, np.float64)
    sums = matrix.sum(1, keepdims=True)
    return np.divide(matrix, sums, out=np.full_like(matrix, np.nan), where=sums > 0)


def shade(shares: NDArray[np.float64]) -> Pixels:
    """Blues (…, 3) of shares (…) in 0..1, from almost white to very dark; grey for NaN.

    Lightness (L of OKLab, https://bottosson.github.io/posts/oklab/) falls evenly with the square root of the
    share, at one hue: a class confused in one image of a hundred can be told from one that never is.
    """
    position = np.sqrt(np.clip(np.nan_to_num(shares), 0, 1))
    lightness = 0.99 - 0.71 * position
    chroma = 0.14 * np.sin(np.pi * (0.02 + 0.76 * position))
    hue = np.deg2rad(255)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=-1,
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(cones**3 @ to_rgb.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours = (255 * encoded).round().astype(np.uint8)
    colours[np.isnan(shares)] = NO_IMAGES
    return colours


def heat(matrix: Matrix, cell: int) -> Pixels:
    """The row-normalised matrix alone, ``cell`` pixels a class, with a grid where cells are large.

    More than a thousand classes are put together in blocks, of which each shows its largest share.
    """
    shares = row_shares(matrix)
    block = -(-len(shares) // LARGEST)
    if block > 1:
        padding = -len(shares) % block
        padded = np.pad(shares, (0, padding), constant_values=-1)
        shares = np.nan_to_num(padded, nan=-1).reshape(len(padded) // block, block, -1, block).max((1, 3))
        shares[shares < 0] = np.nan
    pixels = shade(shares).repeat(cell, 0).repeat(cell, 1)
    if cell >= 12:
        pixels[cell - 1 :: cell] = GRID
        pixels[:, cell - 1 :: cell] = GRID
    return pixels


def most_confused(matrix: Matrix, count: int) -> list[tuple[int, int, int, int]]:
    """Truth, predicted class, how often, and of how many images, most frequent confusion first."""
    matrix = np.asarray(matrix)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    flat = wrong.ravel()
    order = np.argsort(-flat, kind="stable")[:count]
    sums = matrix.sum(1)
    pairs = [(*divmod(int(place), len(matrix)), int(flat[place])) for place in order if flat[place] > 0]
    return [(truth, predicted, times, int(sums[truth])) for truth, predicted, times in pairs]


def confusion_picture(matrix: Matrix, names: Sequence[str], pairs: int = 12) -> Pixels:
    """The matrix with axes, a legend of its colours and, beyond 40 classes, the most confused pairs.

    Args:
        matrix: Counts, int64 (K, K); rows are the truth, columns what was predicted.
        names: The K class names. They stand at the axes of up to 40 classes; up to 25 classes also have the
            percentages in their cells.
        pairs: How many of the most confused pairs are listed below a larger matrix.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    matrix = np.asarray(matrix)
    classes = len(matrix)
    cell = _cell(classes)
    pixels = heat(matrix, cell)
    side = pixels.shape[0]
    labels = [fitted(name, LABEL, SMALL) for name in names] if classes <= NAMED else []
    numbers = _numbers(classes) if not labels else []
    label = max([length(text, SMALL) for text in labels or [str(n) for n in numbers]], default=0)
    title = f"Confusion of {classes} classes: percentage of each true class (row) by predicted class (column)"
    listed = [] if labels else _listed(matrix, names, pairs)

    line = line_height(SMALL)
    x, y = MARGIN + line + GAP + label + 6, MARGIN + line_height(TITLE) + 2 * GAP
    under = y + side + 6 + (label if labels else line) + GAP
    legend = x + side + 3 * GAP
    empty = bool((matrix.sum(1) == 0).any())
    legend_width = 14 + 6 + length("no images" if empty else "100%", SMALL)
    column = max([length(pair, SMALL) + GAP + length(times, SMALL) for pair, times in listed], default=0)
    across = max(legend + legend_width, MARGIN + length(title, TITLE), x + column) + MARGIN
    list_top = under + line + 2 * GAP
    down = list_top + (line_height(TITLE) + GAP + len(listed) * (line + 3) if listed else -GAP) + MARGIN
    down = max(down, y + _legend_height(side) + (line + 2 * GAP if empty else 0) + MARGIN)

    page = Image.new("RGB", (across, down), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=font(TITLE))
    page.paste(Image.fromarray(pixels), (x, y))
    draw.rectangle((x - 1, y - 1, x + side, y + side), outline=GREY)
    for index, text in enumerate(labels):
        middle = cell * index + cell // 2 - line // 2
        draw.text((x - 6 - length(text, SMALL), y + middle), text, fill=INK, font=font(SMALL))
        write_upwards(page, (x + middle, y + side + 6), text, SMALL, INK)
    for number in numbers:
        place = number * side // classes
        text = str(number)
        draw.text((x - 6 - length(text, SMALL), y + place - line // 2), text, fill=INK, font=font(SMALL))
        draw.text((x + place, y + side + 4), text, fill=INK, font=font(SMALL), anchor="ma")
        draw.line((x - 4, y + place, x - 1, y + place), fill=GREY)
        draw.line((x + place, y + side, x + place, y + side + 3), fill=GREY)
    _write_shares(draw, matrix, cell, (x, y))
    write_upwards(page, (MARGIN, y + side // 2 - length("truth", SMALL) // 2), "truth", SMALL, GREY)
    draw.text((x + side // 2, under), "predicted", fill=GREY, font=font(SMALL), anchor="ma")
    _draw_legend(page, draw, (legend, y), _legend_height(side), empty)
    if listed:
        draw.text((x, list_top), "Most confused", fill=INK, font=font(TITLE))
        row = list_top + line_height(TITLE) + GAP
        for pair, times in listed:
            draw.text((x, row), pair, fill=INK, font=font(SMALL))
            draw.text((x + column - length(times, SMALL), row), times, fill=INK, font=font(SMALL))
            row += line + 3
    return np.asarray(page)


def _cell(classes: int) -> int:
    """Side of a cell in pixels."""
    if classes <= WRITTEN:
        return max(34, min(64, 400 // classes))
    return 19 if classes <= NAMED else max(1, 800 // classes)


def _numbers(classes: int) -> list[int]:
    """The class numbers at the axes of a matrix without names."""
    step = next(
        s for power in range(1, 9) for s in (10**power, 2 * 10**power, 5 * 10**power) if s * 10 >= classes
    )
    return list(range(0, classes, step))


def _listed(matrix: Matrix, names: Sequence[str], count: int) -> list[tuple[str, str]]:
    """The most confused pairs as text: the names, and how often."""
    return [
        (f"{fitted(names[truth], 300, SMALL)} -> {fitted(names[guess], 300, SMALL)}", f"{times} of {images}")
        for truth, guess, times, images in most_confused(matrix, count)
    ]


def _write_shares(draw: ImageDraw.ImageDraw, matrix: Matrix, cell: int, corner: tuple[int, int]) -> None:
    """Write whole percentages into the cells that are not empty, where there are few enough."""
    if len(matrix) > WRITTEN:
        return
    shares = row_shares(matrix)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        share = float(shares[row, column])
        text = "<1" if share < 0.005 else f"{100 * share:.0f}"
        middle = (corner[0] + cell * column + (cell - 1) / 2, corner[1] + cell * row + (cell - 1) / 2)
        draw.text(
            middle, text, fill="white" if share > WHITE_FROM else "black", font=font(SMALL), anchor="mm"
        )


def _legend_height(side: int) -> int:
    return max(150, min(side, 260))


def _draw_legend(
    page: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], height: int, empty: bool
) -> None:
    """A bar of the colours with the shares that they stand for, and the grey of classes without images."""
    x, y = corner
    positions = np.linspace(1, 0, height) ** 2
    page.paste(Image.fromarray(shade(positions)[:, None].repeat(14, 1)), (x, y))
    draw.rectangle((x - 1, y - 1, x + 14, y + height), outline=GREY)
    for mark in MARKS:
        place = y + round((1 - mark**0.5) * (height - 1))
        draw.line((x + 14, place, x + 17, place), fill=GREY)
        draw.text((x + 20, place), f"{100 * mark:.0f}%", fill=INK, font=font(SMALL), anchor="lm")
    if empty:
        low = y + height + 2 * GAP
        draw.rectangle((x - 1, low, x + 14, low + 13), fill=NO_IMAGES, outline=GREY)
        draw.text((x + 20, low + 7), "no images", fill=INK, font=font(SMALL), anchor="lm")
