"""Precision against recall of a detector, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from attnlab.drawing.figures import axes_at, fitted, new_figure, pixels_of, plain_style
from attnlab.drawing.pixels import Pixels

# COCO's grids: ten IoUs from 0.5 in steps of 0.05, 101 recalls from 0 in steps of 0.01.
IOU_50, IOU_75 = 0, 5
RECALLS = np.linspace(0, 1, 101)
# Up to so many classes each have a colour; of more, so many of the best and of the worst.
COLOURED, ENDS = 10, 4
SIDE, NAME = 360, 160

Curve = NDArray[np.float64]
# A curve of 101 precisions, its legend's text (nothing for a curve without one) and its colour.
Entry = tuple[Curve, str, object]


def precision_picture(precision: Curve, names: Sequence[str], title: str = "") -> Pixels | None:
    """Precision against recall, the means over classes at the left and the classes at an IoU of 0.5 right.

    Of more than ten classes, the four best and the four worst by AP50 have a colour and a name, and the
    others are thin and grey.

    Args:
        precision: (10, 101, K): IoU 0.50 to 0.95 by recall 0 to 1 by class, in 0..1; -1 for classes without
            truths.
        names: K class names.
        title: What stands above.

    Returns:
        RGB, uint8 (H, W, 3); None where no class has truths.
    """
    known = np.flatnonzero((np.asarray(precision) > -1).all((0, 1))).tolist()
    if not known:
        return None
    scored = np.asarray(precision, np.float64)[:, :, known]
    plots = {
        f"Mean over {len(known)} {'class' if len(known) == 1 else 'classes'}": (
            "AP      IoU",
            _means(scored),
        ),
        "Classes at IoU 0.50": ("AP50  class", _classes(scored[IOU_50], [names[k] for k in known])),
    }
    with plain_style([title, *names]):
        figure = new_figure(2 * (SIDE + 320), SIDE + 140)
        figure.suptitle(title, x=60 / figure.bbox.width, y=1 - 10 / figure.bbox.height, ha="left")
        for x, (what, (heading, entries)) in zip((60, 60 + SIDE + 210), plots.items(), strict=True):
            axes = axes_at(figure, x, 70, SIDE, SIDE)
            # A line along the border would be half outside.
            axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision", title=what)
            axes.grid(color="0.9")
            axes.spines[["top", "right"]].set_visible(False)
            lines = [
                axes.plot(RECALLS, entry[0], color=entry[2], lw=2 if entry[1] else 0.7)[0]
                for entry in entries
            ]
            named = [(line, entry[1]) for line, entry in zip(lines, entries, strict=True) if entry[1]]
            axes.legend(*zip(*named, strict=True), title=heading, loc="upper left", bbox_to_anchor=(1.02, 1))
        return pixels_of(figure, 16)


def _means(scored: Curve) -> list[Entry]:
    """The mean over classes (10, 101, K) at an IoU of 0.5, of 0.75, and over all IoUs."""
    means = {"0.50": scored[IOU_50].mean(1), "0.75": scored[IOU_75].mean(1), "0.50:0.95": scored.mean((0, 2))}
    return [
        (curve, f"{curve.mean():.3f}  {name}", colour)
        for (name, curve), colour in zip(means.items(), ("#0072be", "#e6781e", "0.1"), strict=True)
    ]


def _classes(curves: Curve, names: Sequence[str]) -> list[Entry]:
    """The classes' curves (101, K), from the highest AP50 down."""
    scores = curves.mean(0)
    order = np.argsort(-scores, kind="stable")
    texts = [f"{scores[k]:.3f}  {fitted(names[k], NAME, 12)}" for k in order]
    entries = [(curves[:, k], text) for k, text in zip(order, texts, strict=True)]
    if len(order) <= COLOURED:
        return [(curve, text, colormaps["tab10"](i)) for i, (curve, text) in enumerate(entries)]
    rest = entries[ENDS:-ENDS]
    shades = np.linspace(0.9, 0.5, ENDS)
    others = f"{scores[order[ENDS:-ENDS]].mean():.3f}  {len(rest)} others"
    return [
        *((curve, "", "0.75") for curve, _ in rest),
        *((curve, text, colormaps["Blues"](x)) for x, (curve, text) in zip(shades, entries, strict=False)),
        (np.full(len(curves), np.nan), others, "0.75"),
        *(
            (curve, text, colormaps["Reds"](1.4 - x))
            for x, (curve, text) in zip(shades, entries[-ENDS:], strict=True)
        ),
    ]
