"""Views: how a task shows its results and writes its predictions.

A view is made of exhibits. A `Gallery` draws pictures of an evaluated set, a `Record` writes a file of it, a
`Writer` writes what was predicted. They know batches, scores and the data module, but neither Trainer nor
logger: the callbacks decide when they run and where output goes. ``stage`` is always ``val`` or ``test``,
``result`` the task's scores or None, ``data`` the data module.
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
        name: File name in the run's ``pictures/``, without suffix.
        pixels: RGB, uint8 (H, W, 3).
        tag: Its tag in loggers; None to write only a file.
    """

    name: str
    pixels: Pixels
    tag: str | None = None


class TextFile(NamedTuple):
    """A file of an evaluation.

    Attributes:
        name: File name in the run's folder.
        pieces: Its text.
        said: The line to print, with ``{path}`` for its path; None prints nothing.
    """

    name: str
    pieces: Iterable[str]
    said: str | None = None


class Gallery:
    """Pictures of results on the validation or test set.

    Args:
        every_n_epochs: Draw every this many validation epochs, and after the last.

    Attributes:
        option: Name of its options on the command line.
        everywhere: Whether it needs the batches of all processes, not only the first.
        wanted: Whether to draw anything at all.

    Raises:
        AttnlabError: ``every_n_epochs`` is below 1.
    """

    option: ClassVar[str] = "pictures"
    everywhere: ClassVar[bool] = False
    wanted: bool = True

    def __init__(self, every_n_epochs: int = 1) -> None:
        self.every_n_epochs = at_least(every_n_epochs, 1, f"{self.option}.every_n_epochs")

    def begin(self, images: int) -> None:
        """Clear the state; ``images`` images are about to come."""

    def collect(self, outputs: Any, batch: dict[str, Any], data: Any) -> None:
        """Keep what the pictures need from a batch and its predictions."""

    def exchange(self) -> None:
        """Gather the data of all processes; called on each if ``everywhere``."""

    def pictures(self, stage: str, result: Any, data: Any) -> Iterator[Picture]:
        """Draw; called on the first process."""
        raise NotImplementedError


class PanelGallery(Gallery):
    """Draws the first images of the validation or test set, one panel each.

    Args:
        count: Number of images drawn (always the first of the set); 0 draws none.
        every_n_epochs: Draw every this many validation epochs, and after the last.
        max_side: Longest side of a drawn image in pixels. Larger images are shrunk, small ones enlarged by an
            integer factor.

    Attributes:
        found: Key of the predictions in the task's outputs; a prediction may be None.
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
        """One image of a batch, next to its prediction."""
        raise NotImplementedError

    def begin(self, images: int) -> None:
        """Clear the state."""
        self._panels = {}

    def collect(self, outputs: Any, batch: dict[str, Any], data: Any) -> None:
        """Keep the panels of the first images."""
        for i, found in enumerate(outputs[self.found]):
            if found is not None and len(self._panels) < self.count:
                self._panels[batch["name"][i]] = self.panel(found, batch, i, data)

    def pictures(self, stage: str, result: Any, data: Any) -> Iterator[Picture]:
        """Each image's panel, and a sheet of all, which does not go to loggers."""
        for name, pixels in self._panels.items():
            yield Picture(f"{stage}_{file_stem(name)}", pixels, f"{stage}/{name}")
        if self._panels:
            yield Picture(stage, grid(list(self._panels.values())))


class Keeper:
    """Keeps data on every process until all of it is written.

    Attributes:
        kept: The data by the image's position in the set or the input.
    """

    def __init__(self) -> None:
        self.kept: dict[int, Any] = {}

    def begin(self) -> None:
        """Clear what an interrupted run left."""
        self.kept = {}

    def all_kept(self) -> list[Any]:
        """The data of all processes, by position; clears the state."""
        kept = {index: item for part in gathered(self.kept) for index, item in part.items()}
        self.kept = {}
        return [kept[index] for index in sorted(kept)]


class Record(Keeper):
    """A file written after ``test`` or ``validate``.

    Args:
        write: Write the file.
    """

    def __init__(self, write: bool = True) -> None:
        super().__init__()
        self.write = write

    def collect(self, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep what the file needs from one batch, on every process."""

    def file(self, stage: str, result: Any, data: Any) -> TextFile | None:
        """The file, or None if there is nothing to write; called on every process."""
        raise NotImplementedError


class Writer(Keeper):
    """Files of predictions.

    Args:
        output_dir: Folder to write to; created if missing.
        pictures: Also draw them.
    """

    def __init__(self, output_dir: str = "predictions", pictures: bool = True) -> None:
        super().__init__()
        self.output_dir = Path(output_dir)
        self.pictures = pictures

    def planned(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Suffixes of the files of each image (``.png``), and names of the files written once."""
        raise NotImplementedError

    def draws(self, index: int) -> bool:
        """Whether the image at a position of the input is drawn; for others only the size is known."""
        return self.pictures

    def add(self, prediction: Prediction, index: int, name: str, data: Any) -> None:
        """Write or keep the prediction for the image at an input position; ``name`` names its files."""
        raise NotImplementedError

    def finish(self, data: Any, first: bool) -> str:
        """Write the rest on the first process, and return a line that says where; called on every process."""
        raise NotImplementedError


class View:
    """What a task shows and writes.

    Attributes:
        gallery: Draws evaluations.
        writer: Writes predictions.
        more: Further galleries and records, by the name of their options.
    """

    gallery: ClassVar[type[Gallery]]
    writer: ClassVar[type[Writer]]
    more: ClassVar[Mapping[str, type[Gallery] | type[Record]]] = {}

    def prediction(self, found: Any, image: Tensor, path: Path | None, data: Any) -> Prediction:
        """The prediction of ``predict_step`` for one image of a file, uint8 (3, H, W), upright."""
        raise NotImplementedError

    def image(self, batch: dict[str, Any], position: int, data: Any) -> Tensor:
        """An image of a batch to draw on, uint8 (3, H, W)."""
        raise NotImplementedError

    def outline(self, batch: dict[str, Any], position: int) -> Tensor:
        """Placeholder of an image that is not drawn: one of its size on ``meta``."""
        images = batch["original"] if "original" in batch else batch["image"]
        return torch.empty_like(images[position], dtype=torch.uint8, device="meta")


def at_least(value: int, least: int, option: str) -> int:
    """The value of an option; an AttnlabError if it is too small."""
    if value < least:
        raise AttnlabError(f"{option} is {value}; it must be at least {least}.")
    return value


def share(value: float, option: str) -> float:
    """The value of an option; an AttnlabError if it is not in 0..1."""
    if not 0 <= value <= 1:
        raise AttnlabError(f"{option} is {value}; it must be in 0..1.")
    return value


def gathered(item: ItemT) -> list[ItemT]:
    """The items of all processes, by rank. Must be called on every process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [item]
    items: list[ItemT] = [item] * distributed.get_world_size()
    distributed.all_gather_object(items, item)
    return items


def file_stem(name: str) -> str:
    """An image's name as one path component, without image suffix."""
    stem = name.replace("/", "_").replace("\\", "_")
    return re.sub(r"\.(jpe?g|png|bmp|webp|tiff?)\Z", "", stem, flags=re.IGNORECASE)


def csv_text(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """The text of a table, row by row."""
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        yield line.getvalue()


def beside(path: Path, pieces: Iterable[str]) -> None:
    """Write a text file from pieces, atomically by renaming.

    Args:
        path: The file; its folder is created.
        pieces: Its text. Parts of paths that are not valid UTF-8 become their original bytes.

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
        raise AttnlabError(f"Cannot write '{path}': {error}.") from error
