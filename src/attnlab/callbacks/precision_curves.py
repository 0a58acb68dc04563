"""Precision against recall of a detector, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from attnlab.callbacks.drawing import Pixels
from attnlab.callbacks.pictures import PicturesCallback
from attnlab.callbacks.text import GREY, INK, Colour, fitted, font, length, line_height, write_upwards

# COCO's grids: ten IoUs from 0.5 in steps of 0.05, 101 recalls from 0 in steps of 0.01.
IOU_50, IOU_75 = 0, 5
# Up to so many classes each have a colour; of more, so many of the best and of the worst.
COLOURED, ENDS = 10, 4
# Curves are drawn so many times larger, and then shrunk, which makes them smooth.
FINER = 4

SIDE, MARGIN, GAP, NAME = 340, 16, 10, 150
TITLE, TEXT = 16, 12
GRID: Colour = (228, 228, 228)
FAINT: Colour = (205, 208, 212)
BLUES: tuple[Colour, ...] = ((0, 63, 125), (0, 114, 190), (50, 160, 210), (60, 175, 150))
REDS: tuple[Colour, ...] = ((235, 170, 40), (230, 120, 30), (214, 60, 40), (140, 20, 50))
MIDDLE: tuple[Colour, ...] = ((110, 185, 80), (190, 195, 50))
MEANS: tuple[Colour, ...] = ((0, 114, 190), (230, 120, 30), INK)

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A curve with its entry in the legend.

    Attributes:
        curve: Precision at 101 recalls, in 0..1; None for an entry that is a heading.
        text: What it is called; nothing for a curve that has no entry.
        figure: Its average precision, as text.
        colour: RGB.
        width: In pixels.
    """

    curve: Curve | None
    text: str = ""
    figure: str = ""
    colour: Colour = INK
    width: float = 2.0


@dataclass(frozen=True)
class Plot:
    """A pair of axes.

    Attributes:
        title: What it shows.
        lines: Later ones lie on top.
    """

    title: str
    lines: list[Line] = field(default_factory=list)

    @property
    def legend(self) -> list[Line]:
        """The lines that have an entry."""
        return [line for line in self.lines if line.text]


class PrecisionCurves(PicturesCallback):
    """Draws precision against recall after validation and test: means over classes, and single classes.

    The picture goes to TensorBoard (tab Images), and the newest to ``pictures/`` in the run's folder:
    ``val_precision_recall.png`` or ``test_precision_recall.png``. A set without objects has none.

    Args:
        write: Draw the curves.
        every_n_epochs: Draw after every so many validation epochs, and after the last.
    """

    def __init__(self, write: bool = True, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self.write = write

    def wanted(self, trainer: Trainer) -> bool:
        """Whether this epoch is one to draw; the first process draws alone."""
        return self.write and trainer.is_global_zero and super().wanted(trainer)

    def collect(self, trainer: Trainer, outputs: object, batch: dict[str, object]) -> None:
        """Nothing is kept: the scores have it all."""

    def draw(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Draw the curves of the stage's scores."""
        result = getattr(task, "results", {}).get(stage)
        if result is None:
            return
        title = f"{stage}: {result.images} images, {result.truths} objects"
        drawn = precision_picture(result.precision, trainer.datamodule.class_names, title)  # type: ignore[attr-defined]
        if drawn is not None:
            self.save(trainer, f"{stage}_precision_recall", drawn, tag=f"{stage}/precision_recall")


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
    precision = np.asarray(precision, np.float64)
    known = np.flatnonzero((precision > -1).all((0, 1))).tolist()
    if not known:
        return None
    scored = precision[:, :, known]
    classes = "1 class" if len(known) == 1 else f"{len(known)} classes"
    left = Plot(f"Mean over {classes}", _means(scored))
    right = Plot("Classes at IoU 0.50", _classes(scored[IOU_50], [names[k] for k in known]))
    return _page(title, [left, right])


def _means(scored: Curve) -> list[Line]:
    """The mean over classes at an IoU of 0.5, of 0.75, and over all IoUs."""
    curves = {
        "0.50": scored[IOU_50].mean(1),
        "0.75": scored[IOU_75].mean(1),
        "0.50:0.95": scored.mean((0, 2)),
    }
    return [
        Line(None, "IoU", "AP", GREY),
        *(
            Line(curve, name, f"{curve.mean():.3f}", colour, 2.5)
            for (name, curve), colour in zip(curves.items(), MEANS, strict=True)
        ),
    ]


def _classes(curves: Curve, names: Sequence[str]) -> list[Line]:
    """Lines of the classes' curves (101, K), in the legend from the highest AP50 down."""
    scores = curves.mean(0)
    order = [int(k) for k in np.argsort(-scores, kind="stable")]

    def line(k: int, colour: Colour) -> Line:
        return Line(curves[:, k], names[k], f"{scores[k]:.3f}", colour)

    if len(order) <= COLOURED:
        colours = (*BLUES, *MIDDLE, *REDS)
        spread = [colours[round(i * (len(colours) - 1) / max(1, len(order) - 1))] for i in range(len(order))]
        head = [Line(None, "class", "AP50", GREY)]
        return head + [line(k, colour) for k, colour in zip(order, spread, strict=True)]
    best, worst = order[:ENDS], order[-ENDS:]
    between = order[ENDS:-ENDS]
    rest = [Line(curves[:, k], colour=FAINT, width=1.0) for k in between]
    mean = f"{scores[between].mean():.3f}"
    return [
        *rest,
        Line(None, "best classes", "AP50", GREY),
        *(line(k, colour) for k, colour in zip(best, BLUES, strict=True)),
        Line(None, "worst classes", "AP50", GREY),
        *(line(k, colour) for k, colour in zip(worst, REDS, strict=True)),
        Line(None, "others", "mean", GREY),
        Line(rest[0].curve, f"{len(between)} classes", mean, FAINT, 1.0),
    ]


def _page(title: str, plots: Sequence[Plot]) -> Pixels:
    """Plots side by side, each with its legend at its right."""
    line = line_height(TEXT)
    before = line + GAP + length("0.0", TEXT) + 8
    top = MARGIN + (line_height(TITLE) + GAP if title else 0)
    legends = [_legend_width(plot.legend) for plot in plots]
    across = MARGIN + sum(before + SIDE + 2 * GAP + wide + MARGIN for wide in legends)
    down = top + line + GAP + SIDE + 6 + line + 4 + line + MARGIN
    page = Image.new("RGB", (across, down), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), fitted(title, across - 2 * MARGIN, TITLE), fill=INK, font=font(TITLE))
    x, y = MARGIN, top + line + GAP
    for plot, wide in zip(plots, legends, strict=True):
        x += before
        draw.text((x, top), plot.title, fill=INK, font=font(TEXT))
        page.paste(_curves(plot.lines), (x, y))
        _axes(page, draw, (x, y))
        x += SIDE + 2 * GAP
        _legend(draw, plot.legend, (x, y), wide)
        x += wide + MARGIN
    return np.asarray(page)


def _curves(lines: Sequence[Line]) -> Image.Image:
    """The inside of the axes: grid and curves."""
    side = SIDE * FINER
    sheet = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(sheet)
    for mark in (0.2, 0.4, 0.6, 0.8):
        place = round(mark * side)
        draw.line((place, 0, place, side), fill=GRID, width=FINER)
        draw.line((0, place, side, place), fill=GRID, width=FINER)
    for line in lines:
        if line.curve is not None:
            recalls = np.linspace(0, side - 1, len(line.curve))
            points = np.stack([recalls, (1 - np.clip(line.curve, 0, 1)) * (side - 1)], axis=1)
            # A curve along the border would be half outside.
            points = points.clip(FINER * line.width / 2, side - 1 - FINER * line.width / 2)
            corners = [(float(x), float(y)) for x, y in points]
            draw.line(corners, fill=line.colour, width=round(FINER * line.width), joint="curve")
    return sheet.reduce(FINER)


def _axes(page: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    """Frame, ticks and names of the axes around a plot."""
    x, y = corner
    low, line = y + SIDE, line_height(TEXT)
    draw.line((x - 1, y, x - 1, low, x + SIDE, low), fill=GREY)
    for tick in range(0, 11, 2):
        along, text = round(tick / 10 * SIDE), f"{tick / 10:.1f}"
        draw.line((x + along, low, x + along, low + 4), fill=GREY)
        draw.text((x + along, low + 6), text, fill=INK, font=font(TEXT), anchor="ma")
        draw.line((x - 5, low - along, x - 1, low - along), fill=GREY)
        draw.text((x - 8, low - along), text, fill=INK, font=font(TEXT), anchor="rm")
    draw.text((x + SIDE // 2, low + 6 + line + 4), "recall", fill=GREY, font=font(TEXT), anchor="ma")
    left = x - 8 - length("0.0", TEXT) - GAP // 2 - line
    write_upwards(page, (left, y + SIDE // 2 - length("precision", TEXT) // 2), "precision", TEXT, GREY)


def _legend_width(lines: Sequence[Line]) -> int:
    words = max(min(NAME, length(line.text, TEXT)) for line in lines)
    return 24 + words + 16 + max(length(line.figure, TEXT) for line in lines)


def _legend(draw: ImageDraw.ImageDraw, lines: Sequence[Line], corner: tuple[int, int], width: int) -> None:
    """Colour, name and figure of each line, one below the other; headings have no colour."""
    x, y = corner
    line_down = line_height(TEXT)
    for position, line in enumerate(lines):
        heading = line.curve is None
        y += GAP if heading and position else 0
        ink = GREY if heading else INK
        start = 0 if heading else 24
        if not heading:
            thick = max(2, round(line.width))
            middle = y + line_down // 2
            draw.rectangle((x, middle - 1, x + 16, middle - 2 + thick), fill=line.colour)
        draw.text((x + start, y), fitted(line.text, NAME, TEXT), fill=ink, font=font(TEXT))
        draw.text((x + width, y), line.figure, fill=ink, font=font(TEXT), anchor="ra")
        y += line_down + 3
