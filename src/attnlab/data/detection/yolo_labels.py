"""YOLO's label files: one line per object, as fractions of the image's width and height."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags

from attnlab.data.headers import opened
from attnlab.data.text_files import read_text
from attnlab.errors import AttnlabError

# Tolerance for rounding, as in Ultralytics.
_SLACK = 0.01
# Wrong fractions are rarely above this; pixels rarely below.
_PIXELS = 2.0
_BOX = 4


@dataclass(frozen=True)
class LabelFormat:
    """The format of a data set's label lines.

    Attributes:
        num_classes: Classes are 0 … num_classes - 1.
        keypoint_numbers: How many keypoint numbers follow each box; 0 if none.
    """

    num_classes: int
    keypoint_numbers: int = 0


@dataclass(frozen=True, eq=False)
class YOLOLabels:
    """An image's size and labels.

    Attributes:
        size: Height and width in pixels, as stored.
        boxes: (N, 4) float64, x0, y0, x1, y1 in pixels, not clipped.
        labels: (N,) int64.
        problem: Why the image cannot be used, or None.
        found: Whether there is a label file.
        repeated: How many repeated lines were dropped.
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
    """Read an image's size and labels; never raises.

    A line is ``class x y width height``, with the centre of a box, or a polygon ``class x y x y x y …``,
    whose bounding box is used. A confidence after a box and keypoints are ignored. Repeated lines count once.

    Args:
        image: The image file; only its header is read.
        file: The label file; None or an empty file means no objects.
        expected: The format of the lines.
    """
    try:
        size, orientation = _header(image)
        rows, confidences = (np.empty((0, 5)), 0) if file is None else _read(file, expected)
        if len(rows) and orientation in range(2, 9):
            raise AttnlabError(
                f"The image '{image}' has the EXIF orientation {orientation}: YOLO's boxes refer to the "
                "upright image, but images with boxes are read as stored. Store it upright, without this "
                "entry, e.g. with 'mogrify -auto-orient'."
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
    """Height and width in an image's header, and its EXIF orientation."""
    try:
        # Whether it is too large is said by the check of the files.
        with image.open("rb") as file, opened(file, image, "image", math.inf) as picture:
            return (picture.height, picture.width), picture.getexif().get(ExifTags.Base.Orientation, 1)
    except FileNotFoundError as error:
        raise AttnlabError(f"The image '{image}' does not exist.") from error
    except Exception as error:  # Decoders raise errors of any kind on damaged data.
        raise AttnlabError(
            f"Cannot read the size of the image '{image}': it is not an image of a known format, or its "
            "header is damaged."
        ) from error


def _read(file: Path, expected: LabelFormat) -> tuple[np.ndarray, int]:
    """Objects (N, 5) float64: class, x0, y0, x1, y1 in fractions; and the number of lines with confidence."""
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
            raise ValueError(f"contains '{word}', which is not a number.") from None
        if not math.isfinite(value):
            raise ValueError(f"contains '{word}', which is not finite.")
        values.append(value)
    return values


def _label(value: float, num_classes: int) -> float:
    if not value.is_integer():
        raise ValueError(f"starts with {value:g}, but a class is an integer.")
    if not 0 <= value < num_classes:
        raise ValueError(
            f"has the class {value:.0f}, but with {num_classes} names, classes are 0 to {num_classes - 1}."
        )
    return value


def _corners(values: list[float], keypoint_numbers: int) -> list[float]:
    """The box given after the class, as x0, y0, x1, y1 in fractions."""
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
        "of at least 6."
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
        f"contains {beyond[0]:g}, but positions and sizes are fractions of the image, 0 to 1. {what} and "
        "width by the image's width, y and height by its height."
    )


def _shown(line: str) -> str:
    text = line.strip()
    return text if len(text) <= 60 else f"{text[:57]}…"
