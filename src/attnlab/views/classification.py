"""Views of classification: samples, mistakes, confusion matrix, and tables of classes."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from attnlab.drawing.cards import CaptionLine, Card, path_line, sheet
from attnlab.drawing.confusion import confusion_picture
from attnlab.drawing.figures import RIGHT, WRONG
from attnlab.drawing.pixels import Pixels, denormalise, percent, thumbnail
from attnlab.metrics.classification import without_prediction
from attnlab.views import base
from attnlab.views.predictions import ClassificationPrediction, Prediction

SHOWN, CAPTIONED, SIDE = 48, 3, 128
TABLE, SHEET = "predictions.csv", "predictions.png"
COLUMNS = ("index", "synset", "class", "images", "accuracy", "mistaken_for", "times")


@dataclass(frozen=True)
class Seen:
    """An image and its prediction.

    Attributes:
        index: Position in the data set.
        name: File name.
        truth: True class.
        guess: Predicted class; -1 if the network's output was not finite.
        truth_share: Probability of the true class, in 0..1.
        guess_share: Probability of the predicted class, in 0..1.
        badness: Minus the logarithm of ``truth_share``, infinite for NaN; then minus the index, so that among
            equals the earlier image is worse.
        image: RGB, uint8 (h, w, 3).
    """

    index: int
    name: str
    truth: int
    guess: int
    truth_share: float
    guess_share: float
    badness: tuple[float, int]
    image: Pixels

    def __lt__(self, other: Seen) -> bool:
        return self.badness < other.badness

    def card(self, names: Sequence[str], with_shares: bool) -> Card:
        """The image with truth and prediction, framed green if they agree, else red."""
        colour = RIGHT if self.guess == self.truth else WRONG
        guess = CaptionLine("-> no prediction", "NaN", colour)
        if self.guess >= 0:
            guess = CaptionLine(f"-> {names[self.guess]}", percent(self.guess_share), colour)
        if not with_shares:
            return Card(self.image, (CaptionLine(names[self.truth]), guess), colour)
        truth = CaptionLine(names[self.truth], percent(self.truth_share), RIGHT)
        return Card(self.image, (truth, guess, path_line(self.name)), None)


@dataclass
class Kept:
    """A process's data of an epoch: the chosen images and the worst mistakes.

    Attributes:
        chosen: Positions in the data set of the images that are always kept.
        mistakes: Number of mistakes kept.
        samples: The chosen images.
        worst: The worst mistakes, worst last.
        images: Number of images seen.
        wrong: Number of misclassified images.
    """

    chosen: frozenset[int]
    mistakes: int
    samples: list[Seen] = field(default_factory=list)
    worst: list[Seen] = field(default_factory=list)
    images: int = 0
    wrong: int = 0

    def add(self, logits: Tensor, batch: dict[str, Any], data: Any, max_side: int) -> None:
        """Add one batch: logits (B, K), and ``image``, ``label``, ``counted``, ``index``, ``name``."""
        logits, label = logits.detach().float(), batch["label"]
        log_shares = logits.log_softmax(1)
        # As in the scores: an image whose highest logit is not finite has no prediction and is wrong.
        guesses = torch.where(without_prediction(logits), -1, logits.argmax(1))
        own = log_shares.gather(1, label[:, None])[:, 0]
        # One transfer from the device for all.
        figures = torch.stack([own, log_shares.amax(1), guesses.float(), label.float()]).tolist()
        indices, counted = batch["index"].tolist(), batch["counted"].tolist()
        for i, (log_own, log_best, guess, truth) in enumerate(zip(*figures, strict=True)):
            if not counted[i]:
                continue
            wrong, badness = guess != truth, (math.inf if math.isnan(log_own) else -log_own, -indices[i])
            self.images += 1
            self.wrong += wrong
            chosen, room = indices[i] in self.chosen, len(self.worst) < self.mistakes
            # If full, it replaces the least bad one, if any.
            bad = wrong and (room or any(least.badness < badness for least in self.worst[:1]))
            if not (chosen or bad):
                continue
            image = denormalise(batch["image"][i].detach().float(), data.mean, data.std)
            shares, picture = (math.exp(log_own), math.exp(log_best)), thumbnail(image, max_side)
            seen = Seen(indices[i], batch["name"][i], int(truth), int(guess), *shares, badness, picture)
            if chosen:
                self.samples.append(seen)
            if bad:
                insort(self.worst, seen)
                del self.worst[: -self.mistakes]


def spread(length: int, count: int) -> frozenset[int]:
    """Evenly spaced positions in a set, whose first images may all be of one class."""
    return frozenset(k * length // count for k in range(count))


class ClassificationGallery(base.Gallery):
    """Draws sample images, the worst mistakes and the confusion matrix of the validation or test set.

    Pictures go to the loggers (TensorBoard's Images tab), and the latest to ``pictures/`` in the run's
    folder: ``val.png``, ``val_mistakes.png`` and ``val_confusion.png``, or ``test...`` after a test.

    Args:
        count: Number of images drawn with truth and prediction, evenly spaced in the set and always the same;
            0 draws none.
        mistakes: Number of misclassified images drawn, those of the whole set with the lowest probability of
            the true class, worst first; 0 draws none.
        confusion: Draw the confusion matrix.
        every_n_epochs: Draw every this many validation epochs, and after the last.
        max_side: Longest side of a drawn image in pixels. Larger images are shrunk, small ones enlarged by an
            integer factor.

    Raises:
        AttnlabError: A number is too small.
    """

    everywhere = True

    def __init__(
        self,
        count: int = 24,
        mistakes: int = 24,
        confusion: bool = True,
        every_n_epochs: int = 1,
        max_side: int = 128,
    ) -> None:
        super().__init__(every_n_epochs)
        self.count = base.at_least(count, 0, "pictures.count")
        self.mistakes = base.at_least(mistakes, 0, "pictures.mistakes")
        self.confusion = confusion
        self.max_side = base.at_least(max_side, 1, "pictures.max_side")
        self.wanted = bool(count or mistakes or confusion)
        self._kept = Kept(frozenset(), mistakes)
        self._parts: list[Kept] = []

    def begin(self, images: int) -> None:
        """Choose the samples."""
        self._parts, self._kept = [], Kept(spread(images, self.count), self.mistakes)

    def collect(self, outputs: Any, batch: dict[str, Any], data: Any) -> None:
        """Keep the chosen images and the worst mistakes so far."""
        if self.count or self.mistakes:
            self._kept.add(outputs["logits"], batch, data, self.max_side)

    def exchange(self) -> None:
        """Gather the data of all processes."""
        self._parts = base.gathered(self._kept)

    def pictures(self, stage: str, result: Any, data: Any) -> Iterator[base.Picture]:
        """Samples, mistakes and the confusion matrix."""
        names, parts = data.class_names, self._parts or [self._kept]
        self._parts, self._kept = [], Kept(frozenset(), self.mistakes)
        samples = sorted((seen for part in parts for seen in part.samples), key=lambda seen: seen.index)
        worst = sorted((seen for part in parts for seen in part.worst), reverse=True)[: self.mistakes]
        images, wrong = sum(part.images for part in parts), sum(part.wrong for part in parts)
        if samples:
            right = sum(seen.guess == seen.truth for seen in samples)
            title = f"Sample images, {right} of {len(samples)} correct: truth -> predicted"
            drawn = sheet([seen.card(names, with_shares=False) for seen in samples], title)
            yield base.Picture(stage, drawn, f"{stage}/samples")
        if self.mistakes and images:
            title = f"Worst {len(worst)} of {wrong} mistakes in {images} images: truth -> predicted"
            title = title if worst else f"No mistakes in {images} images"
            drawn = sheet([seen.card(names, with_shares=True) for seen in worst], title)
            yield base.Picture(f"{stage}_mistakes", drawn, f"{stage}/mistakes")
        if self.confusion and result is not None:
            drawn = confusion_picture(result.matrix.numpy(), names)
            yield base.Picture(f"{stage}_confusion", drawn, f"{stage}/confusion")


class ClassTable(base.Record):
    """Writes ``classes_test.csv`` to the run's folder: each class's folder, name, images and accuracy.

    The last two columns give the class it is most often confused with, and how often.

    Args:
        write: Write the table after ``test`` (``classes_test.csv``) and ``validate`` (``classes_val.csv``).
    """

    def file(self, stage: str, result: Any, data: Any) -> base.TextFile | None:
        """A row for each class."""
        if result is None or not result.images:
            return None
        rows = class_rows(result.matrix, result.per_class, data.class_names, data.class_folders)
        return base.TextFile(f"classes_{stage}.csv", base.csv_text([COLUMNS, *rows]))


def class_rows(
    matrix: Tensor, accuracy: dict[str, float], names: list[str], folders: list[str]
) -> list[tuple[object, ...]]:
    """A row per class, with the columns `COLUMNS`; unknown values are empty.

    The confusion matrix, int64 (K, K), has true classes as rows; the accuracy, in 0..1, is of the classes
    that have images; there are K names and folders.
    """
    rows: list[tuple[object, ...]] = []
    for index, (name, folder, counts) in enumerate(zip(names, folders, matrix.tolist(), strict=True)):
        others = [0 if other == index else count for other, count in enumerate(counts)]
        most = max(others, default=0)
        confused = (names[others.index(most)], most) if most else ("", 0)
        rows.append((index, folder, name, sum(counts), accuracy.get(name, ""), *confused))
    return rows


class ClassificationWriter(base.Writer):
    """Writes the most likely classes of each image to ``predictions.csv``.

    The table has one row per image, in input order, with the columns ``image`` (its path) and, for each rank
    from 1, ``class_1`` (the name), ``synset_1`` (the name of the class's folder) and ``probability_1``.

    Args:
        output_dir: Folder to write to; created if missing.
        top: Number of classes per image, at least 1; all if there are fewer.
        pictures: Also write a sheet of the first 48 images with their likeliest classes
            (``predictions.png``).

    Raises:
        AttnlabError: ``top`` is below 1.
    """

    def __init__(self, output_dir: str = "predictions", top: int = 5, pictures: bool = True) -> None:
        super().__init__(output_dir, pictures)
        self.top = base.at_least(top, 1, "predictions.top")

    def planned(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The table, and the sheet."""
        return (), ((TABLE, SHEET) if self.pictures else (TABLE,))

    def draws(self, index: int) -> bool:
        """The first ones."""
        return self.pictures and index < SHOWN

    def add(self, prediction: Prediction, index: int, name: str, data: Any) -> None:
        """Keep the row, and the card of the first images."""
        assert isinstance(prediction, ClassificationPrediction)
        ranked, path = prediction.ranked(self.top), str(prediction.path)
        cells = [cell for c, p in ranked for cell in (data.class_names[c], data.class_folders[c], f"{p:.6g}")]
        if not ranked:
            cells = [""] * (3 * min(self.top, len(data.class_names)))
        card = None
        if self.draws(index):
            lines = (*prediction.lines(CAPTIONED)[: self.top], path_line(Path(path).name))
            card = Card(thumbnail(prediction.image, SIDE), lines)
        self.kept[index] = [path, *cells], card

    def finish(self, data: Any, first: bool) -> str:
        """Write table and sheet."""
        kept = self.all_kept()
        if not first:
            return ""
        ranks = range(1, min(self.top, len(data.class_names)) + 1)
        head = ["image", *(f"{what}_{k}" for k in ranks for what in ("class", "synset", "probability"))]
        base.beside(self.output_dir / TABLE, base.csv_text([head, *(row for row, _ in kept)]))
        where = str(self.output_dir / TABLE)
        cards = [card for _, card in kept if card is not None]
        if cards:
            drawn = sheet(cards, f"First {len(cards)} images", columns=8)
            Image.fromarray(drawn).save(self.output_dir / SHEET)
            where += f", the first {len(cards)} images in {self.output_dir / SHEET}"
        return f"{len(kept)} images predicted; their classes are in {where}"


class ClassificationView(base.View):
    """The view of classification."""

    gallery = ClassificationGallery
    writer = ClassificationWriter
    more: ClassVar = {"class_table": ClassTable}

    def prediction(self, found: Any, image: Tensor, path: Path | None, data: Any) -> ClassificationPrediction:
        """The probabilities (K,)."""
        return ClassificationPrediction(image, path, list(data.class_names), found.cpu())

    def image(self, batch: dict[str, Any], position: int, data: Any) -> Tensor:
        """The image as the network sees it."""
        return denormalise(batch["image"][position].detach().float(), data.mean, data.std)
