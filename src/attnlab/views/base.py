"""What a task shows of its scores and writes of its predictions: its view.

A view is made of exhibits. A `Gallery` draws pictures of an evaluated set, a `Record` writes a file of it, a
`Writer` writes what was predicted. They know batches, scores and the data module, and neither a Trainer nor
a logger: when they are asked, and where it all goes, is the callbacks' business. To all of them ``stage`` is
``val`` or ``test``, ``result`` the task's scores (None where there are none), ``data`` the data module.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed

from attnlab.drawing.layout import grid
from attnlab.drawing.pixels import Pixels
from attnlab.errors import AttnlabError
from attnlab.views.predictions import Prediction

ItemT = TypeVar("ItemT")


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
        option: What the command line calls its options.
        everywhere: Batches of all processes are wanted, not those of the first alone.
        wanted: Whether anything is to be drawn at all.

    Raises:
        AttnlabError: ``every_n_epochs`` is below 1.
    """

    option: ClassVar[str] = "pictures"
    everywhere: ClassVar[bool] = False
    wanted: bool = True

    def __init__(self, every_n_epochs: int = 1) -> None:
        self.every_n_epochs = at_least(every_n_epochs, 1, f"{self.option}.every_n_epochs")

    def begin(self, images: int) -> None:
        """Forget what was kept; so many images are about to come."""

    def collect(self, outputs: Any, batch: dict[str, Any], data: Any) -> None:
        """Keep what the pictures need of a batch, and of what the task's ``evaluate`` gave for it."""

    def exchange(self) -> None:
        """Bring together what all processes have kept; each is asked, where batches of all are wanted."""

    def pictures(self, stage: str, result: Any, data: Any) -> Iterator[Picture]:
        """Draw; the first process is asked."""
        raise NotImplementedError


class PanelGallery(Gallery):
    """Draws the first images of the validation or test set, one panel each.

    Args:
        count: How many images are drawn (the first ones of the set, always the same); 0 draws none.
        every_n_epochs: Draw after every so many validation epochs, and after the last.
        max_side: Longest side of a drawn image in pixels. Larger ones are shrunk, small ones enlarged by a
            whole factor.

    Attributes:
        found: Under which name the task's outputs have what was found in each image, or None for it.
        least_side: The smallest ``max_side``.

    Raises:
        AttnlabError: A number is too small.
    """

    found: ClassVar[str]
    least_side: ClassVar[int] = 1

    def __init__(self, count: int = 6, every_n_epochs: int = 1, max_side: int = 320) -> None:
        super().__init__(every_n_epochs)
        self.count = at_least(count, 0, "pictures.count")
        self.max_side = at_least(max_side, self.least_side, "pictures.max_side")
        self.wanted = count > 0
        self._panels: dict[str, Pixels] = {}

    def panel(self, found: Any, batch: dict[str, Any], position: int, data: Any) -> Pixels:
        """One image of a batch, beside what was found in it."""
        raise NotImplementedError

    def begin(self, images: int) -> None:
        """Forget what was kept."""
        self._panels = {}

    def collect(self, outputs: Any, batch: dict[str, Any], data: Any) -> None:
        """Keep the panels of the first images."""
        for i, found in enumerate(outputs[self.found]):
            if found is not None and len(self._panels) < self.count:
                self._panels[batch["name"][i]] = self.panel(found, batch, i, data)

    def pictures(self, stage: str, result: Any, data: Any) -> Iterator[Picture]:
        """Each image's panel, and a sheet of all, which is no picture of its own for loggers."""
        for name, pixels in self._panels.items():
            yield Picture(f"{stage}_{file_stem(name)}", pixels, f"{stage}/{name}")
        if self._panels:
            yield Picture(stage, grid(list(self._panels.values())))


class Keeper:
    """What every process keeps until it is written, together with what the others have kept.

    Attributes:
        kept: By the image's place in the set, or in the input.
    """

    def __init__(self) -> None:
        self.kept: dict[int, Any] = {}

    def begin(self) -> None:
        """Forget what an interrupted run has left."""
        self.kept = {}

    def all_kept(self) -> list[Any]:
        """What all processes have kept, in order of the places; nothing is kept any longer."""
        kept = {index: item for part in gathered(self.kept) for index, item in part.items()}
        self.kept = {}
        return [kept[index] for index in sorted(kept)]


class Record(Keeper):
    """A file of a test, or of a validation that was asked for.

    Args:
        write: Write it.
    """

    def __init__(self, write: bool = True) -> None:
        super().__init__()
        self.write = write

    def collect(self, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep what the file needs of one batch, on every process."""

    def file(self, stage: str, result: Any, data: Any) -> TextFile | None:
        """The file, or None where there is nothing to write; every process is asked, and may gather."""
        raise NotImplementedError


class Writer(Keeper):
    """Files of predictions.

    Args:
        output_dir: Folder to write to; made when missing.
        pictures: Draw them, too.
    """

    def __init__(self, output_dir: str = "predictions", pictures: bool = True) -> None:
        super().__init__()
        self.output_dir = Path(output_dir)
        self.pictures = pictures

    def planned(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Endings of the files of each picture (``.png``), and names of those that are written once."""
        raise NotImplementedError

    def draws(self, index: int) -> bool:
        """Whether the picture of that place in the input is drawn; of others the size alone is known."""
        return self.pictures

    def add(self, prediction: Prediction, index: int, name: str, data: Any) -> None:
        """Write, or keep, what is said of the picture at that place in the input; its files have the name."""
        raise NotImplementedError

    def finish(self, data: Any, first: bool) -> str:
        """Write the rest on the first process, and say where all lies; every one is asked, and may gather."""
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
        """What the task's ``predict_step`` found in one picture, uint8 (3, H, W) and upright, of a file."""
        raise NotImplementedError

    def image(self, batch: dict[str, Any], position: int, data: Any) -> Tensor:
        """A batch's picture as it is to be drawn on, uint8 (3, H, W)."""
        raise NotImplementedError

    def outline(self, batch: dict[str, Any], position: int) -> Tensor:
        """In place of a picture that is not drawn: one of its size on ``meta``, for which nothing is done."""
        images = batch["original"] if "original" in batch else batch["image"]
        return torch.empty_like(images[position], dtype=torch.uint8, device="meta")


def at_least(value: int, least: int, option: str) -> int:
    """The value of an option; an AttnlabError if it is too small."""
    if value < least:
        raise AttnlabError(f"{option} is {value}; it must be at least {least}.")
    return value


def share(value: float, option: str) -> float:
    """The value of an option; an AttnlabError if it is not within 0..1."""
    if not 0 <= value <= 1:
        raise AttnlabError(f"{option} is {value}; it must lie in 0..1.")
    return value


def gathered(item: ItemT) -> list[ItemT]:
    """The item of every process, by rank. Every process must call this; it is one's own alone without DDP."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [item]
    items: list[ItemT] = [item] * distributed.get_world_size()
    distributed.all_gather_object(items, item)
    return items


def file_stem(name: str) -> str:
    """An image's name as one part of a path, without the suffix of an image."""
    stem = name.replace("/", "_").replace("\\", "_")
    return re.sub(r"\.(jpe?g|png|bmp|webp|tiff?)\Z", "", stem, flags=re.IGNORECASE)


def csv_text(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """The text of a table, a row at a time."""
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        yield line.getvalue()


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
