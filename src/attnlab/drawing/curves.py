"""Precision-recall curves of a detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attnlab.drawing.figures import axes_at, fitted, new_figure, pixels_of, plain_style
from attnlab.drawing.pixels import Pixels

# COCO's grids: ten IoUs from 0.5 in steps of 0.05, 101 recalls from 0 in steps of 0.01.
IOU_50, IOU_75, RECALLS = 0, 5, np.linspace(0, 1, 101)
# Up to this many classes each have a colour; with more, this many of the best and of the worst.
COLOURED, ENDS = 10, 4
BEST, WORST = ("#08306b", "#08519c", "#3787c0", "#6aaed6"), ("#fb694a", "#e32f27", "#b81419", "#67000d")
SIDE, NAME, FAINT = 360, 160, "0.78"
Curve = NDArray[np.float64]
# A curve, its text in the legend and its colour.
Entry = tuple[Curve, str, str]


def precision_picture(precision: Curve, names: Sequence[str], title: str = "") -> Pixels | None:
    """Precision-recall curves: means over classes at the left, single classes at an IoU of 0.5 at the right.

    With more than ten classes, the four best and the four worst by AP50 have a colour and a name; the others
    are thin and grey. The precision, (10, 101, K), is for IoU 0.50 to 0.95, recall 0 to 1 and class, in 0..1,
    and -1 for classes without ground truth; None if no class has any.
    """
    known = np.flatnonzero((np.asarray(precision) > -1).all((0, 1))).tolist()
    if not known:
        return None
    scored = np.asarray(precision, np.float64)[:, :, known]
    means = {"0.50": scored[IOU_50].mean(1), "0.75": scored[IOU_75].mean(1), "0.50:0.95": scored.mean((0, 2))}
    colours = ("#0072be", "#e6781e", "#1e1e1e")
    left = [(y, f"{y.mean():.3f}  {iou}", c) for (iou, y), c in zip(means.items(), colours, strict=True)]
    right = _classes(scored[IOU_50], [names[k] for k in known])
    of = f"Mean over {len(known)} class{'es' * (len(known) > 1)}"
    plots = ((60, of, "AP, IoU", left), (270 + SIDE, "Classes at IoU 0.50", "AP50, class", right))
    with plain_style([title, *(text for _, text, _ in right)]):
        figure = new_figure(2 * (SIDE + 320), SIDE + 140)
        figure.suptitle(title, x=60 / figure.bbox.width, y=1 - 10 / figure.bbox.height, ha="left")
        for x, what, heading, entries in plots:
            axes = axes_at(figure, x, 70, SIDE, SIDE)
            # Otherwise a line along the border would be half outside.
            axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision", title=what)
            axes.grid(color="0.9")
            axes.spines[["top", "right"]].set_visible(False)
            for curve, text, colour in entries:
                # Several curves in one line, separated by gaps. The space is for names that begin with "_".
                recalls, faint = np.resize([*RECALLS, np.nan], len(curve)), colour == FAINT
                axes.plot(
                    recalls, curve, color=colour, label=f" {text}", lw=0.5 if faint else 2, zorder=2 - faint
                )
            legend = axes.legend(title=heading, bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False)
            legend.set(alignment="left")
        return pixels_of(figure, 16)


def _classes(curves: Curve, names: Sequence[str]) -> list[Entry]:
    """The classes' curves (101, K), by descending AP50."""
    scores = curves.mean(0)
    order = np.argsort(-scores, kind="stable").tolist()

    def entries(chosen: Sequence[int], colours: Sequence[str]) -> list[Entry]:
        texts = (f"{scores[k]:.3f}  {fitted(names[k], NAME, 12)}" for k in chosen)
        return [(curves[:, k], text, c) for k, text, c in zip(chosen, texts, colours, strict=True)]

    if len(order) <= COLOURED:
        return entries(order, [f"C{i}" for i in range(len(order))])
    rest = order[ENDS:-ENDS]
    others = np.pad(curves[:, rest], ((0, 1), (0, 0)), constant_values=np.nan).T.ravel()
    middle = (others, f"{scores[rest].mean():.3f}  {len(rest)} others", FAINT)
    return [*entries(order[:ENDS], BEST), middle, *entries(order[-ENDS:], WORST)]
