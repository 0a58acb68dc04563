"""Truths beside detections, with what was missed and what is false."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from attnlab.drawing.boxes import Box, bright, detected, draw_boxes, scaled
from attnlab.drawing.figures import GREY, TITLE, WRONG, words
from attnlab.drawing.layout import below, beside, framed, legend, margin, swatch
from attnlab.drawing.pixels import Palette, Pixels, fitted_to

# Very narrow pictures stand on a sheet of at least this width, so that their captions can be read.
NARROWEST = 260
# The overlap from which a detection is that of an object.
IOU = 0.5


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
        objects: The truths in the image's pixels; None where they are not known: then the detections stand
            alone and none of them is false.
        detections: ``boxes`` (M, 4) xyxy in the image's pixels, ``scores`` (M,) and ``labels`` (M,).
        name: The image's name.
        names: Class names.
        palette: RGB colour of each class.
        max_side: Longest side of a drawn image in pixels.
        min_score: Detections of a lower score are not drawn, and find nothing.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    pixels, factors = fitted_to(image, max_side, max_side)
    found = detected(detections, min_score)
    below_it = len(detections["scores"]) - len(found)
    rest = f", {below_it} more below {min_score:g}" if below_it else ""
    columns = []
    if objects is not None:
        objects, found = judged(objects, found)
        notes = Counter(box.note for box in objects if box.note)
        parts = [str(len(objects)), *(f"{count} {note}" for note, count in sorted(notes.items()))]
        columns.append(("truth", ", ".join(parts), "missed", objects))
    columns.append(("detected", f"{len(found)}{rest}", "false", found))

    height, width = pixels.shape[:2]
    cell = max(width, NARROWEST)
    drawn = []
    for what, count, fault, boxes in columns:
        wrong = sum(box.mistake for box in boxes)
        caption = [words(what, bold=True), words(count, ink=GREY)]
        caption += [words(f"{wrong} {fault}", ink=WRONG)] if wrong else []
        picture = draw_boxes(pixels, scaled(boxes, factors), names, palette)
        line = beside(caption, 8)
        drawn.append(below([framed(line, line.shape[0], cell), framed(picture, height, cell)], 2))
    row = beside(drawn, 8)
    parts_ = [words(name, TITLE, width=row.shape[1], middle=True, bold=True), row]
    classes = Counter(box.label for _, _, _, boxes in columns for box in boxes)
    colours = bright(palette)
    entries = [(swatch(colours[k]), names[k]) for k, _ in classes.most_common()]
    if any(box.mistake for _, _, _, boxes in columns for box in boxes):
        entries.append((swatch(WRONG), "missed or false"))
    if entries:
        parts_.append(legend(entries, row.shape[1]))
    return margin(below(parts_, 5), 8)


def judged(objects: Sequence[Box], found: Sequence[Box]) -> tuple[list[Box], list[Box]]:
    """Objects and detections, with those marked as mistakes that have no partner of their class.

    The detection of the highest score chooses first, the object that it overlaps most, from an IoU of 0.5.
    Crowds and difficult objects are never missed, and a detection that lies on one is not false.

    Args:
        objects: The truths.
        found: The detections.

    Returns:
        Both in the order given.
    """
    taken: set[int] = set()
    false = set()
    for i in sorted(range(len(found)), key=lambda i: -(found[i].score or 0.0)):
        mine = [j for j, box in enumerate(objects) if box.label == found[i].label]
        overlap = {j: _overlap(found[i], objects[j]) for j in mine}
        free = [j for j in mine if overlap[j] >= IOU and not objects[j].note and j not in taken]
        if free:
            taken.add(max(free, key=lambda j: overlap[j]))
        elif not any(objects[j].note and overlap[j] >= IOU for j in mine):
            false.add(i)
    return (
        [replace(box, mistake=not box.note and j not in taken) for j, box in enumerate(objects)],
        [replace(box, mistake=i in false) for i, box in enumerate(found)],
    )


def _overlap(found: Box, truth: Box) -> float:
    """IoU of two boxes; of a crowd, the share of the detection that lies on it."""
    a, b = np.array(found.corners), np.array(truth.corners)
    both = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0).prod()
    own, other = (a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()
    whole = own if truth.note == "crowd" else own + other - both
    return float(both / whole) if whole > 0 else 0.0
