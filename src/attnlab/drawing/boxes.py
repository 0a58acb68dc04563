"""Labelled boxes on images: ground truth next to detections, with missed and false ones."""

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

from attnlab.drawing.figures import GREY, WHITE, WRONG, words
from attnlab.drawing.layout import framed, panel, stacked, swatch
from attnlab.drawing.pixels import Colour, Palette, Pixels, as_pixels, fitted_to

# Above this many boxes, lines and letters are smaller; only this many of the best have a label.
CROWDED, LABELLED = 15, 40
BLACK: Colour = (0, 0, 0)
# Colours by verdict, instead of by class.
VERDICTS = {"right": (0, 200, 110), "wrong": (225, 30, 30), "not scored": (170, 170, 170)}
KEY = {"right": "found", "wrong": "missed or false", "not scored": "crowd or difficult"}


@dataclass(frozen=True)
class Box:
    """A box and its label.

    Attributes:
        corners: x0, y0, x1, y1 in pixels.
        label: Class.
        score: In 0..1; None for ground truth.
        note: A note (``crowd``, ``difficult``); such a box is dashed.
        verdict: A key of ``VERDICTS``, which gives its colour; empty for the class's colour.
    """

    corners: tuple[float, float, float, float]
    label: int
    score: float | None = None
    note: str = ""
    verdict: str = ""


def detected(detections: Mapping[str, Any], min_score: float = 0.0) -> list[Box]:
    """Detections (``boxes`` (M, 4) xyxy, ``labels`` (M,), ``scores`` (M,)) of at least ``min_score``."""
    found = zip(*(detections[key].tolist() for key in ("boxes", "labels", "scores")), strict=True)
    return [Box(tuple(box), int(label), score) for box, label, score in found if score >= min_score]


def truths(target: Mapping[str, Any]) -> list[Box]:
    """Objects of a target: ``boxes`` (N, 4) xyxy, ``labels`` (N,), if known ``iscrowd`` and ``difficult``."""
    boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
    marks = (
        target[key].tolist() if key in target else [False] * len(boxes) for key in ("iscrowd", "difficult")
    )
    return [
        Box(tuple(box), int(label), None, "crowd" if crowd else "difficult" if difficult else "")
        for box, label, crowd, difficult in zip(boxes, labels, *marks, strict=True)
    ]


def scaled(boxes: Sequence[Box], factors: tuple[float, float]) -> list[Box]:
    """The boxes scaled by the given factors of x and y."""
    grown = np.array([box.corners for box in boxes]).reshape(-1, 4) * [*factors, *factors]
    return [replace(box, corners=tuple(corners)) for box, corners in zip(boxes, grown.tolist(), strict=True)]


def bright(palette: Palette) -> list[Colour]:
    """The palette with dark colours, in which thin lines are hard to see, made lighter at the same hue."""
    colours = rgb_to_hsv(np.asarray(palette).reshape(-1, 3) / 255)
    colours[:, 2] = 0.59 + 0.41 * colours[:, 2]
    return [(r, g, b) for r, g, b in (255 * hsv_to_rgb(colours)).round().astype(int).tolist()]


def draw_boxes(image: Pixels, boxes: Sequence[Box], names: Sequence[str], palette: Palette) -> Pixels:
    """An image with outlines in the colours of classes or verdicts, and labels with names and scores.

    Detections have a dark rim, ground truth a white one; boxes are clipped to the image. Labels stay inside
    and do not overlap: those of lower scores are moved, or left out if there is no room. Dark colours are
    drawn lighter, see ``bright``.
    """
    height, width = image.shape[:2]
    crowded = len(boxes) > CROWDED
    thick = max(2, round(max(height, width) / 240) - crowded)
    letters = max(12, round(8 + max(height, width) / 100) - 2 * crowded)
    classes = bright([palette[box.label] for box in boxes]) if boxes else []
    colours = [VERDICTS.get(box.verdict, colour) for box, colour in zip(boxes, classes, strict=True)]
    corners, size = torch.tensor([box.corners for box in boxes]).reshape(-1, 4), torch.tensor([width, height])
    # First and last pixels inside the image, at least one each.
    first = corners[:, :2].round().long().clamp(min=0).minimum(size - 1)
    places = torch.cat([first, first.maximum(corners[:, 2:].round().long().minimum(size) - 1)], 1)
    # Higher scores are on top; among ground truth, larger boxes are below.
    areas = (corners[:, 2:] - corners[:, :2]).prod(1).tolist()
    order = sorted(range(len(boxes)), key=lambda i: (boxes[i].score or 0.0, -areas[i]))

    def outlined(page: Tensor, chosen: list[int]) -> Tensor:
        if not chosen:
            return page
        rims = [WHITE if boxes[i].score is None else BLACK for i in chosen]
        rim = places[chosen] + torch.tensor([-1, -1, 1, 1])
        page = draw_bounding_boxes(page, rim, colors=rims, width=thick + 2)
        return draw_bounding_boxes(page, places[chosen], colors=[colours[i] for i in chosen], width=thick)

    page = torch.tensor(image).permute(2, 0, 1)
    # torchvision has no dashes: these outlines are masked by stripes.
    stripes = (torch.arange(height)[:, None] + torch.arange(width)) % (8 * thick + 4) < 5 * thick + 2
    page = torch.where(stripes, outlined(page, [i for i in order if boxes[i].note]), page)
    drawn = as_pixels(outlined(page, [i for i in order if not boxes[i].note]))
    taken = np.zeros((height, width), bool)
    for i in order[::-1][:LABELLED]:
        box, colour = boxes[i], colours[i]
        light = np.dot((np.array(colour) / 255) ** 2.2, (0.2126, 0.7152, 0.0722)) > 0.179
        text = " ".join([names[box.label], box.note, "" if box.score is None else f"{box.score:.2f}"])
        label = words(text, letters, BLACK if light else WHITE, colour, width - 6)
        label = framed(label, label.shape[0], label.shape[1] + 6, colour, 0.5)
        high, wide = label.shape[:2]
        x0, y0, x1, y1 = places[i].tolist()
        for y, x in ((y, x) for y in (y0 - high, y0, y1 - high + 1, y1 + 1) for x in (x0 - 1, x1 - wide + 2)):
            y, x = min(max(y, 0), height - high), min(max(x, 0), width - wide)
            if y >= 0 and x >= 0 and not taken[y : y + high, x : x + wide].any():
                drawn[y : y + high, x : x + wide] = label
                taken[y : y + high, x : x + wide] = True
                break
    return drawn


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
    """Ground truth and detections side by side: correct ones green, missed and false ones red.

    The image, (3, h, w) in 0..1, is drawn with a longest side of ``max_side`` pixels. Objects and detections
    (``boxes`` (M, 4) xyxy, ``scores`` (M,), ``labels`` (M,)) are in the image's pixels; without objects
    (None), only the detections are drawn, in their classes' colours. Those with a score below ``min_score``
    are ignored.
    """
    pixels, factors = fitted_to(image, max_side, max_side)
    found = detected(detections, min_score)
    rest = len(detections["scores"]) - len(found)
    hidden = [f"{rest} more below {min_score:g}"] if rest else []
    if objects is None:
        columns = [("detected", found, "", hidden)]
        classes = Counter(box.label for box in found).most_common()
        key = [(swatch(bright([palette[k]])[0]), names[k]) for k, _ in classes]
    else:
        objects, found = judged(objects, found)
        notes = sorted(Counter(box.note for box in objects if box.note).items())
        noted = [f"{count} {note}" for note, count in notes]
        columns = [("truth", objects, "missed", noted), ("detected", found, "false", hidden)]
        verdicts = {box.verdict for box in (*objects, *found)}
        key = [(swatch(colour), KEY[verdict]) for verdict, colour in VERDICTS.items() if verdict in verdicts]
    cells = []
    for what, boxes, fault, more in columns:
        wrong = sum(box.verdict == "wrong" for box in boxes)
        counts = words(", ".join([str(len(boxes)), *more]), ink=GREY)
        faults = words(f"{wrong} {fault}" if wrong else "", ink=WRONG, bold=True)
        caption = stacked([words(what, bold=True), counts, faults], 1, 8)
        cells.append((caption, draw_boxes(pixels, scaled(boxes, factors), names, palette)))
    return panel(name, "", cells, key)


def judged(objects: Sequence[Box], found: Sequence[Box]) -> tuple[list[Box], list[Box]]:
    """Objects and detections with their verdicts.

    By descending score, each detection takes the free object of its class that it overlaps most, at an IoU of
    at least 0.5. Crowd and difficult objects are not scored, nor are detections on them.
    """
    a = np.array([box.corners for box in found]).reshape(-1, 1, 4)
    b = np.array([box.corners for box in objects]).reshape(1, -1, 4)
    both = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(-1)
    own, other = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b))
    # For a crowd, the share of the detection that lies on it.
    union = np.where([box.note == "crowd" for box in objects], own, own + other - both)
    same = np.equal.outer([box.label for box in found], [box.label for box in objects])
    near = np.where(same & (both >= 0.5 * union), both / np.maximum(union, 1e-9), 0)
    truth = ["not scored" if box.note else "wrong" for box in objects]
    guess = ["wrong"] * len(found)
    for i in sorted(range(len(found)), key=lambda i: -(found[i].score or 0.0)):
        free = [j for j in np.flatnonzero(near[i]) if truth[j] == "wrong"]
        if free:
            truth[max(free, key=lambda j: near[i, j])] = guess[i] = "right"
        elif any(truth[j] == "not scored" for j in np.flatnonzero(near[i])):
            guess[i] = "not scored"
    return (
        [replace(box, verdict=verdict) for box, verdict in zip(objects, truth, strict=True)],
        [replace(box, verdict=verdict) for box, verdict in zip(found, guess, strict=True)],
    )
