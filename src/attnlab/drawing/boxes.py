"""Labelled boxes on pictures: truths, detections and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from attnlab.drawing.figures import INK, WHITE, WRONG, words
from attnlab.drawing.pixels import Colour, Palette, Pixels, as_pixels, as_tensor, ink_on

# Above so many boxes lines become thinner; of more, only so many of the best have a label.
CROWDED, LABELLED = 15, 40
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class Box:
    """A box with what is written at it.

    Attributes:
        corners: x0, y0, x1, y1 in pixels.
        label: Class.
        score: In 0..1; None for a truth.
        note: What else is to be known of it (``crowd``, ``difficult``); such a box is dashed.
        mistake: It is wrong, and marked in red: a truth that was missed, a detection of nothing.
    """

    corners: tuple[float, float, float, float]
    label: int
    score: float | None = None
    note: str = ""
    mistake: bool = False


def detected(detections: Mapping[str, Any], min_score: float = 0.0) -> list[Box]:
    """Boxes of an image's detections.

    Args:
        detections: ``boxes`` (M, 4) xyxy in pixels, ``scores`` (M,) and ``labels`` (M,).
        min_score: Detections below it are left out.
    """
    keys = ("boxes", "scores", "labels")
    boxes, scores, labels = (torch.as_tensor(detections[key]).detach().float().tolist() for key in keys)
    return [
        Box(tuple(corners), int(label), score)
        for corners, score, label in zip(boxes, scores, labels, strict=True)
        if score >= min_score
    ]


def truths(target: Mapping[str, Any]) -> list[Box]:
    """Boxes of an image's objects; crowds and difficult ones are noted as such.

    Args:
        target: ``boxes`` (N, 4) xyxy in pixels, ``labels`` (N,), and if known ``iscrowd`` and ``difficult``,
            bool (N,): arrays or tensors.
    """
    boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
    notes = [""] * len(boxes)
    for key, note in (("difficult", "difficult"), ("iscrowd", "crowd")):
        if key in target:
            marked = target[key].tolist()
            notes = [note if mark else old for mark, old in zip(marked, notes, strict=True)]
    return [
        Box(tuple(corners), int(label), None, note)
        for corners, label, note in zip(boxes, labels, notes, strict=True)
    ]


def scaled(boxes: Sequence[Box], factors: tuple[float, float]) -> list[Box]:
    """The boxes on a picture that has grown by the given factors of x and y."""
    x, y = factors
    return [
        replace(box, corners=(box.corners[0] * x, box.corners[1] * y, box.corners[2] * x, box.corners[3] * y))
        for box in boxes
    ]


def bright(palette: Palette) -> Palette:
    """The palette with its dark colours, in which thin lines are lost, made lighter at the same hue."""
    colours = rgb_to_hsv(np.asarray(palette, float) / 255)
    colours[:, 2] = 0.59 + 0.41 * colours[:, 2]
    return (255 * hsv_to_rgb(colours)).round().astype(int).tolist()


def draw_boxes(image: Pixels, boxes: Sequence[Box], names: Sequence[str], palette: Palette) -> Pixels:
    """The image with outlines in the classes' colours and, at each, the class's name and the score.

    Detections have a dark rim and a label of their colour, truths a white rim and a white label; mistakes a
    thick red rim and a red label. Of two boxes the one of the higher score lies on top. Labels stay inside
    the picture and off each other: those of lower scores move, and are left out where there is no room.

    Args:
        image: RGB, uint8 (H, W, 3).
        boxes: In the image's pixels; what lies outside is cut off.
        names: Class names.
        palette: RGB colour of each class; dark ones are drawn lighter (``bright``).

    Returns:
        A new picture of the same size.
    """
    height, width = image.shape[:2]
    colours: list[Colour] = [(int(r), int(g), int(b)) for r, g, b in bright(palette)]
    thick = max(1, round(max(height, width) / 240) - (len(boxes) > CROWDED))
    # Truths have no score: the larger ones go below the smaller ones.
    order = sorted(boxes, key=lambda box: (box.score or 0.0, -_area(box)))
    page = as_tensor(image)
    marked = _outlined(page, [box for box in order if box.note], colours, thick, size=(width, height))
    # torchvision has no dashes: the outlines are seen through stripes.
    stripes = (torch.arange(height)[:, None] + torch.arange(width)) % (8 * thick + 4) < 5 * thick + 2
    page = torch.where(stripes, marked, page)
    for mistake in (False, True):
        chosen = [box for box in order if not box.note and box.mistake == mistake]
        page = _outlined(page, chosen, colours, thick, (width, height))
    drawn = as_pixels(page).copy()
    size = max(12, round(8 + max(height, width) / 100) - 2 * (len(boxes) > CROWDED))
    taken: list[tuple[int, int, int, int]] = []
    for box in order[::-1][:LABELLED]:
        label = _label(box, names[box.label], colours[box.label], size, width)
        place = _free(_inside(box, (width, height)), label.shape, (width, height), taken)
        if place is not None:
            x0, y0, x1, y1 = place
            drawn[y0:y1, x0:x1] = label
            taken.append(place)
    return drawn


def _area(box: Box) -> float:
    x0, y0, x1, y1 = box.corners
    return (x1 - x0) * (y1 - y0)


def _inside(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last pixel columns and rows of a box inside a picture, one each at least: x0, y0, x1, y1."""
    x0, y0, x1, y1 = (round(value) for value in box.corners)
    x0, y0 = min(max(x0, 0), size[0] - 1), min(max(y0, 0), size[1] - 1)
    return x0, y0, max(x0, min(x1, size[0]) - 1), max(y0, min(y1, size[1]) - 1)


def _outlined(
    page: Tensor, boxes: Sequence[Box], colours: Sequence[Colour], thick: int, size: tuple[int, int]
) -> Tensor:
    """The picture uint8 (3, H, W) with outlines inwards from the boxes' borders, and rims around these."""
    if not boxes:
        return page
    places = torch.tensor([_inside(box, size) for box in boxes])
    rims = [WRONG if box.mistake else WHITE if box.score is None else BLACK for box in boxes]
    rim = max(2, thick) if any(box.mistake for box in boxes) else 1
    grown = places + torch.tensor([-rim, -rim, rim, rim])
    page = draw_bounding_boxes(page, grown, colors=rims, width=thick + 2 * rim)
    return draw_bounding_boxes(page, places, colors=[colours[box.label] for box in boxes], width=thick)


def _label(box: Box, name: str, colour: Colour, size: int, room: int) -> Pixels:
    """A label: the name, and what is known of the box; a strip of the class's colour at its left."""
    ground = WRONG if box.mistake else WHITE if box.score is None else colour
    ink = WHITE if box.mistake else INK if box.score is None else ink_on(colour)
    more = " ".join(part for part in (box.note, "" if box.score is None else f"{box.score:.2f}") if part)
    text = words(f"{name} {more}".strip(), size, ink, ground, room - 8)
    label = np.pad(text, ((0, 0), (6, 2), (0, 0)))
    label[:, :6], label[:, -2:], label[:, :4] = ground, ground, colour
    return label


def _free(
    box: tuple[int, int, int, int],
    label: tuple[int, ...],
    size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:
    """The first place at a box where a label (height, width) lies inside the picture and clear of others."""
    high, wide = label[:2]
    if wide > size[0] or high > size[1]:
        return None
    x0, y0, x1, y1 = box
    for y in (y0 - high, y0, y1 - high + 1, y1 + 1):
        for x in (x0 - 1, x1 - wide + 2):
            x, y = min(max(x, 0), size[0] - wide), min(max(y, 0), size[1] - high)
            if all(x >= right or x + wide <= left or y >= low or y + high <= top for left, top, right, low in taken):
                return x, y, x + wide, y + high
    return None
