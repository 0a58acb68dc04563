"""A writer's files, in a folder that holds nothing of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from attnlab.tasks import BaseTask
from attnlab.views import Writer
from attnlab.views.outputs import plan_outputs


class Predictions(BasePredictionWriter):
    """Lets a writer write what is predicted.

    Args:
        writer: Writes.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__(write_interval="batch")
        self.writer = writer
        self._names: dict[str, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder, and name the files, the same on every process.

        Raises:
            AttnlabError: A file would take the place of one that is not attnlab's.
        """
        loader = trainer.predict_dataloaders
        assert loader is not None
        suffixes, files = self.writer.planned()
        self.writer.begin()
        self._names = plan_outputs(trainer, self.writer.output_dir, loader.dataset.paths, suffixes, files)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the images of one batch, those that count."""
        assert isinstance(pl_module, BaseTask)
        data, view = trainer.datamodule, pl_module.view  # type: ignore[attr-defined]
        marks = zip(prediction, batch["counted"].tolist(), batch["index"].tolist(), strict=True)
        for i, (found, counted, index) in enumerate(marks):
            if counted:
                path = str(batch["path"][i])
                one = view.prediction(found, view.image(batch, i, data), Path(path), data)
                self.writer.add(one, index, self._names[path], data)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the writer finish, and say where the files are."""
        said = self.writer.finish(trainer.datamodule, trainer.is_global_zero)  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            print(said)
