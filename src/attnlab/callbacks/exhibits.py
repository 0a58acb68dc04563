"""Callbacks that run the parts of a view: pictures, files and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from PIL import Image

from attnlab.callbacks.evaluation import EvaluationCallback, shown
from attnlab.runs import folder_of
from attnlab.tasks import BaseTask
from attnlab.views import Gallery, Picture, Record, Writer
from attnlab.views.base import beside
from attnlab.views.outputs import plan_outputs


class Pictures(EvaluationCallback):
    """Draws a gallery in validation and test.

    Pictures go to every logger that supports images (TensorBoard, Weights & Biases, MLflow), and the latest
    as PNGs to ``pictures/`` in the run's folder. Nothing is drawn in the sanity check or without a logger.

    Args:
        gallery: Draws.

    Attributes:
        folder: Folder of the PNGs; None until one is written.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self.folder: Path | None = None

    @property
    def state_key(self) -> str:
        """One per gallery: a run has several of these callbacks."""
        return f"{type(self).__qualname__}[{type(self.gallery).__qualname__}]"

    def drawn_now(self, trainer: Trainer) -> bool:
        """Whether to draw in this epoch, on this process."""
        gallery = self.gallery
        if trainer.sanity_checking or trainer.logger is None or not gallery.wanted:
            return False
        if not (gallery.everywhere or trainer.is_global_zero):
            return False
        if self.asked_for(trainer):
            return True
        last = bool(trainer.max_epochs and trainer.current_epoch + 1 >= trainer.max_epochs)
        return last or trainer.current_epoch % gallery.every_n_epochs == 0

    def begins(self, trainer: Trainer, stage: str) -> None:
        """Start the gallery."""
        loader: Any = trainer.test_dataloaders if stage == "test" else trainer.val_dataloaders
        if self.drawn_now(trainer):
            self.gallery.begin(len(getattr(loader, "dataset", ())))

    def looks(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        """Keep what the pictures need."""
        if self.drawn_now(trainer):
            self.gallery.collect(outputs, batch, trainer.datamodule)  # type: ignore[attr-defined]

    def ends(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Draw."""
        if not self.drawn_now(trainer):
            return
        self.gallery.exchange()
        if not trainer.is_global_zero:
            return
        result = getattr(task, "results", {}).get(stage)
        for picture in self.gallery.pictures(stage, result, trainer.datamodule):  # type: ignore[attr-defined]
            self._show(trainer, picture)

    def _show(self, trainer: Trainer, picture: Picture) -> None:
        folder = folder_of(trainer)
        if folder is not None:
            self.folder = folder / "pictures"
            self.folder.mkdir(parents=True, exist_ok=True)
            # A third of the default's time, for files 10 % larger.
            Image.fromarray(picture.pixels).save(self.folder / f"{picture.name}.png", compress_level=2)
        if picture.tag is None:
            return
        step = trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(picture.tag, picture.pixels, step, dataformats="HWC")
            elif isinstance(logger, MLFlowLogger):
                file = f"{picture.tag}/{step}.png"
                logger.experiment.log_image(logger.run_id, picture.pixels, file)
            elif hasattr(logger, "log_image"):
                logger.log_image(picture.tag, [Image.fromarray(picture.pixels)], step=step)


class Records(EvaluationCallback):
    """Writes a record after ``test`` and ``validate``; a run without a folder writes nothing.

    Args:
        record: The record.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    @property
    def state_key(self) -> str:
        """One per record: a run has several of these callbacks."""
        return f"{type(self).__qualname__}[{type(self.record).__qualname__}]"

    def begins(self, trainer: Trainer, stage: str) -> None:
        """Start the record."""
        self.record.begin()

    def looks(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        """Keep what the file needs."""
        if self.record.write and self.asked_for(trainer):
            self.record.collect(outputs, batch)

    def ends(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Write."""
        if not (self.record.write and self.asked_for(trainer)):
            return
        result = getattr(task, "results", {}).get(stage)
        file = self.record.file(stage, result, trainer.datamodule)  # type: ignore[attr-defined]
        folder = folder_of(trainer) if trainer.is_global_zero else None
        if folder is None or file is None:
            return
        path = folder / file.name
        beside(path, file.pieces)
        if file.said is not None:
            print(file.said.format(path=shown(path)))


class Predictions(BasePredictionWriter):
    """Writes predictions.

    Args:
        writer: Writes.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__(write_interval="batch")
        self.writer = writer
        self._names: dict[str, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder and plan the file names, the same on every process; see `plan_outputs`."""
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
        """Write the counted images of one batch."""
        assert isinstance(pl_module, BaseTask)
        data, view = trainer.datamodule, pl_module.view  # type: ignore[attr-defined]
        marks = zip(prediction, batch["counted"].tolist(), batch["index"].tolist(), strict=True)
        for i, (found, counted, index) in enumerate(marks):
            if counted:
                path = str(batch["path"][i])
                image = view.image(batch, i, data) if self.writer.draws(index) else view.outline(batch, i)
                one = view.prediction(found, image, Path(path), data)
                self.writer.add(one, index, self._names[path], data)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish writing, and print where the files are."""
        said = self.writer.finish(trainer.datamodule, trainer.is_global_zero)  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            print(said)
