"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from attnlab.drawing.figures import axes_at, fitted, new_figure, pixels_of, plain_style
from attnlab.drawing.pixels import Pixels, percent

# Limits on the number of classes: drawn completely with names; else this many, the most confused ones; with
# percentages in the cells.
NAMED, CONFUSED, WRITTEN = 40, 20, 25
# In pixels: width of a name, top of a matrix, height of a list row, its width, side of the small matrix.
NAME, TOP, ROW, LIST, WHOLE = 150, 60, 36, 340, 320
MARKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
EMPTY: dict[str, Any] = {"facecolor": "0.85", "hatch": "////", "edgecolor": "0.6"}
Matrix = NDArray[np.int64]
Shares = NDArray[np.float64]


def row_shares(matrix: Matrix) -> Shares:
    """Each row divided by its sum: (K, K) in 0..1, NaN in the rows of classes without images."""
    matrix = np.asarray(matrix, np.float64)
    sums = matrix.sum(1, keepdims=True)
    return np.divide(matrix, sums, out=np.full_like(matrix, np.nan), where=sums > 0)


def most_confused(matrix: Matrix, count: int) -> list[tuple[int, int, int, int]]:
    """True class, predicted class, count, and images of the true class; most frequent first."""
    wrong, sums = np.array(matrix), np.asarray(matrix).sum(1)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = (divmod(int(place), len(wrong)) for place in order)
    return [(i, j, int(wrong[i, j]), int(sums[i])) for i, j in pairs if wrong[i, j] > 0]


def confusion_picture(matrix: Matrix, names: Sequence[str], pairs: int = 12) -> Pixels:
    """The confusion matrix in shares of its rows; with more than 40 classes, the 20 most confused.

    With these it shows the most confused pairs as bars, and the whole matrix in small. The matrix has counts,
    int64 (K, K); rows are true classes, columns predictions.
    """
    matrix = np.asarray(matrix)
    shares, images = row_shares(matrix), int(matrix.sum())
    chosen, listed, title = list(range(len(matrix))), [], f"{len(matrix)} class{'es' * (len(matrix) != 1)}"
    if len(matrix) > NAMED:
        worst = most_confused(matrix, CONFUSED * CONFUSED)
        chosen, listed = list(dict.fromkeys(k for pair in worst for k in pair[:2]))[:CONFUSED], worst[:pairs]
        title = f"The {len(chosen)} most confused of {title}" if listed else f"{title}, none confused"
    if images:
        title += f": {images} images, {percent(np.trace(matrix) / images)} correct"
    side = len(chosen) * (max(30, min(60, 400 // max(1, len(chosen)))) if len(chosen) <= WRITTEN else 20)
    left, right = NAME + 60, NAME + 60 + side + 110
    with plain_style([names[k] for k in [*chosen, *(k for pair in listed for k in pair[:2])]]):
        # The excess is cropped at the end.
        figure = new_figure(right + 600, TOP + max(side + NAME + 60, len(listed) * ROW + WHOLE + 150, 360))
        figure.suptitle(title, x=left / figure.bbox.width, y=1 - 20 / figure.bbox.height, ha="left")
        if chosen:
            axes = axes_at(figure, left, TOP, side, side)
            image = _matrix(axes, shares[np.ix_(chosen, chosen)])
            labels = [fitted(names[k], NAME, 12) for k in chosen]
            axes.set_xticks(range(len(chosen)), labels, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(chosen)), labels)
            bar = axes_at(figure, left + side + 20, TOP, 14, max(180, min(side, 300)))
            figure.colorbar(image, bar, ticks=MARKS, format=PercentFormatter(1, 0))
        if listed:
            _pairs(axes_at(figure, right, TOP + 26, LIST - 90, ROW * len(listed)), listed, names)
        if len(matrix) > NAMED:
            top = TOP + 26 + (ROW * len(listed) + 50 if listed else 0)
            axes = axes_at(figure, right if listed else left, top, WHOLE, WHOLE)
            axes.set_title(f"All {len(matrix)} classes, by number")
            _matrix(axes, shares)
        if np.isnan(shares).any():
            key = [Patch(**EMPTY)]
            empty = int(np.isnan(shares).any(1).sum())
            axes.legend(key, [f"no images: {empty}"], loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
        return pixels_of(figure, 16)


def _matrix(axes: Axes, shares: Shares) -> AxesImage:
    """Shares in 0..1 as blues, with percentages if there are few; rows without images are hatched."""
    classes = len(shares)
    cuts = np.arange(0, classes, -(-classes // WHOLE))
    # If several classes share a pixel, their largest share is shown. NaN is transparent and shows the patch.
    blocks = np.fmax.reduceat(np.fmax.reduceat(shares, cuts, 0), cuts, 1)
    extent = (-0.5, classes - 0.5, classes - 0.5, -0.5)
    # With the square root, one confusion in a hundred is visible.
    image = axes.imshow(
        blocks, "Blues", PowerNorm(0.5, 0, 1), aspect="auto", extent=extent, interpolation="nearest"
    )
    axes.patch.set(**EMPTY)
    axes.set(xlabel="predicted, % of each true class", ylabel="truth")
    for row, column in zip(*np.nonzero(shares > 0), strict=True) if classes <= WRITTEN else ():
        share = shares[row, column]
        text, colour = "<1" if share < 0.005 else f"{100 * share:.0f}", "white" if share > 0.51 else "black"
        axes.text(column, row, text, color=colour, ha="center", va="center")
    return image


def _pairs(axes: Axes, pairs: Sequence[tuple[int, int, int, int]], names: Sequence[str]) -> None:
    """The pairs as bars, with their names above."""
    axes.set(xticks=[], yticks=[], ylim=(len(pairs) - 0.5, -0.6), frame_on=False)
    axes.set_title("Most confused: truth → predicted")
    lengths = [times for _, _, times, _ in pairs]
    bars = axes.barh(range(len(pairs)), lengths, 0.25, color="#2f6fae", align="edge")
    axes.bar_label(bars, [f"{times} of {images}" for _, _, times, images in pairs], padding=4)
    for row, (truth, guess, _, _) in enumerate(pairs):
        both = (fitted(names[k], LIST / 2 - 16, 12) for k in (truth, guess))
        axes.text(0, row - 0.14, " → ".join(both))
