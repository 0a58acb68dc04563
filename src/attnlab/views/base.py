"""What a task shows of its scores and writes of its predictions: its view.

A view is made of exhibits. A `Gallery` draws pictures of an evaluated set, a `Record` writes a file of it, a
`Writer` writes what was predicted. They know batches, scores and the data module, and neither a Trainer nor
a logger: when they are asked, and where it all goes, is the callbacks' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from attnlab.drawing.pixels import Pixels
from attnlab.errors import AttnlabError
from attnlab.views.predictions import Prediction


class Picture(NamedTuple):
    """A drawn picture.

    Attributes:
        name: Its file's name in the run's ``pictures/``, without suffix.
        pixels: RGB, uint8 (H, W, 3).
        tag: What loggers call it; None for a file alone.
    """

    name: str
    pixels: Pixels
    tag: str | None = None


class TextFile(NamedTuple):
    """A file of an evaluation.

    Attributes:
        name: In the run's folder.
        pieces: Its text.
        said: What is printed of it, with ``{path}`` for where it lies; nothing for None.
    """

    name: str
    pieces: Iterable[str]
    said: str | None = None


class Gallery:
    """Pictures of what a network makes of the validation or test set.

    Args:
        every_n_epochs: Draw after every so many validation epochs, and after the last.

    Attributes:
        everywhere: Batches of all processes are wanted, not those of the first alone.
        wanted: Whether anything is to be drawn at all.

    Raises:
        AttnlabError: ``every_n_epochs`` is below 1.
    """

    everywhere: ClassVar[bool] = False
    wanted: bool = True

    def __init__(self, every_n_epochs: int = 1) -> None:
        self.every_n_epochs = at_least(every_n_epochs, 1, "pictures.every_n_epochs")

    def begin(self, images: int) -> None:
        """Forget what was kept; so many images are about to come."""

    def collect(self, outputs: Any, batch: dict[str, Any], data: Any) -> None:
        """Keep what the pictures need of one batch.

        Args:
            outputs: What the task's ``evaluate`` gave.
            batch: As it was evaluated.
            data: The data module.
        """

    def exchange(self) -> None:
        """Bring together what all processes have kept; each is asked, where batches of all are wanted."""

    def pictures(self, stage: str, result: Any, data: Any) -> Iterator[Picture]:
        """Draw; the first process is asked.

        Args:
            stage: ``val`` or ``test``.
            result: The scores; None where there are none.
            data: The data module.
        """
        raise NotImplementedError


class Record:
    """A file of a test, or of a validation that was asked for.

    Args:
        write: Write it.
    """

    def __init__(self, write: bool = True) -> None:
        self.write = write

    def begin(self) -> None:
        """Forget what an interrupted run has left."""

    def collect(self, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep what the file needs of one batch, on every process."""

    def file(self, stage: str, result: Any, data: Any) -> TextFile | None:
        """The file; every process is asked, and may gather. None where there is nothing to write.

        Args:
            stage: ``val`` or ``test``.
            result: The scores; None where there are none.
            data: The data module.
        """
        raise NotImplementedError


class Writer:
    """Files of predictions.

    Args:
        output_dir: Folder to write to; made when missing.
        pictures: Draw them, too.
    """

    def __init__(self, output_dir: str = "predictions", pictures: bool = True) -> None:
        self.output_dir = Path(output_dir)
        self.pictures = pictures

    def planned(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Endings of the files of each picture (``.png``), and names of those that are written once."""
        raise NotImplementedError

    def begin(self) -> None:
        """Forget what an interrupted run has left."""

    def add(self, prediction: Prediction, index: int, name: str, data: Any) -> None:
        """Write, or keep, one prediction.

        Args:
            prediction: Of one picture.
            index: The picture's place in the input.
            name: What its files are called, without ending.
            data: The data module.
        """
        raise NotImplementedError

    def finish(self, data: Any, first: bool) -> str:
        """Write the rest, and say where it all lies; every process is asked, and may gather.

        Args:
            data: The data module.
            first: This is the process that writes.
        """
        raise NotImplementedError


class View:
    """What a task shows and writes.

    Attributes:
        gallery: Draws evaluations.
        writer: Writes predictions.
        more: Further galleries and records, by what the command line calls their options.
    """

    gallery: ClassVar[type[Gallery]]
    writer: ClassVar[type[Writer]]
    more: ClassVar[Mapping[str, type[Gallery] | type[Record]]] = {}

    def prediction(self, found: Any, image: Tensor, path: Path | None, data: Any) -> Prediction:
        """What the network says of one picture, to be drawn and written.

        Args:
            found: The task's ``predict_step`` for it.
            image: The picture, uint8 (3, H, W), upright.
            path: Its file, if it has one.
            data: The data module.
        """
        raise NotImplementedError

    def image(self, batch: dict[str, Any], position: int, data: Any) -> Tensor:
        """A batch's picture as it is to be drawn on, uint8 (3, H, W)."""
        raise NotImplementedError


def at_least(value: int, least: int, option: str) -> int:
    """The value of an option.

    Raises:
        AttnlabError: It is too small.
    """
    if value < least:
        raise AttnlabError(f"{option} is {value}; it must be at least {least}.")
    return value


def share(value: float, option: str) -> float:
    """The value of an option.

    Raises:
        AttnlabError: It is not within 0..1.
    """
    if not 0 <= value <= 1:
        raise AttnlabError(f"{option} is {value}; it must lie in 0..1.")
    return value


def file_stem(name: str) -> str:
    """An image's name as one part of a path, without the suffix of an image."""
    stem = name.replace("/", "_").replace("\\", "_")
    suffix = next((s for s in SUFFIXES if stem.lower().endswith(s)), "")
    return stem[: len(stem) - len(suffix)]


SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def beside(path: Path, pieces: Iterable[str]) -> None:
    """Write a text file from its pieces; it appears when it is complete, by renaming.

    Args:
        path: The file; its folder is made.
        pieces: Its text. Parts of paths that are no valid UTF-8 become the bytes that they were.

    Raises:
        AttnlabError: It cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(pieces)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise AttnlabError(f"'{path}' cannot be written: {error}.") from error
