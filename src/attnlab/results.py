"""What a trained network says of one picture: `attnlab.load(...).predict(...)` gives one of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from attnlab.callbacks.boxes import bright, detected, draw_boxes, picture_of, scaled
from attnlab.callbacks.drawing import Palette, Pixels, overlay, with_legend
from attnlab.callbacks.sheets import Card, Line, sheet
from attnlab.callbacks.text import GREY, INK, percent
from attnlab.callbacks.thumbnails import resized
from attnlab.errors import AttnlabError

_SMALLEST, _LARGEST, _CARD = 480, 1600, 256


@dataclass(frozen=True)
class Prediction(ABC):
    """What is known of every picture.

    Attributes:
        image: The picture, RGB, uint8 (3, H, W), upright.
        path: Where it was read from; None where it was handed over.
        class_names: Names of the classes 0, 1, ….
    """

    image: Tensor
    path: Path | None
    class_names: list[str]

    @abstractmethod
    def drawn(self) -> Pixels:
        """The picture with what was found, RGB, uint8 (h, w, 3)."""

    def save(self, path: str | Path) -> None:
        """Write what `drawn` gives; the suffix says the format. A file that is there is replaced.

        Args:
            path: The file; its folder is made.

        Raises:
            AttnlabError: It is the picture itself, has no suffix of a picture, or cannot be written.
        """
        path = Path(path)
        if self.path is not None and path.resolve() == self.path.resolve():
            raise AttnlabError(f"'{path}' is the picture that was predicted on; save under another name.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(self.drawn()).save(path)
        except (OSError, ValueError) as error:
            raise AttnlabError(f"'{path}' cannot be written: {error}.") from error


@dataclass(frozen=True)
class ClassificationPrediction(Prediction):
    """The class of a picture.

    Attributes:
        probabilities: float32 (K,), their sum is 1.
    """

    probabilities: Tensor

    @property
    def label(self) -> int:
        """The likeliest class; of equally likely ones the first."""
        return int(self.probabilities.argmax())

    @property
    def name(self) -> str:
        """The likeliest class's name."""
        return self.class_names[self.label]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Name and probability of the likeliest classes, from the likeliest down."""
        values, classes = self.probabilities.sort(descending=True, stable=True)
        pairs = zip(classes.tolist(), values.tolist(), strict=True)
        return [(self.class_names[index], value) for index, value in list(pairs)[:count]]

    def drawn(self) -> Pixels:
        """The picture above its three likeliest classes."""
        height, width = self.image.shape[-2:]
        scale = _CARD / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        pixels = resized(self.image, size, "bilinear").permute(1, 2, 0).numpy()
        lines = [
            Line(name, percent(value), GREY if rank else INK)
            for rank, (name, value) in enumerate(self.top(3))
        ]
        return sheet([Card(pixels, tuple(lines))], "", columns=1)


@dataclass(frozen=True)
class SegmentationPrediction(Prediction):
    """The class of every pixel.

    Attributes:
        mask: uint8 (H, W), the picture's own size.
        palette: RGB colour, 0..255, of each class.
    """

    mask: Tensor
    palette: Palette

    def drawn(self) -> Pixels:
        """The classes over the picture, with a legend."""
        mask = self.mask.numpy()
        present = [int(value) for value in np.unique(mask) if value < len(self.class_names)]
        over = overlay(self.image.permute(1, 2, 0).numpy(), mask, self.palette)
        return with_legend(over, present, self.class_names, self.palette)


@dataclass(frozen=True)
class DetectionPrediction(Prediction):
    """The objects in a picture, from the highest score down.

    Attributes:
        boxes: float32 (N, 4), x0, y0, x1, y1 in pixels of the picture.
        scores: float32 (N,), in 0..1.
        labels: int64 (N,), classes from 0.
        palette: RGB colour, 0..255, of each class.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    palette: Palette

    @property
    def names(self) -> list[str]:
        """The class's name of each object."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def drawn(self, min_score: float = 0.3) -> Pixels:
        """The picture, at 480 to 1600 pixels, with the objects of at least a score."""
        pixels, factors = picture_of(self.image.float() / 255, _SMALLEST, _LARGEST)
        found = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        boxes = scaled(detected(found, min_score), factors)
        return draw_boxes(pixels, boxes, self.class_names, bright(self.palette))
