"""Pictures of a fixed set of validation images with their boxes, as training goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor

from attnlab.callbacks.boxes import Box, bright, detected, draw_boxes, picture_of, scaled, truths
from attnlab.callbacks.drawing import Palette, Pixels, legend, pad_to
from attnlab.callbacks.pictures import PicturesCallback
from attnlab.callbacks.text import GREY, INK, fitted, font, length, line_height
from attnlab.errors import AttnlabError

MARGIN, GAP, TITLE, CAPTION = 8, 8, 14, 13
# Very narrow pictures stand on a sheet of at least this width, so that their captions can be read.
NARROWEST = 180
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class DetectionPictures(PicturesCallback):
    """Draws the first images of the validation or test set, truths beside detections.

    They go to TensorBoard (tab Images), and the newest ones to ``pictures/`` in the run's folder: one PNG an
    image and ``val.png`` or ``test.png`` with all of them. Crowds and difficult objects are dashed.

    Args:
        count: How many images are drawn (the first ones of the set, always the same); 0 draws none.
        every_n_epochs: Draw after every so many validation epochs, and after the last.
        max_side: Longest side of a drawn image in pixels, at least 32, to which larger ones are shrunk and
            smaller ones enlarged.
        min_score: Detections of a lower score, in 0..1, are not drawn.

    Raises:
        AttnlabError: A number is out of range.
    """

    def __init__(
        self, count: int = 6, every_n_epochs: int = 1, max_side: int = 480, min_score: float = 0.3
    ) -> None:
        super().__init__(every_n_epochs)
        for name, value, least in (("count", count, 0), ("max_side", max_side, 32)):
            if value < least:
                raise AttnlabError(f"pictures.{name} is {value}; it must be at least {least}.")
        if not 0 <= min_score <= 1:
            raise AttnlabError(f"pictures.min_score is {min_score}; it must lie in 0..1.")
        self.count = count
        self.max_side = max_side
        self.min_score = min_score
        self._panels: dict[str, Pixels] = {}

    def wanted(self, trainer: Trainer) -> bool:
        """Whether this epoch is one to draw; the first process draws alone."""
        return bool(self.count) and trainer.is_global_zero and super().wanted(trainer)

    def collect(self, trainer: Trainer, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep the panels of the first images."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        for i, detections in enumerate(outputs["detections"]):
            if len(self._panels) >= self.count:
                return
            if detections is None:
                continue
            name = batch["name"][i]
            self._panels[name] = detection_panel(
                batch["image"][i],
                truths(batch["target"][i]) if "boxes" in batch["target"][i] else None,
                detections,
                name,
                data.class_names,
                bright(data.palette),
                self.max_side,
                self.min_score,
            )

    def draw(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Write what was kept."""
        panels, self._panels = self._panels, {}
        for name, pixels in panels.items():
            self.save(trainer, f"{stage}_{file_stem(name)}", pixels, tag=f"{stage}/{name}")
        if panels:
            self.save(trainer, stage, in_columns(list(panels.values())))


def file_stem(name: str) -> str:
    """An image's name as one part of a path, without the suffix of an image."""
    stem = name.replace("/", "_").replace("\\", "_")
    suffix = next((s for s in SUFFIXES if stem.lower().endswith(s)), "")
    return stem[: len(stem) - len(suffix)]


def detection_panel(
    image: Tensor,
    objects: Sequence[Box] | None,
    detections: Mapping[str, Tensor],
    name: str,
    names: Sequence[str],
    palette: Palette,
    max_side: int,
    min_score: float,
) -> Pixels:
    """Truths and detections of an image side by side, with its name, captions and a legend of the classes.

    Args:
        image: (3, h, w) in 0..1.
        objects: The truths in the image's pixels; None where they are not known, then the detections stand
            alone.
        detections: ``boxes`` (M, 4) xyxy in the image's pixels, ``scores`` (M,) and ``labels`` (M,).
        name: The image's name.
        names: Class names.
        palette: RGB colour of each class.
        max_side: Longest side of a drawn image in pixels.
        min_score: Detections of a lower score are not drawn.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    pixels, factors = picture_of(image, max_side, max_side)
    found = detected(detections, min_score)
    rest = len(detections["scores"]) - len(found)
    below = f", {rest} more below {min_score:g}" if rest else ""
    columns = [("detected", f"{len(found)}{below}", found)]
    if objects is not None:
        columns.insert(0, ("truth", counted(objects), list(objects)))

    height, width = pixels.shape[:2]
    cell = max(width, NARROWEST)
    across = len(columns) * (cell + GAP) - GAP
    head = line_height(TITLE) + 2
    top = head + line_height(CAPTION) + 3
    page = Image.new("RGB", (across, top + height), "white")
    draw = ImageDraw.Draw(page)
    draw.text((0, 0), fitted(name, across, TITLE, "middle"), fill=INK, font=font(TITLE))
    for position, (what, count, boxes) in enumerate(columns):
        x = position * (cell + GAP)
        draw.text((x, head), what, fill=INK, font=font(CAPTION))
        start = length(what, CAPTION) + 8
        draw.text((x + start, head), fitted(count, cell - start, CAPTION), fill=GREY, font=font(CAPTION))
        drawn = draw_boxes(pixels, scaled(boxes, factors), names, palette)
        page.paste(Image.fromarray(drawn), (x + (cell - width) // 2, top))
    shown = sorted({box.label for _, _, boxes in columns for box in boxes})
    parts = [np.asarray(page)]
    if shown:
        parts += [np.full((3, across, 3), 255, np.uint8), legend(shown, names, palette, across)]
    return np.pad(np.concatenate(parts), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)


def counted(objects: Sequence[Box]) -> str:
    """How many objects, and how many of them are crowds or difficult: ``5, 1 crowd``."""
    notes = Counter(box.note for box in objects if box.note)
    return ", ".join([str(len(objects)), *(f"{count} {note}" for note, count in sorted(notes.items()))])


def in_columns(panels: Sequence[Pixels], columns: int = 2) -> Pixels:
    """Panels on one white sheet, from left to right and in rows that are as high as they must be."""
    width = max(panel.shape[1] for panel in panels)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    across = width * min(columns, len(panels))
    sheet = []
    for row in rows:
        height = max(panel.shape[0] for panel in row)
        cells = np.concatenate([pad_to(panel, height, width) for panel in row], axis=1)
        sheet.append(pad_to(cells, height, across))
    return np.concatenate(sheet)
