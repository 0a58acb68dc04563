"""Mosaic and mixup for detection.

Mosaic: YOLOv4, arXiv:2004.10934, section 3.3 and figure 3. Mixup of whole images: mixup, arXiv:1710.09412, in
the form for detection of YOLOX, arXiv:2107.08430, section 2.1, which blends every mosaic with one more image.

Letterboxing, scaling, shifting and cropping are one map along each axis, so every source is resized once,
from its visible part straight to its place on the canvas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from attnlab.data.detection.sets import DetectionSample
from attnlab.errors import AttnlabError

LEAST_SIDE = 2.0
"""Minimum width and height of a kept box, in pixels."""

LEAST_VISIBLE = 0.2
"""Minimum visible share of a kept box's area."""


class MosaicMixup:
    """Make a square training sample from several images and their objects.

    With probability ``mosaic``, four images share a canvas: the requested one and three drawn from the whole
    data set. Each is letterboxed to ``size``, and their corners meet at a random point; the whole is scaled
    by a random factor and shifted, and ``size`` x ``size`` pixels are cropped. Otherwise the image fills the
    canvas alone, randomly scaled, stretched and placed.

    With probability ``mixup``, a mosaic that has objects is then blended half and half with one more image,
    randomly scaled and placed.

    Boxes are clipped to the visible part of their image. Those with less than 2 pixels of width or height, or
    less than 0.2 of their area left, are dropped.

    Args:
        size: Side of the output, in pixels.
        mosaic: Probability of a mosaic, 0..1.
        mixup: Probability that a mosaic is blended with one more image, 0..1.
        scale: Smallest and largest factor on top of the letterbox's, for mosaics and single images; drawn
            uniformly.
        mixup_scale: The same for the blended image.
        shift: Largest shift of a mosaic along each axis, as a share of ``size``.
        stretch: Largest change of a single image's aspect ratio; its logarithm is drawn uniformly. 1 keeps
            the ratio.
        fill: Grey value of the empty canvas, 0..255.

    Raises:
        AttnlabError: An argument is out of its range.
    """

    def __init__(
        self,
        size: int,
        mosaic: float = 1.0,
        mixup: float = 1.0,
        scale: tuple[float, float] = (0.5, 1.5),
        mixup_scale: tuple[float, float] = (0.5, 1.5),
        shift: float = 0.1,
        stretch: float = 1.3,
        fill: int = 114,
    ) -> None:
        ranges = "it must be (smallest, largest), both above 0"
        rules = {
            f"size is {size}; it must be at least 8 pixels": size >= 8,
            f"mosaic is {mosaic}; it is a probability, 0 to 1": 0 <= mosaic <= 1,
            f"mixup is {mixup}; it is a probability, 0 to 1": 0 <= mixup <= 1,
            f"scale is {tuple(scale)}; {ranges}": 0 < scale[0] <= scale[1],
            f"mixup_scale is {tuple(mixup_scale)}; {ranges}": 0 < mixup_scale[0] <= mixup_scale[1],
            f"shift is {shift}; it must be within 0..0.5": 0 <= shift <= 0.5,
            f"stretch is {stretch}; it must be at least 1": stretch >= 1,
            f"fill is {fill}; it must be within 0..255": 0 <= fill <= 255,
        }
        for rule, holds in rules.items():
            if not holds:
                raise AttnlabError(f"Mosaic and mixup: {rule}.")
        self.size = size
        self.mosaic = mosaic
        self.mixup = mixup
        self.scale = (scale[0], scale[1])
        self.mixup_scale = (mixup_scale[0], mixup_scale[1])
        self.shift = shift
        self.stretch = stretch
        self.fill = fill

    def __call__(
        self, sample_index: int, length: int, load: Callable[[int], DetectionSample], rng: Random
    ) -> DetectionSample:
        """Make a sample.

        Args:
            sample_index: The requested sample, 0 … length - 1.
            length: Number of samples to draw from.
            load: Returns a sample by index, possibly the same one repeatedly; samples are not modified.
            rng: Source of all random numbers.

        Returns:
            An image (3, size, size), channels innermost in memory, with its objects.
        """
        canvas = _Canvas(self.size, self.fill)
        if rng.random() >= self.mosaic:
            self._alone(canvas, load(sample_index), self.scale, self.stretch, rng)
            return canvas.sample()
        indices = [sample_index, *(rng.randrange(length) for _ in range(3))]
        scale = rng.uniform(*self.scale)
        across, down = self._centre(scale, rng), self._centre(scale, rng)
        for place, index in enumerate(indices):
            sides = (down, place >= 2), (across, place % 2 == 1)
            if all(point < self.size if after else point > 0 for point, after in sides):
                source = load(index)
                shape = source.image.shape[-2:]
                factor = scale * self.size / max(shape)
                spans = (self._beside(*side, n * factor) for side, n in zip(sides, shape, strict=True))
                canvas.place(source, *spans)
        if rng.random() < self.mixup:
            partner = load(rng.randrange(length))
            if len(partner.labels):
                other = _Canvas(self.size, self.fill)
                self._alone(other, partner, self.mixup_scale, 1.0, rng)
                canvas.blend(other)
        return canvas.sample()

    def _centre(self, scale: float, rng: Random) -> int:
        """Where four images meet along one axis: in the middle half of a double canvas, before scaling."""
        middle = 0.5 + rng.uniform(-0.5, 0.5) * scale + rng.uniform(-self.shift, self.shift)
        return round(middle * self.size)

    def _beside(self, point: int, after: bool, length: float) -> _Span:
        """One axis of a mosaic's image, which begins or ends where the four meet."""
        whole = max(1, round(length))
        if after:
            return _Span(point, whole, max(0, point), self.size)
        return _Span(point - whole, whole, 0, min(self.size, point))

    def _alone(
        self, canvas: _Canvas, source: DetectionSample, scale: Sequence[float], stretch: float, rng: Random
    ) -> None:
        """Place a single image anywhere on the canvas, scaled and stretched."""
        ratio = math.exp(rng.uniform(-1, 1) * math.log(stretch))
        height, width = source.image.shape[-2:]
        factor = rng.uniform(*scale) * self.size / max(height, width * ratio)
        left, top = rng.random(), rng.random()
        lengths = max(1, round(height * factor)), max(1, round(width * ratio * factor))
        spans = (
            _Span(round((self.size - length) * share), length, 0, self.size)
            for length, share in zip(lengths, (top, left), strict=True)
        )
        canvas.place(source, *spans)


class _Span(NamedTuple):
    """One axis of a source's place on the canvas.

    Attributes:
        offset: Start of the whole source, in pixels of the canvas.
        length: Length of the whole source.
        low: Start of the part of the canvas it may cover.
        high: End of that part.
    """

    offset: int
    length: int
    low: int
    high: int

    def window(self, source: int) -> tuple[int, int, int, int]:
        """The visible part of a source of this length: start and end in the source and on the canvas.

        The latter two are equal if nothing is visible.
        """
        begin, end = max(self.low, self.offset), min(self.high, self.offset + self.length)
        if begin >= end:
            return 0, 0, 0, 0
        first = min(source - 1, round((begin - self.offset) * source / self.length))
        last = max(first + 1, round((end - self.offset) * source / self.length))
        return first, min(source, last), begin, end


class _Canvas:
    """A grey square for placing images, and its visible objects."""

    def __init__(self, size: int, fill: int) -> None:
        self.pixels = torch.full((size, size, 3), fill, dtype=torch.uint8)
        self.boxes: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []

    def place(self, sample: DetectionSample, y: _Span, x: _Span) -> None:
        """Put an image on the canvas, and keep its objects that are sufficiently visible."""
        top, bottom, y0, y1 = y.window(sample.image.shape[-2])
        left, right, x0, x1 = x.window(sample.image.shape[-1])
        if y0 == y1 or x0 == x1:
            return
        seen = _resized(sample.image[:, top:bottom, left:right], y1 - y0, x1 - x0)
        self.pixels[y0:y1, x0:x1] = seen.permute(1, 2, 0)
        if len(sample.labels):
            # With the rounded window's own scale, so that boxes stay on their objects.
            factor = _pairs((x1 - x0) / (right - left), (y1 - y0) / (bottom - top))
            moved = (sample.boxes - _pairs(left, top)) * factor + _pairs(x0, y0)
            boxes = moved.clip(_pairs(x0, y0), _pairs(x1, y1))
            sides, whole = boxes[:, 2:] - boxes[:, :2], moved[:, 2:] - moved[:, :2]
            keep = (sides >= LEAST_SIDE).all(1) & (sides.prod(1) >= LEAST_VISIBLE * whole.prod(1))
            self.boxes.append(boxes[keep])
            self.labels.append(sample.labels[keep])

    def blend(self, other: _Canvas) -> None:
        """Average with another canvas, rounded down, and add its objects."""
        both = self.pixels & other.pixels
        self.pixels.bitwise_xor_(other.pixels).bitwise_right_shift_(1).add_(both)
        self.boxes += other.boxes
        self.labels += other.labels

    def sample(self) -> DetectionSample:
        """The canvas as a sample."""
        return DetectionSample(
            self.pixels.permute(2, 0, 1),
            np.concatenate([np.empty((0, 4), np.float32), *self.boxes]),
            np.concatenate([np.empty(0, np.int64), *self.labels]),
        )


def _pairs(x: float, y: float) -> np.ndarray:
    """x, y, x, y."""
    return np.array([x, y, x, y], np.float32)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """Resize an image (3, h, w) bilinearly with antialiasing; fastest with channels innermost in memory."""
    if image.shape[-2:] == (height, width):
        return image
    # As a batch with channels_last strides, which image[None] does not have.
    batch = image.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    return functional.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]
