"""Labelled boxes on pictures, of truths and of detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from attnlab.callbacks.drawing import Palette, Pixels
from attnlab.callbacks.text import INK, Colour, fitted, font, length, line_height

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
# Above so many boxes lines and letters become smaller.
CROWDED = 15
# A label is left out where more of it than this share would lie on labels of higher scores.
HIDDEN = 0.05
# What another place than the usual one costs, in boxes that are covered.
MOVED = 0.04
# Colours of a lower luminance have a light edge.
DARK = 0.1
# Opacity, of 255, of the edge of a detection's outline.
EDGE = 110

Corners = tuple[float, float, float, float]
Place = tuple[int, int, int, int]


@dataclass(frozen=True)
class Box:
    """A box with what is written at it.

    Attributes:
        corners: x0, y0, x1, y1 in pixels.
        label: Class.
        score: In 0..1; None for a truth, which is drawn in another style.
        note: What else is to be known of it (``crowd``, ``difficult``); such a box is dashed.
    """

    corners: Corners
    label: int
    score: float | None = None
    note: str = ""


def detected(detections: Mapping[str, Tensor], min_score: float = 0.0) -> list[Box]:
    """Boxes of an image's detections.

    Args:
        detections: ``boxes`` (M, 4) xyxy in pixels, ``scores`` (M,) and ``labels`` (M,).
        min_score: Detections below it are left out.
    """
    keys = ("boxes", "scores", "labels")
    boxes, scores, labels = (detections[key].detach().float().cpu().tolist() for key in keys)
    return [
        Box(tuple(corners), int(label), score)
        for corners, score, label in zip(boxes, scores, labels, strict=True)
        if score >= min_score
    ]


def truths(target: Mapping[str, Any]) -> list[Box]:
    """Boxes of an image's objects; crowds and difficult ones are noted as such.

    Args:
        target: ``boxes`` (N, 4) xyxy in pixels, ``labels`` (N,), and if known ``iscrowd`` and ``difficult``,
            bool (N,).
    """
    boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
    notes = [""] * len(boxes)
    for key, note in (("difficult", "difficult"), ("iscrowd", "crowd")):
        if key in target:
            marked = target[key].tolist()
            notes = [note if mark else old for mark, old in zip(marked, notes, strict=True)]
    return [
        Box(tuple(corners), label, None, note)
        for corners, label, note in zip(boxes, labels, notes, strict=True)
    ]


def picture_of(image: Tensor, smallest: int, largest: int) -> tuple[Pixels, tuple[float, float]]:
    """A picture to draw on, whose longest side lies within the given bounds.

    Args:
        image: (3, h, w) in 0..1.
        smallest: Smaller pictures are enlarged to this longest side, so that labels have room.
        largest: Larger ones are shrunk to it.

    Returns:
        RGB, uint8 (H, W, 3), and the factors by which x and y have grown.
    """
    pixels = (image.detach().float() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    height, width = pixels.shape[:2]
    longest = max(height, width)
    factor = min(max(longest, smallest), largest) / longest
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size != (width, height):
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return pixels, (size[0] / width, size[1] / height)


def scaled(boxes: Sequence[Box], factors: tuple[float, float]) -> list[Box]:
    """The boxes on a picture that has grown by the given factors of x and y."""
    x, y = factors
    return [
        replace(box, corners=(box.corners[0] * x, box.corners[1] * y, box.corners[2] * x, box.corners[3] * y))
        for box in boxes
    ]


def bright(palette: Palette) -> list[Colour]:
    """The palette with its dark colours, in which thin lines are lost, made lighter at the same hue."""
    result: list[Colour] = []
    for colour in palette:
        most = max(colour)
        lifted = [150 if most == 0 else round(value / most * (150 + 105 / 255 * most)) for value in colour]
        result.append((lifted[0], lifted[1], lifted[2]))
    return result


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever has the higher contrast with a colour (WCAG 2.2, contrast ratio)."""
    return BLACK if luminance(colour) > 0.179 else WHITE


def luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2), in 0..1."""
    shares = (value / 255 for value in colour)
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def draw_boxes(image: Pixels, boxes: Sequence[Box], names: Sequence[str], palette: Palette) -> Pixels:
    """The image with outlines in the classes' colours and, at each, the class's name and the score.

    Detections have a shaded edge and a label filled with their colour, truths a white edge and a white label.
    Of two boxes the one of the higher score lies on top. Labels do not leave the picture, and move about
    their boxes to be clear of each other; where a picture is too full, those of the lowest scores are left
    out.

    Args:
        image: RGB, uint8 (H, W, 3).
        boxes: In the image's pixels; what lies outside is cut off.
        names: Class names.
        palette: RGB colour of each class.

    Returns:
        A new picture of the same size.
    """
    page = Image.fromarray(image)
    draw = ImageDraw.Draw(page, "RGBA")
    side, crowded = max(page.size), len(boxes) > CROWDED
    width = max(1, round(side / 240) - crowded)
    letters = max(10, round(8 + side / 100) - 2 * crowded)
    # Truths have no score: the larger ones go below the smaller ones.
    order = sorted(boxes, key=lambda box: (box.score or 0.0, -_area(box.corners)))
    for box in order:
        _outline(draw, box, _colour(palette, box.label), width)
    places = [_pixels(box.corners) for box in order]
    labels: list[tuple[Place, Box, str]] = []
    for box in reversed(order):
        text = fitted(_text(box, names), page.width - 8, letters)
        size = (length(text, letters) + (6 if box.score is not None else 9), line_height(letters))
        place = _free(_pixels(box.corners), size, page.size, [taken for taken, _, _ in labels], places)
        if place is not None:
            labels.append((place, box, text))
    for place, box, text in reversed(labels):
        colour = _colour(palette, box.label)
        _write(draw, place, text, letters, colour, filled=box.score is not None)
    return np.asarray(page)


def _colour(palette: Palette, label: int) -> Colour:
    red, green, blue = palette[label]
    return int(red), int(green), int(blue)


def _area(corners: Corners) -> float:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])


def _text(box: Box, names: Sequence[str]) -> str:
    """What is written at a box."""
    parts = [names[box.label], box.note, "" if box.score is None else f"{box.score:.2f}"]
    return " ".join(part for part in parts if part)


def _pixels(corners: Corners) -> Place:
    """First and last pixel columns and rows of a box, at least one each: x0, y0, x1, y1."""
    x0, y0 = round(corners[0]), round(corners[1])
    return x0, y0, max(x0, round(corners[2]) - 1), max(y0, round(corners[3]) - 1)


def _outline(draw: ImageDraw.ImageDraw, box: Box, colour: Colour, width: int) -> None:
    """Draw the outline of a box inwards from its border, with an edge that sets it off from any ground."""
    x0, y0, x1, y1 = _pixels(box.corners)
    width = max(1, min(width, (min(x1 - x0, y1 - y0) + 1) // 4))
    if box.score is None:
        edge = (*WHITE, 255)
    else:
        edge = (*BLACK, EDGE) if luminance(colour) > DARK else (*WHITE, 2 * EDGE)
    dash = 5 * width + 2 if box.note else 0
    for grown, thickness, ink in ((1, width + 2, edge), (0, width, (*colour, 255))):
        place = (x0 - grown, y0 - grown, x1 + grown, y1 + grown)
        for piece in _sides(place, thickness, dash, grown):
            draw.rectangle(piece, fill=ink)


def _sides(place: Place, thickness: int, dash: int, grown: int) -> list[Place]:
    """The sides of an outline as rectangles that do not overlap, cut into dashes of a length above 0."""
    x0, y0, x1, y1 = place
    inner = min(thickness, (min(x1 - x0, y1 - y0) + 2) // 2)
    sides = [
        (x0, y0, x1, y0 + inner - 1),
        (x0, y1 - inner + 1, x1, y1),
        (x0, y0 + inner, x0 + inner - 1, y1 - inner),
        (x1 - inner + 1, y0 + inner, x1, y1 - inner),
    ]
    sides = [side for side in sides if side[0] <= side[2] and side[1] <= side[3]]
    if not dash:
        return sides
    pieces = []
    for left, top, right, bottom in sides:
        across = right - left >= bottom - top
        start, stop = (left, right) if across else (top, bottom)
        first = (x0 if across else y0) + grown
        for begin in range(first, stop + 1, 2 * dash):
            low, high = max(start, begin - grown), min(stop, begin + dash - 1 + grown)
            if low <= high:
                pieces.append((low, top, high, bottom) if across else (left, low, right, high))
    return pieces


def _free(
    box: Place,
    label: tuple[int, int],
    picture: tuple[int, int],
    taken: Sequence[Place],
    boxes: Sequence[Place],
) -> Place | None:
    """Where a label is best put: inside the picture, clear of other labels, covering little of any box.

    Args:
        box: The label's own box.
        label: Width and height.
        picture: Width and height.
        taken: Where labels are already.
        boxes: All boxes.

    Returns:
        Its place, None where there is none.
    """
    x0, y0, x1, y1 = box
    wide, high = label
    if wide > picture[0] or high > picture[1]:
        return None
    right = x1 - wide + 1
    above, top, bottom, below = y0 - high, y0, y1 - high + 1, y1 + 1
    labels, covered = np.array(taken).reshape(-1, 4), np.array(boxes).reshape(-1, 4)
    areas = (covered[:, 2:] - covered[:, :2] + 1).prod(1)
    best, least = None, float("inf")
    for position, (x, y) in enumerate((x, y) for y in (above, top, below, bottom) for x in (x0 - 1, right)):
        x, y = min(max(x, 0), picture[0] - wide), min(max(y, 0), picture[1] - high)
        place = (x, y, x + wide - 1, y + high - 1)
        if _overlaps(place, labels).sum() > HIDDEN * wide * high:
            continue
        cost = MOVED * position + float((_overlaps(place, covered) / areas).sum())
        if cost < least:
            best, least = place, cost
    return best


def _overlaps(place: Place, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many pixels (N,) a place shares with each of others (N, 4)."""
    low, high = np.maximum(others[:, :2], place[:2]), np.minimum(others[:, 2:], place[2:])
    return (high - low + 1).clip(0).prod(1)


def _write(
    draw: ImageDraw.ImageDraw, place: Place, text: str, letters: int, colour: Colour, filled: bool
) -> None:
    """Write a label: on the class's colour, or on white with a strip of the class's colour."""
    draw.rectangle(place, fill=colour if filled else WHITE)
    if not filled:
        draw.rectangle((place[0], place[1], place[0] + 2, place[3]), fill=colour)
    draw.text(
        (place[0] + (3 if filled else 5), place[1]),
        text,
        fill=ink_on(colour) if filled else INK,
        font=font(letters),
    )
