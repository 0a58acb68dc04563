"""Predictions as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor

from attnlab.callbacks.drawing import overlay, palette_image, with_legend
from attnlab.callbacks.outputs import plan_outputs


class SegmentationWriter(BasePredictionWriter):
    """Writes each predicted image as a palette mask and as an overlay with a legend.

    ``NAME.png`` holds class indices in VOC's palette and has the image's own size; ``NAME_overlay.png`` shows
    the classes over the image. Images of one name in different folders get a number each.

    Args:
        output_dir: Folder to write to; made when missing.
        overlays: Write overlays as well as masks.
    """

    def __init__(self, output_dir: str = "predictions", overlays: bool = True) -> None:
        super().__init__(write_interval="batch")
        self.output_dir = Path(output_dir)
        self.overlays = overlays
        self.written = 0
        self._names: dict[str, str] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the folder before any work is done."""
        if stage == "predict":
            self.output_dir.mkdir(parents=True, exist_ok=True)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the files, the same on every process.

        Raises:
            AttnlabError: A file would take the place of one that is not attnlab's.
        """
        loader = trainer.predict_dataloaders
        assert loader is not None
        suffixes = (".png", "_overlay.png") if self.overlays else (".png",)
        self._names = plan_outputs(trainer, self.output_dir, loader.dataset.paths, suffixes)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Sequence[Tensor | None],
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the images of one batch."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        for classes, original, path in zip(prediction, batch["original"], batch["path"], strict=True):
            if classes is None:
                continue
            name = self._names[path]
            mask = classes.cpu().numpy()
            palette_image(mask, data.palette).save(self.output_dir / f"{name}.png")
            if self.overlays:
                present = [int(v) for v in np.unique(mask) if v < len(data.class_names)]
                picture = overlay(original.permute(1, 2, 0).cpu().numpy(), mask, data.palette)
                Image.fromarray(with_legend(picture, present, data.class_names, data.palette)).save(
                    self.output_dir / f"{name}_overlay.png"
                )
            self.written += 1

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the files are."""
        print(f"{self.written} images predicted; masks and overlays lie in {self.output_dir}/")
