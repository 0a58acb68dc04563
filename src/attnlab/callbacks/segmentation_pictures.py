"""Pictures of a fixed set of validation images with their class maps, as training goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from attnlab.callbacks.drawing import Pixels, pad_to, panel
from attnlab.callbacks.pictures import PicturesCallback
from attnlab.callbacks.thumbnails import denormalise, resized


class SegmentationPictures(PicturesCallback):
    """Draws image, truth and prediction of the first images of the validation or test set.

    The panels go to TensorBoard (tab Images), and the newest ones to ``pictures/`` in the run's folder: one
    PNG an image and ``val.png`` or ``test.png`` with all of them.

    Args:
        count: How many images are drawn (the first ones of the set, always the same); 0 draws none.
        every_n_epochs: Draw after every so many validation epochs, and after the last.
        max_side: Longest side of a drawn image in pixels. Larger ones are shrunk, those of up to half of it
            drawn at twice their size.
    """

    def __init__(self, count: int = 6, every_n_epochs: int = 1, max_side: int = 320) -> None:
        super().__init__(every_n_epochs)
        self.count = count
        self.max_side = max_side
        self._panels: dict[str, Pixels] = {}

    def wanted(self, trainer: Trainer) -> bool:
        """Whether this epoch is one to draw; the first process draws alone."""
        return bool(self.count) and trainer.is_global_zero and super().wanted(trainer)

    def collect(self, trainer: Trainer, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep the panels of the first images."""
        if len(self._panels) >= self.count:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        for i, prediction in enumerate(outputs["predictions"]):
            if prediction is None or len(self._panels) >= self.count:
                continue
            height, width = batch["mask_size"][i].tolist()
            truth = batch["mask"][i, :height, :width]
            h, w = batch["size"][i].tolist()
            image = denormalise(batch["image"][i, :, :h, :w], data.mean, data.std)
            scale = min(1.0, self.max_side / max(height, width))
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            drawn = (
                resized(image, size, "bilinear").permute(1, 2, 0),
                resized(truth[None].to(torch.uint8), size, "nearest")[0],
                resized(prediction[None], size, "nearest")[0],
            )
            twice = 2 if 2 * max(size) <= self.max_side else 1
            pixels, shown, guessed = (x.cpu().numpy().repeat(twice, 0).repeat(twice, 1) for x in drawn)
            self._panels[batch["name"][i]] = panel(pixels, shown, guessed, data.class_names, data.palette)

    def draw(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Write what was kept."""
        panels, self._panels = self._panels, {}
        for name, pixels in panels.items():
            self.save(trainer, f"{stage}_{name}", pixels, tag=f"{stage}/{name}")
        if panels:
            self.save(trainer, stage, stacked(list(panels.values())))


def stacked(panels: list[Pixels], columns: int = 2) -> Pixels:
    """Panels on one white sheet, in columns."""
    height = max(p.shape[0] for p in panels) + 8
    width = max(p.shape[1] for p in panels) + 8
    cells = [pad_to(p, height, width) for p in panels]
    cells += [pad_to(cells[0][:0, :0], height, width)] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return np.concatenate(rows)
