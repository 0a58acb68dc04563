"""Labelled boxes on pictures: truths beside detections, with what was missed and what is false."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from attnlab.drawing.figures import GREY, INK, TITLE, WHITE, WRONG, words
from attnlab.drawing.layout import framed, legend, margin, stacked, swatch
from attnlab.drawing.pixels import Colour, Palette, Pixels, as_pixels, as_tensor, fitted_to

# Above so many boxes lines and letters become smaller; only so many of the best have a label.
CROWDED, LABELLED = 15, 40
# Pictures of a panel stand on a sheet of at least this width, so that their captions can be read.
NARROWEST = 280
NOTES = ("crowd", "difficult")
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class Box:
    """A box with what is written at it.

    Attributes:
        corners: x0, y0, x1, y1 in pixels.
        label: Class.
        score: In 0..1; None for a truth.
        note: What else is to be known of it (``crowd``, ``difficult``); such a box is dashed.
        mistake: A truth that was missed, or a detection of nothing; it is marked in red.
    """

    corners: tuple[float, float, float, float]
    label: int
    score: float | None = None
    note: str = ""
    mistake: bool = False


def detected(detections: Mapping[str, Any], min_score: float = 0.0) -> list[Box]:
    """Boxes of an image's detections of at least a score.

    Args:
        detections: ``boxes`` (M, 4) xyxy in pixels, ``scores`` (M,) and ``labels`` (M,).
        min_score: In 0..1.
    """
    found = zip(*(detections[key].tolist() for key in ("boxes", "labels", "scores")), strict=True)
    return [Box(tuple(box), int(label), score) for box, label, score in found if score >= min_score]


def truths(target: Mapping[str, Any]) -> list[Box]:
    """Boxes of an image's objects; crowds and difficult ones are noted as such.

    Args:
        target: ``boxes`` (N, 4) xyxy in pixels, ``labels`` (N,), and if known ``iscrowd`` and ``difficult``,
            bool (N,); arrays or tensors.
    """
    boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
    none = [False] * len(boxes)
    marks = (target[key].tolist() if key in target else none for key in ("iscrowd", "difficult"))
    return [
        Box(tuple(box), int(label), None, "crowd" if crowd else "difficult" if difficult else "")
        for box, label, crowd, difficult in zip(boxes, labels, *marks, strict=True)
    ]


def scaled(boxes: Sequence[Box], factors: tuple[float, float]) -> list[Box]:
    """The boxes on a picture that has grown by the given factors of x and y."""
    grown = np.array([box.corners for box in boxes]).reshape(-1, 4) * [*factors, *factors]
    return [replace(box, corners=tuple(corners)) for box, corners in zip(boxes, grown.tolist(), strict=True)]


def bright(palette: Palette) -> list[Colour]:
    """The palette with its dark colours, in which thin lines are lost, made lighter at the same hue."""
    colours = rgb_to_hsv(np.asarray(palette).reshape(-1, 3) / 255)
    colours[:, 2] = 0.59 + 0.41 * colours[:, 2]
    return [(r, g, b) for r, g, b in (255 * hsv_to_rgb(colours)).round().astype(int).tolist()]


def draw_boxes(image: Pixels, boxes: Sequence[Box], names: Sequence[str], palette: Palette) -> Pixels:
    """The image with outlines in the classes' colours and, at each, the class's name and the score.

    Detections have a dark rim and a label of their colour, truths a white rim and a white label, mistakes a
    thick red rim and a red label. Labels stay inside the picture and off each other: those of lower scores
    move, and are left out where there is no room.

    Args:
        image: RGB, uint8 (H, W, 3).
        boxes: In the image's pixels; what lies outside is cut off.
        names: Class names.
        palette: RGB colour of each class; dark ones are drawn lighter (``bright``).

    Returns:
        A new picture of the same size.
    """
    height, width = image.shape[:2]
    colours, crowded = bright(palette), len(boxes) > CROWDED
    thick = max(1, round(max(height, width) / 240) - crowded)
    letters = max(12, round(8 + max(height, width) / 100) - 2 * crowded)
    # Truths have no score: the larger ones go below the smaller ones.
    area = {box: (box.corners[2] - box.corners[0]) * (box.corners[3] - box.corners[1]) for box in boxes}
    order = sorted(boxes, key=lambda box: (box.score or 0.0, -area[box]))
    page = as_tensor(image)
    # torchvision has no dashes: these outlines are seen through stripes.
    stripes = (torch.arange(height)[:, None] + torch.arange(width)) % (8 * thick + 4) < 5 * thick + 2
    noted = _outlined(page, [box for box in order if box.note], colours, thick, 1)
    page = torch.where(stripes, noted, page)
    page = _outlined(page, [box for box in order if not (box.note or box.mistake)], colours, thick, 1)
    page = _outlined(page, [box for box in order if box.mistake], colours, thick, thick + 1)
    drawn, taken = as_pixels(page), np.zeros((height, width), bool)
    for box in order[::-1][:LABELLED]:
        label = _label(box, names[box.label], colours[box.label], letters, width)
        high, wide = label.shape[:2]
        x0, y0, x1, y1 = _pixels([box], height, width)[0].tolist()
        places = [(y, x) for y in (y0 - high, y0, y1 - high + 1, y1 + 1) for x in (x0 - 1, x1 - wide + 2)]
        for y, x in places if high <= height and wide <= width else ():
            y, x = min(max(y, 0), height - high), min(max(x, 0), width - wide)
            if not taken[y : y + high, x : x + wide].any():
                drawn[y : y + high, x : x + wide] = label
                taken[y : y + high, x : x + wide] = True
                break
    return drawn


def _pixels(boxes: Sequence[Box], height: int, width: int) -> Tensor:
    """First and last pixels of boxes inside a picture, one each at least: x0, y0, x1, y1, (N, 4)."""
    corners, size = torch.tensor([box.corners for box in boxes]).round().long(), torch.tensor([width, height])
    first = corners[:, :2].clamp(min=0).minimum(size - 1)
    return torch.cat([first, first.maximum(corners[:, 2:].minimum(size) - 1)], 1)


def _outlined(page: Tensor, boxes: Sequence[Box], colours: Sequence[Colour], thick: int, rim: int) -> Tensor:
    """The picture uint8 (3, H, W) with outlines inwards from the boxes' borders, and rims on both sides."""
    if not boxes:
        return page
    places = _pixels(boxes, *page.shape[1:])
    rims = [WRONG if box.mistake else WHITE if box.score is None else BLACK for box in boxes]
    page = draw_bounding_boxes(
        page, places + rim * torch.tensor([-1, -1, 1, 1]), colors=rims, width=thick + 2 * rim
    )
    return draw_bounding_boxes(page, places, colors=[colours[box.label] for box in boxes], width=thick)


def _label(box: Box, name: str, colour: Colour, letters: int, room: int) -> Pixels:
    """The name and what is known of a box, with a strip of the class's colour at the left."""
    dark = np.dot(np.power(np.array(colour) / 255, 2.2), (0.2126, 0.7152, 0.0722)) < 0.179
    ground = WRONG if box.mistake else WHITE if box.score is None else colour
    ink = INK if ground == WHITE else WHITE if box.mistake or dark else BLACK
    text = " ".join([name, box.note, "" if box.score is None else f"{box.score:.2f}"]).rstrip()
    label = margin(words(text, letters, ink, ground, room - 8), 3, ground)[3:-3]
    label[:, :2] = colour
    return label


def detection_panel(
    image: Tensor,
    objects: Sequence[Box] | None,
    detections: Mapping[str, Any],
    name: str,
    names: Sequence[str],
    palette: Palette,
    max_side: int,
    min_score: float,
) -> Pixels:
    """Truths and detections of an image side by side; missed objects and false detections are red.

    Args:
        image: (3, h, w) in 0..1.
        objects: The truths in the image's pixels; None where they are not known: the detections stand alone.
        detections: ``boxes`` (M, 4) xyxy in the image's pixels, ``scores`` (M,) and ``labels`` (M,).
        name: The image's name.
        names: Class names.
        palette: RGB colour of each class.
        max_side: Longest side of a drawn image in pixels.
        min_score: Detections of a lower score are not drawn, and find nothing.
    """
    pixels, factors = fitted_to(image, max_side, max_side)
    found = detected(detections, min_score)
    rest = len(detections["scores"]) - len(found)
    columns = [
        ("detected", f"{len(found)}" + f", {rest} more below {min_score:g}" * (rest > 0), "false", found)
    ]
    if objects is not None:
        objects, found = judged(objects, found)
        notes = Counter(box.note for box in objects if box.note)
        counts = ", ".join([str(len(objects)), *(f"{count} {note}" for note, count in sorted(notes.items()))])
        columns = [("truth", counts, "missed", objects), (*columns[0][:3], found)]
    cells, width = [], max(pixels.shape[1], NARROWEST)
    for what, count, fault, boxes in columns:
        wrong = sum(box.mistake for box in boxes)
        faults = words(f"{wrong} {fault}", ink=WRONG, bold=True) if wrong else words("")
        caption = stacked([words(what, bold=True), words(count, ink=GREY), faults], 1, 8)
        drawn = draw_boxes(pixels, scaled(boxes, factors), names, palette)
        cells.append(stacked([caption, framed(drawn, drawn.shape[0], width)], 0, 2))
    row = stacked(cells, 1, 8)
    shown = Counter(box.label for _, _, _, boxes in columns for box in boxes).most_common()
    colours = bright(palette)
    key = legend([(swatch(colours[k]), names[k]) for k, _ in shown], row.shape[1])
    return margin(
        stacked([words(name, TITLE, width=row.shape[1], middle=True, bold=True), row, key], 0, 5), 8
    )


def judged(objects: Sequence[Box], found: Sequence[Box]) -> tuple[list[Box], list[Box]]:
    """Objects and detections, those marked as mistakes that have no partner of their class.

    Detections choose in the order of their scores, each the free object that it overlaps most, from an IoU of
    0.5. Crowds and difficult objects are not missed, and a detection that lies on one is not false.
    """
    a = np.array([box.corners for box in found]).reshape(-1, 1, 4)
    b = np.array([box.corners for box in objects]).reshape(1, -1, 4)
    both = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(-1)
    own, other = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b))
    # Of a crowd, the share of the detection that lies on it.
    crowd, noted = (np.array([box.note in notes for box in objects], bool) for notes in (["crowd"], NOTES))
    overlap = both / np.maximum(np.where(crowd, own, own + other - both), 1e-9)
    overlap *= np.equal.outer([box.label for box in found], [box.label for box in objects])
    free, right = ~noted, np.zeros(len(found), bool)
    for i in sorted(range(len(found)), key=lambda i: -(found[i].score or 0.0)):
        partner = int(np.argmax(overlap[i] * free)) if len(objects) else 0
        if len(objects) and overlap[i, partner] * free[partner] >= 0.5:
            free[partner], right[i] = False, True
        else:
            right[i] = bool((overlap[i, noted] >= 0.5).any())
    return (
        [replace(box, mistake=bool(free[j])) for j, box in enumerate(objects)],
        [replace(box, mistake=not right[i]) for i, box in enumerate(found)],
    )
