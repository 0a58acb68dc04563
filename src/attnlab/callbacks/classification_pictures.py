"""Pictures of what a classifier gets right and wrong."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from attnlab.callbacks.confusion import confusion_picture
from attnlab.callbacks.drawing import Pixels
from attnlab.callbacks.gather import gathered
from attnlab.callbacks.pictures import PicturesCallback
from attnlab.callbacks.sheets import RIGHT, WRONG, Card, Line, path_line, sheet
from attnlab.callbacks.text import Colour, percent
from attnlab.callbacks.thumbnails import thumbnail
from attnlab.errors import AttnlabError


@dataclass(frozen=True)
class Seen:
    """An image and what was made of it.

    Attributes:
        index: Position in the data set.
        name: File name.
        truth: Class.
        guess: Class of the highest probability; -1 where the network gave no numbers (NaN).
        truth_share: Probability of the truth, in 0..1.
        guess_share: Probability of the guess, in 0..1.
        loss: Minus the logarithm of ``truth_share``; infinite where that is NaN.
        image: RGB, uint8 (h, w, 3).
    """

    index: int
    name: str
    truth: int
    guess: int
    truth_share: float
    guess_share: float
    loss: float
    image: Pixels

    @property
    def rank(self) -> tuple[float, int]:
        """Grows with the loss; of equal losses, the earlier image is the worse."""
        return self.loss, -self.index

    def __lt__(self, other: Seen) -> bool:
        return self.rank < other.rank


@dataclass
class Kept:
    """What one process keeps of an epoch: the chosen images and the worst mistakes, and no more.

    Attributes:
        chosen: Positions in the data set of the images that are kept whatever becomes of them.
        mistakes: How many mistakes are kept.
        samples: The chosen images.
        worst: The worst mistakes, as a heap with the least bad on top.
        images: How many images were seen.
        wrong: How many of them were classified wrongly.
    """

    chosen: frozenset[int]
    mistakes: int
    samples: list[Seen] = field(default_factory=list)
    worst: list[Seen] = field(default_factory=list)
    images: int = 0
    wrong: int = 0

    def add(
        self,
        logits: torch.Tensor,
        batch: dict[str, Any],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        max_side: int,
    ) -> None:
        """Look at one batch: logits (B, K), and ``image``, ``label``, ``counted``, ``index``, ``name``."""
        logits, label = logits.detach().float(), batch["label"]
        log_shares = logits.log_softmax(1)
        # As the scores have it: an image with a NaN among its logits has no prediction, and is wrong.
        guesses = torch.where(logits.isnan().any(1), -1, logits.argmax(1))
        best = log_shares.amax(1)
        own = log_shares.gather(1, label[:, None])[:, 0]
        # One transfer from the device for all that is looked at.
        figures = torch.stack([own, best, guesses.float(), label.float()]).tolist()
        indices, counted = batch["index"].tolist(), batch["counted"].tolist()
        for i, (log_own, log_best, guess, truth) in enumerate(zip(*figures, strict=True)):
            if not counted[i]:
                continue
            wrong = guess != truth
            self.images += 1
            self.wrong += wrong
            loss = math.inf if math.isnan(log_own) else -log_own
            rank = (loss, -indices[i])
            chosen = indices[i] in self.chosen
            bad = (
                wrong and self.mistakes > 0 and (len(self.worst) < self.mistakes or rank > self.worst[0].rank)
            )
            if not (chosen or bad):
                continue
            seen = Seen(
                index=indices[i],
                name=batch["name"][i],
                truth=int(truth),
                guess=int(guess),
                truth_share=math.exp(log_own),
                guess_share=math.exp(log_best),
                loss=loss,
                image=thumbnail(batch["image"][i], mean, std, max_side),
            )
            if chosen:
                self.samples.append(seen)
            if bad:
                heapq.heappush(self.worst, seen)
                if len(self.worst) > self.mistakes:
                    heapq.heappop(self.worst)


def spread(length: int, count: int) -> frozenset[int]:
    """Positions spread evenly over a set: as class folders follow each other, the first are of one class.

    Args:
        length: Number of images in the set.
        count: How many are wanted; all where there are fewer.
    """
    return frozenset(k * length // count for k in range(count))


def merged(parts: list[Kept]) -> tuple[list[Seen], list[Seen], int, int]:
    """The chosen images in order, the worst mistakes worst first, and the numbers of images and mistakes."""
    samples = sorted((seen for part in parts for seen in part.samples), key=lambda seen: seen.index)
    worst = sorted((seen for part in parts for seen in part.worst), reverse=True)
    images, wrong = sum(part.images for part in parts), sum(part.wrong for part in parts)
    return samples, worst[: parts[0].mistakes], images, wrong


def guess_line(one: Seen, names: list[str], colour: Colour) -> Line:
    """What was predicted, and how surely."""
    if one.guess < 0:
        return Line("-> no prediction", "NaN", colour)
    return Line(f"-> {names[one.guess]}", percent(one.guess_share), colour)


def samples_sheet(seen: list[Seen], names: list[str]) -> Pixels:
    """Images with truth, prediction and its probability: a green frame where these agree, else a red one."""
    cards = []
    for one in seen:
        colour = RIGHT if one.guess == one.truth else WRONG
        lines = (Line(names[one.truth]), guess_line(one, names, colour))
        cards.append(Card(one.image, lines, colour))
    right = sum(one.guess == one.truth for one in seen)
    return sheet(cards, f"Samples of the set, {right} of {len(seen)} right: truth -> predicted")


def mistakes_sheet(seen: list[Seen], names: list[str], images: int, wrong: int) -> Pixels:
    """Mistakes in the order given, with the probabilities of truth and prediction, and the file's name."""
    cards = [
        Card(
            one.image,
            (
                Line(names[one.truth], percent(one.truth_share), RIGHT),
                guess_line(one, names, WRONG),
                path_line(one.name),
            ),
        )
        for one in seen
    ]
    if not seen:
        return sheet([], f"No mistakes in {images} images")
    return sheet(cards, f"Worst {len(seen)} of {wrong} mistakes in {images} images: truth -> predicted")


class ClassificationPictures(PicturesCallback):
    """Draws sample images, the worst mistakes and the confusion matrix of the validation or test set.

    They go to TensorBoard (tab Images), and the newest to ``pictures/`` in the run's folder: ``val.png``,
    ``val_mistakes.png`` and ``val_confusion.png``, or ``test...`` after a test.

    Args:
        count: How many images are drawn with truth and prediction, spread evenly over the set and always the
            same; 0 draws none.
        mistakes: How many wrongly classified images are drawn, those of the whole set to whose true class the
            network gave the least probability, worst first; 0 draws none.
        confusion: Draw the confusion matrix.
        every_n_epochs: Draw after every so many validation epochs, and after the last.
        max_side: Longest side of a drawn image in pixels. Larger ones are shrunk, small ones enlarged by a
            whole factor.

    Raises:
        AttnlabError: A number is too small.
    """

    def __init__(
        self,
        count: int = 24,
        mistakes: int = 24,
        confusion: bool = True,
        every_n_epochs: int = 1,
        max_side: int = 128,
    ) -> None:
        super().__init__(every_n_epochs)
        for name, value, least in (("count", count, 0), ("mistakes", mistakes, 0), ("max_side", max_side, 1)):
            if value < least:
                raise AttnlabError(f"pictures.{name} is {value}; it must be at least {least}.")
        self.count = count
        self.mistakes = mistakes
        self.confusion = confusion
        self.max_side = max_side
        self._kept: Kept | None = None

    def collect(self, trainer: Trainer, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep the chosen images and the worst mistakes so far."""
        if self.count or self.mistakes:
            data = trainer.datamodule  # type: ignore[attr-defined]
            if self._kept is None:
                loader: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
                self._kept = Kept(spread(len(loader.dataset), self.count), self.mistakes)
            self._kept.add(outputs["logits"], batch, data.mean, data.std, self.max_side)

    def draw(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Gather from all processes what was kept; the first one draws."""
        kept, self._kept = self._kept or Kept(frozenset(), self.mistakes), None
        parts = gathered(kept) if self.count or self.mistakes else []
        if not trainer.is_global_zero:
            return
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        if parts:
            samples, worst, images, wrong = merged(parts)
            if samples:
                self.save(trainer, stage, samples_sheet(samples, names), tag=f"{stage}/samples")
            if self.mistakes and images:
                drawn = mistakes_sheet(worst, names, images, wrong)
                self.save(trainer, f"{stage}_mistakes", drawn, tag=f"{stage}/mistakes")
        result = getattr(task, "results", {}).get(stage)
        if self.confusion and result is not None:
            drawn = confusion_picture(result.matrix, names)
            self.save(trainer, f"{stage}_confusion", drawn, tag=f"{stage}/confusion")
