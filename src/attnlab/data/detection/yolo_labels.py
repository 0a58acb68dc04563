"""YOLO's text files of labels: a line an object, in shares of the picture's width and height."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from attnlab.data.text_files import read_text
from attnlab.errors import AttnlabError

# Rounding, as Ultralytics bears it.
_SLACK = 0.01
# Shares that are merely wrong are seldom above; pixels seldom below.
_PIXELS = 2.0
_BOX = 4


@dataclass(frozen=True)
class LabelFormat:
    """What the lines of a data set's labels may hold.

    Attributes:
        num_classes: Classes are 0 … num_classes - 1.
        keypoint_numbers: How many numbers of keypoints stand after each box; 0 if there are none.
    """

    num_classes: int
    keypoint_numbers: int = 0


@dataclass(frozen=True, eq=False)
class YOLOLabels:
    """What is known of an image and its labels.

    Attributes:
        size: Height and width in pixels, as the file is stored.
        boxes: (N, 4) float64, x0, y0, x1, y1 in pixels, not clipped.
        labels: (N,) int64.
        problem: Why the image cannot be used, or None.
        found: Whether there is a file of labels.
        repeated: How many lines were left out, since they say the same as another.
        confidences: How many lines have a confidence after the box.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    problem: str | None = None
    found: bool = True
    repeated: int = 0
    confidences: int = 0


def look_up_labels(image: Path, file: Path | None, expected: LabelFormat) -> YOLOLabels:
    """Read an image's size and its labels; raises nothing.

    A line is ``class x y width height``, with the middle of a box; or ``class x y x y x y …``, a polygon,
    whose bounding box is taken. A confidence after a box, as in predictions, is passed over, and so are
    keypoints. Lines that say the same count once.

    Args:
        image: The image file, of which the header alone is read.
        file: The file of labels; None, or an empty one, is that of an image without objects.
        expected: What the lines may hold.
    """
    try:
        size, orientation = _header(image)
        rows, confidences = (np.empty((0, 5)), 0) if file is None else _read(file, expected)
        if len(rows) and orientation in range(2, 9):
            raise AttnlabError(
                f"The image '{image}' is stored turned or mirrored, as its EXIF orientation, {orientation}, "
                "says: YOLO's boxes lie on the upright picture, but images with boxes are read as stored. "
                "Store it upright, without that entry, e.g. with 'mogrify -auto-orient'."
            )
    except AttnlabError as error:
        nothing = np.empty((0, 4)), np.empty(0, np.int64)
        return YOLOLabels((1, 1), *nothing, problem=str(error), found=file is not None)
    first = np.unique(rows, axis=0, return_index=True)[1]
    kept = rows[np.sort(first)]
    height, width = size
    return YOLOLabels(
        size,
        kept[:, 1:] * [width, height, width, height],
        kept[:, 0].astype(np.int64),
        found=file is not None,
        repeated=len(rows) - len(kept),
        confidences=confidences,
    )


def _header(image: Path) -> tuple[tuple[int, int], int]:
    """Height and width that an image's header names, and its EXIF orientation."""
    try:
        with Image.open(image) as picture:
            return (picture.height, picture.width), picture.getexif().get(ExifTags.Base.Orientation, 1)
    except FileNotFoundError as error:
        raise AttnlabError(f"The image '{image}' is not there.") from error
    except Exception as error:  # Decoders raise whatever they like on damaged data.
        raise AttnlabError(
            f"Cannot read the size of the image '{image}': it is no picture of a known format, or damaged at "
            "its start."
        ) from error


def _read(file: Path, expected: LabelFormat) -> tuple[np.ndarray, int]:
    """The objects, (N, 5) float64: class, x0, y0, x1, y1 in shares; and how many lines have a confidence."""
    rows: list[list[float]] = []
    confidences = 0
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            values = _numbers(words)
            label = _label(values[0], expected.num_classes)
            rows.append([label, *_corners(values[1:], expected.keypoint_numbers)])
        except ValueError as error:
            raise AttnlabError(f"In '{file}', line {number} ('{_shown(line)}') {error}") from error
        confidences += len(words) == 1 + _BOX + 1
    return np.array(rows, np.float64).reshape(-1, 5), confidences


def _numbers(words: list[str]) -> list[float]:
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            raise ValueError(f"holds '{word}', which is no number.") from None
        if not math.isfinite(value):
            raise ValueError(f"holds '{word}', which is no finite number.")
        values.append(value)
    return values


def _label(value: float, num_classes: int) -> float:
    if not value.is_integer():
        raise ValueError(f"begins with {value:g}, but a class is a whole number.")
    if not 0 <= value < num_classes:
        raise ValueError(
            f"is of class {value:.0f}, but there are {num_classes} names: classes are 0 to {num_classes - 1}."
        )
    return value


def _corners(values: list[float], keypoint_numbers: int) -> list[float]:
    """The box of what stands after the class, as x0, y0, x1, y1 in shares."""
    count = len(values)
    if keypoint_numbers and count == _BOX + keypoint_numbers:
        return _of_box(values[:_BOX])
    if count in (_BOX, _BOX + 1):
        return _of_box(values[:_BOX])
    if count > _BOX and count % 2 == 0:
        _refuse_beyond(values)
        return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
    raise ValueError(
        f"has {count} numbers after the class; a box has 4 (5 with a confidence), a polygon an even number "
        "from 6 on."
    )


def _of_box(values: list[float]) -> list[float]:
    _refuse_beyond(values)
    x, y, width, height = values
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def _refuse_beyond(values: list[float]) -> None:
    beyond = [value for value in values if not -_SLACK <= value <= 1 + _SLACK]
    if not beyond:
        return
    what = "These look like pixels: divide x" if max(beyond) >= _PIXELS else "Divide x"
    raise ValueError(
        f"holds {beyond[0]:g}, but places and sizes are shares of the picture, 0 to 1. {what} and width by "
        "the picture's width, y and height by its height."
    )


def _shown(line: str) -> str:
    text = line.strip()
    return text if len(text) <= 60 else f"{text[:57]}…"
