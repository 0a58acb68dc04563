"""The prediction for one image, as returned by `attnlab.load(...).predict(...)`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from attnlab.drawing.boxes import detected, draw_boxes, scaled
from attnlab.drawing.cards import CaptionLine, Card, sheet
from attnlab.drawing.figures import GREY, INK
from attnlab.drawing.masks import overlay_with_legend
from attnlab.drawing.pixels import Palette, Pixels, as_pixels, fitted_to, percent, thumbnail
from attnlab.errors import AttnlabError

# Longest side of a drawing with boxes, in pixels: smaller images are enlarged, larger ones shrunk.
SMALLEST, LARGEST = 480, 1600
CARD = 256
NOTHING = "no prediction"


# No eq: tensors have no single truth value. No repr: they are too long to print.
@dataclass(frozen=True, eq=False, repr=False)
class Prediction(ABC):
    """Base class of predictions.

    Attributes:
        image: The image, RGB, uint8 (3, H, W), upright.
        path: The image file; None for an image given in memory.
        class_names: Names of the classes 0, 1, ….
    """

    image: Tensor
    path: Path | None
    class_names: list[str]

    @abstractmethod
    def drawn(self) -> Pixels:
        """The image with its prediction, RGB, uint8 (h, w, 3)."""

    def says(self) -> str:
        """The prediction in one line; empty by default."""
        return ""

    def __repr__(self) -> str:
        """The image's path and prediction."""
        found = self.says()
        return f"<{type(self).__name__} of {self.path or 'an image'}{': ' if found else ''}{found}>"

    def save(self, path: str | Path) -> None:
        """Write the picture of `drawn` to a file, in the format of its suffix; an existing file is replaced.

        Raises:
            AttnlabError: It is the input image, has no image suffix, or cannot be written.
        """
        path = Path(path)
        if self.path is not None and path.resolve() == self.path.resolve():
            raise AttnlabError(f"'{path}' is the input image: save under another name.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(self.drawn()).save(path)
        except (OSError, ValueError) as error:
            raise AttnlabError(f"Cannot write '{path}': {error}.") from error


@dataclass(frozen=True, eq=False, repr=False)
class ClassificationPrediction(Prediction):
    """The class of an image.

    Attributes:
        probabilities: float32 (K,), sum 1; NaN if the network's output was not finite.
    """

    probabilities: Tensor

    @property
    def label(self) -> int:
        """The likeliest class; the first among equals; -1 if the network's output was not finite."""
        return int(self.probabilities.argmax()) if self.probabilities.isfinite().all() else -1

    @property
    def name(self) -> str:
        """The likeliest class's name; ``no prediction`` if the network's output was not finite."""
        return self.class_names[self.label] if self.label >= 0 else NOTHING

    def ranked(self, count: int) -> list[tuple[int, float]]:
        """Class and probability of the likeliest classes, in descending order; empty without a prediction."""
        if self.label < 0:
            return []
        # Stable, so that among equal probabilities the lower class comes first, as in the scores.
        values, classes = self.probabilities.sort(descending=True, stable=True)
        return list(zip(classes[:count].tolist(), values[:count].tolist(), strict=True))

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Name and probability of the likeliest classes, in descending order."""
        return [(self.class_names[index], value) for index, value in self.ranked(count)]

    def lines(self, count: int = 3) -> list[CaptionLine]:
        """A caption: the likeliest classes, the first one dark."""
        return [
            CaptionLine(name, percent(value), GREY if rank else INK)
            for rank, (name, value) in enumerate(self.top(count))
        ] or [CaptionLine(NOTHING, "NaN", INK)]

    def says(self) -> str:
        """The three likeliest classes."""
        return ", ".join(f"{name} {percent(share)}" for name, share in self.top(3)) or NOTHING

    def drawn(self) -> Pixels:
        """The image above its three likeliest classes."""
        return sheet([Card(thumbnail(self.image, CARD), self.lines())], "", columns=1)


@dataclass(frozen=True, eq=False, repr=False)
class SegmentationPrediction(Prediction):
    """The class of every pixel.

    Attributes:
        mask: uint8 (H, W), the image's own size; 255 where the network's output was not finite.
        palette: RGB colour, 0..255, of each class.
    """

    mask: Tensor
    palette: Palette

    def says(self) -> str:
        """The five largest classes, as shares of the image."""
        shares = self.mask.flatten().bincount() / self.mask.numel()
        found = [k for k in shares.argsort(descending=True).tolist() if shares[k] > 0]
        names = [*self.class_names, *[NOTHING] * (256 - len(self.class_names))]
        return ", ".join(f"{names[k]} {percent(float(shares[k]))}" for k in found[:5])

    def drawn(self) -> Pixels:
        """The classes over the image, with a legend."""
        return overlay_with_legend(as_pixels(self.image), self.mask.numpy(), self.class_names, self.palette)


@dataclass(frozen=True, eq=False, repr=False)
class DetectionPrediction(Prediction):
    """The objects in an image, by descending score.

    Attributes:
        boxes: float32 (N, 4), x0, y0, x1, y1 in pixels of the image.
        scores: float32 (N,), in 0..1.
        labels: int64 (N,), classes from 0.
        palette: RGB colour, 0..255, of each class.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    palette: Palette

    @property
    def found(self) -> dict[str, Tensor]:
        """Boxes, scores and labels by name."""
        return {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}

    @property
    def names(self) -> list[str]:
        """The class's name of each object."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def says(self) -> str:
        """The number of objects, and the five with the highest scores."""
        best = [
            f"{name} {score:.2f}" for name, score in zip(self.names[:5], self.scores.tolist(), strict=False)
        ]
        return ", ".join([f"{len(self.scores)} objects", *best])

    def drawn(self, min_score: float = 0.3) -> Pixels:
        """The image, at 480 to 1600 pixels, with the objects of at least a score."""
        pixels, factors = fitted_to(self.image.float() / 255, SMALLEST, LARGEST)
        boxes = scaled(detected(self.found, min_score), factors)
        return draw_boxes(pixels, boxes, self.class_names, self.palette)
