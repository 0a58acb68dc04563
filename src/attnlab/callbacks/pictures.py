"""Pictures of a fixed set of validation images, as training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from attnlab.callbacks.drawing import Pixels, pad_to, panel


class SegmentationPictures(Callback):
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
        self.count = count
        self.every_n_epochs = every_n_epochs
        self.max_side = max_side
        self.folder: Path | None = None
        self._panels: dict[str, Pixels] = {}

    def _wanted(self, trainer: Trainer) -> bool:
        if not self.count or not trainer.is_global_zero or trainer.sanity_checking:
            return False
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        last = bool(trainer.max_epochs and trainer.current_epoch + 1 >= trainer.max_epochs)
        return last or trainer.current_epoch % self.every_n_epochs == 0

    def _collect(self, trainer: Trainer, outputs: Any, batch: dict[str, Any]) -> None:
        if not self._wanted(trainer) or len(self._panels) >= self.count:
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
                _resized(image, size, "bilinear").permute(1, 2, 0),
                _resized(truth[None].to(torch.uint8), size, "nearest")[0],
                _resized(prediction[None], size, "nearest")[0],
            )
            twice = 2 if 2 * max(size) <= self.max_side else 1
            pixels, shown, guessed = (x.cpu().numpy().repeat(twice, 0).repeat(twice, 1) for x in drawn)
            self._panels[batch["name"][i]] = panel(pixels, shown, guessed, data.class_names, data.palette)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the panels of the first images."""
        self._collect(trainer, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the panels of the first images."""
        self._collect(trainer, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was kept."""
        self._write(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was kept."""
        self._write(trainer, "test")

    def _write(self, trainer: Trainer, stage: str) -> None:
        panels, self._panels = self._panels, {}
        if not panels or trainer.logger is None or trainer.logger.log_dir is None:
            return
        self.folder = Path(trainer.logger.log_dir) / "pictures"
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, pixels in panels.items():
            Image.fromarray(pixels).save(self.folder / f"{stage}_{name}.png")
            if isinstance(trainer.logger, TensorBoardLogger):
                trainer.logger.experiment.add_image(
                    f"{stage}/{name}", pixels, trainer.global_step, dataformats="HWC"
                )
        Image.fromarray(stacked(list(panels.values()))).save(self.folder / f"{stage}.png")


def denormalise(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (3, H, W) of a normalised image (3, H, W)."""
    scale = image.new_tensor(std)[:, None, None]
    shift = image.new_tensor(mean)[:, None, None]
    return ((image * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)


def stacked(panels: list[Pixels], columns: int = 2) -> Pixels:
    """Panels on one white sheet, in columns."""
    height = max(p.shape[0] for p in panels) + 8
    width = max(p.shape[1] for p in panels) + 8
    cells = [pad_to(p, height, width) for p in panels]
    cells += [pad_to(cells[0][:0, :0], height, width)] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return np.concatenate(rows)


def _resized(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    options = {"align_corners": False, "antialias": True} if mode == "bilinear" else {}
    resized = F.interpolate(image[None].float(), size=size, mode=mode, **options)[0]
    return resized.round().clamp(0, 255).to(torch.uint8)
