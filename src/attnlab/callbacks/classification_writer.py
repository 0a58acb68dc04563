"""Predicted classes as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor

from attnlab.callbacks.gather import gathered
from attnlab.callbacks.outputs import plan_outputs
from attnlab.callbacks.sheets import Card, Line, path_line, sheet
from attnlab.callbacks.text import GREY, INK, percent
from attnlab.callbacks.thumbnails import thumbnail
from attnlab.errors import AttnlabError

SHOWN, CAPTIONED, SIDE = 48, 3, 128
TABLE, SHEET = "predictions.csv", "predictions.png"


class ClassificationWriter(BasePredictionWriter):
    """Writes the most likely classes of each predicted image to ``predictions.csv``.

    The table has a row an image, in the order of the input, with the columns ``image`` (its path) and, for
    each rank from 1, ``class_1`` (the name), ``synset_1`` (the name of the class's folder) and
    ``probability_1``.

    Args:
        output_dir: Folder to write to; made when missing.
        top: How many classes are written for each image, at least 1; all where there are fewer.
        pictures: Write a sheet of the first 48 images with their likeliest classes (``predictions.png``).

    Raises:
        AttnlabError: ``top`` is below 1.
    """

    def __init__(self, output_dir: str = "predictions", top: int = 5, pictures: bool = True) -> None:
        super().__init__(write_interval="batch")
        if top < 1:
            raise AttnlabError(f"predictions.top is {top}; at least the likeliest class must be written: 1.")
        self.output_dir = Path(output_dir)
        self.top = top
        self.pictures = pictures
        self._part: IO[str] | None = None
        self._cards: dict[int, Card] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's part of the table.

        Raises:
            AttnlabError: A file would take the place of one that is not attnlab's.
        """
        loader = trainer.predict_dataloaders
        assert loader is not None
        self._cards = {}
        files = (TABLE, SHEET) if self.pictures else (TABLE,)
        plan_outputs(trainer, self.output_dir, loader.dataset.paths, files=files)
        self._part = open_text(part_path(self.output_dir, trainer.global_rank), "w")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the rows of one batch, given its probabilities (B, K)."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert self._part is not None
        rows = csv.writer(self._part)
        # Stable, so that of equal probabilities the lower class comes first, as in the scores.
        shares_down, classes_down = prediction.sort(dim=1, descending=True, stable=True)
        columns = (
            batch["index"].tolist(),
            batch["counted"].tolist(),
            batch["path"],
            classes_down[:, : self.top].tolist(),
            shares_down[:, : self.top].tolist(),
        )
        for i, (index, counted, path, classes, shares) in enumerate(zip(*columns, strict=True)):
            if not counted:
                continue
            cells = [
                cell
                for c, share in zip(classes, shares, strict=True)
                for cell in (data.class_names[c], data.synsets[c], f"{share:.6g}")
            ]
            rows.writerow([index, path, *cells])
            if self.pictures and index < SHOWN:
                picture = thumbnail(batch["image"][i], data.mean, data.std, SIDE)
                lines = [
                    Line(data.class_names[c], percent(share), GREY if rank else INK)
                    for rank, (c, share) in enumerate(zip(classes, shares, strict=True))
                ]
                self._cards[index] = Card(picture, (*lines[:CAPTIONED], path_line(Path(path).name)))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the parts together, draw the sheet, and say where they are."""
        self._close()
        trainer.strategy.barrier("predictions")
        cards = {index: card for part in gathered(self._cards) for index, card in part.items()}
        if not trainer.is_global_zero:
            return
        classes = len(trainer.datamodule.class_names)  # type: ignore[attr-defined]
        written = merge_parts(self.output_dir, trainer.world_size, min(self.top, classes))
        where = str(self.output_dir / TABLE)
        if cards:
            drawn = sheet([cards[index] for index in sorted(cards)], f"First {len(cards)} images", columns=8)
            Image.fromarray(drawn).save(self.output_dir / SHEET)
            where += f", the first {len(cards)} pictures in {self.output_dir / SHEET}"
        print(f"{written} images predicted; their classes are in {where}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no part behind."""
        if self._part is None:
            return
        self._close()
        part_path(self.output_dir, trainer.global_rank).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part = None


def part_path(folder: Path, rank: int) -> Path:
    """Where a process keeps its rows until all are done."""
    return folder / f".{TABLE}.part{rank}"


def open_text(path: Path, mode: str) -> IO[str]:
    """A file of any paths, also of those that are no valid UTF-8."""
    return path.open(mode, newline="", encoding="utf-8", errors="surrogateescape")


def merge_parts(folder: Path, parts: int, top: int) -> int:
    """Write the table from its parts, sorted by index, and remove these.

    Args:
        folder: Where the parts lie.
        parts: Their number.
        top: Classes an image.

    Returns:
        The number of images.
    """
    rows: list[list[str]] = []
    for rank in range(parts):
        with open_text(part_path(folder, rank), "r") as part:
            rows += csv.reader(part)
    rows.sort(key=lambda row: int(row[0]))
    ranks = range(1, top + 1)
    head = ["image", *(f"{what}_{k}" for k in ranks for what in ("class", "synset", "probability"))]
    # Beside its place and then renamed, so that a full disk leaves no half table.
    beside = folder / f".{TABLE}.new"
    with open_text(beside, "w") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(row[1:] for row in rows)
    beside.replace(folder / TABLE)
    for part_file in folder.glob(f".{TABLE}.part*"):
        part_file.unlink()
    return len(rows)
