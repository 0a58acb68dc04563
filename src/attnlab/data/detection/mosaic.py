"""Training images made of several: mosaic and mixup.

Mosaic: YOLOv4, arXiv:2004.10934, section 3.3 and figure 3. Mixup of whole images: mixup, arXiv:1710.09412, in
the form for detection of YOLOX, arXiv:2107.08430, section 2.1, which blends every mosaic with one more image.

Letterboxing, scaling, shifting and cutting are one map along each axis, so every source is resized once, from
the part of it that is seen straight to its place on the canvas.
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
"""Pixels that a box must have left in width and height."""

LEAST_VISIBLE = 0.2
"""Share of its area that a box must have left."""


class MosaicMixup:
    """Make a square training sample of several images, with all their objects.

    With probability ``mosaic``, four images share a canvas: the one asked for and three drawn from the whole
    data set. Each is letterboxed to ``size`` and they touch, with a corner each, in a random point; the
    whole is scaled by one random factor and shifted, and ``size`` x ``size`` pixels are cut out. Otherwise
    the image fills the canvas alone, randomly scaled, stretched and placed.

    With probability ``mixup``, a mosaic is then blended half and half with one more image, randomly scaled
    and placed, unless there is nothing in it.

    Boxes are clipped to the part of their image that is seen. Those with less than 2 pixels of width or
    height left, or less than 0.2 of their area, are left out.

    Args:
        size: Side of the square that comes out, in pixels.
        mosaic: Probability of a mosaic, 0..1.
        mixup: Probability that a mosaic is blended with one more image, 0..1.
        scale: Smallest and largest factor on top of the letterbox's, for mosaics and for images alone. Drawn
            uniformly.
        mixup_scale: The same for the image that is blended in.
        shift: Largest shift of a mosaic along each axis, as a share of ``size``.
        stretch: Largest ratio by which an image alone becomes wider or narrower in proportion to its height;
            its logarithm is drawn uniformly. 1 leaves proportions as they are.
        fill: Grey value of the canvas where there is no image, 0..255.

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
            sample_index: The sample asked for, 0 … length - 1.
            length: Number of samples to draw partners from.
            load: Gives a sample by its index. It may be asked for the same one more than once; what it gives
                is left unchanged.
            rng: Where all random numbers come from.

        Returns:
            An image (3, size, size), interleaved in memory, with its objects.
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
        """Where four images touch, along one axis: in the middle half of a double canvas, before scaling."""
        middle = 0.5 + rng.uniform(-0.5, 0.5) * scale + rng.uniform(-self.shift, self.shift)
        return round(middle * self.size)

    def _beside(self, point: int, after: bool, length: float) -> _Span:
        """One axis of an image of a mosaic, which begins or ends where the four touch."""
        whole = max(1, round(length))
        if after:
            return _Span(point, whole, max(0, point), self.size)
        return _Span(point - whole, whole, 0, min(self.size, point))

    def _alone(
        self, canvas: _Canvas, source: DetectionSample, scale: Sequence[float], stretch: float, rng: Random
    ) -> None:
        """Put an image anywhere on a canvas that it need not share, scaled and stretched."""
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
        offset: Where the whole source would begin, in pixels of the canvas.
        length: How long the whole source would be.
        low: Where the part of the canvas that it may cover begins.
        high: Where that ends.
    """

    offset: int
    length: int
    low: int
    high: int

    def window(self, source: int) -> tuple[int, int, int, int]:
        """What is seen of a source of this length: begin and end in the source, and on the canvas.

        The latter two are equal where nothing is seen.
        """
        begin, end = max(self.low, self.offset), min(self.high, self.offset + self.length)
        if begin >= end:
            return 0, 0, 0, 0
        first = min(source - 1, round((begin - self.offset) * source / self.length))
        last = max(first + 1, round((end - self.offset) * source / self.length))
        return first, min(source, last), begin, end


class _Canvas:
    """A square of a grey value to put images on, and the objects that are seen on it."""

    def __init__(self, size: int, fill: int) -> None:
        self.pixels = torch.full((size, size, 3), fill, dtype=torch.uint8)
        self.boxes: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []

    def place(self, sample: DetectionSample, y: _Span, x: _Span) -> None:
        """Put an image on the canvas, and keep its objects of which enough is seen."""
        top, bottom, y0, y1 = y.window(sample.image.shape[-2])
        left, right, x0, x1 = x.window(sample.image.shape[-1])
        if y0 == y1 or x0 == x1:
            return
        seen = _resized(sample.image[:, top:bottom, left:right], y1 - y0, x1 - x0)
        self.pixels[y0:y1, x0:x1] = seen.permute(1, 2, 0)
        if len(sample.labels):
            # By the window's own scale, so that boxes stay on their objects whatever it was rounded to.
            factor = _pairs((x1 - x0) / (right - left), (y1 - y0) / (bottom - top))
            moved = (sample.boxes - _pairs(left, top)) * factor + _pairs(x0, y0)
            boxes = moved.clip(_pairs(x0, y0), _pairs(x1, y1))
            sides, whole = boxes[:, 2:] - boxes[:, :2], moved[:, 2:] - moved[:, :2]
            keep = (sides >= LEAST_SIDE).all(1) & (sides.prod(1) >= LEAST_VISIBLE * whole.prod(1))
            self.boxes.append(boxes[keep])
            self.labels.append(sample.labels[keep])

    def blend(self, other: _Canvas) -> None:
        """Take the mean with another canvas, rounded down, and its objects too."""
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
    """Resize an image (3, h, w) bilinearly, antialiased; fastest for one interleaved in memory."""
    if image.shape[-2:] == (height, width):
        return image
    # As a batch whose strides are those of channels_last, which image[None] is not.
    batch = image.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    return functional.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]
