"""What the pictures of all tasks share: when they are drawn, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from attnlab.callbacks.drawing import Pixels
from attnlab.errors import AttnlabError


class PicturesCallback(Callback):
    """Base of the callbacks that draw what a network makes of the validation or test set.

    A subclass keeps in `collect` what it needs of each batch, and draws in `draw`, when the scores are known.
    Neither is called in the sanity check, in epochs without pictures, or without a logger.

    Args:
        every_n_epochs: Draw after every so many validation epochs, and after the last.

    Attributes:
        folder: Where the PNGs lie; None until one was written.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise AttnlabError(f"pictures.every_n_epochs is {every_n_epochs}; it must be at least 1.")
        self.every_n_epochs = every_n_epochs
        self.folder: Path | None = None

    def collect(self, trainer: Trainer, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep what the pictures need of one batch. Every process is asked."""
        raise NotImplementedError

    def draw(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Draw what was kept, and forget it. Every process is asked, so this may gather.

        Args:
            trainer: The trainer.
            task: The task, its scores of this epoch in place.
            stage: ``val`` or ``test``.
        """
        raise NotImplementedError

    def wanted(self, trainer: Trainer) -> bool:
        """Whether this epoch is one to draw; the same on every process."""
        if trainer.sanity_checking or trainer.logger is None:
            return False
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        last = bool(trainer.max_epochs and trainer.current_epoch + 1 >= trainer.max_epochs)
        return last or trainer.current_epoch % self.every_n_epochs == 0

    def save(self, trainer: Trainer, name: str, pixels: Pixels, tag: str | None = None) -> None:
        """Write ``pictures/NAME.png`` in the run's folder, in place of the last one. For the first process.

        Nothing is written by a logger that has no folder.

        Args:
            trainer: The trainer, whose logger has the folder.
            name: File name without suffix.
            pixels: RGB, uint8 (H, W, 3).
            tag: Its name in TensorBoard (tab Images), which keeps all; None shows nothing there.
        """
        if trainer.logger is None or trainer.logger.log_dir is None:
            return
        self.folder = Path(trainer.logger.log_dir) / "pictures"
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(self.folder / f"{name}.png")
        if tag is not None and isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.add_image(tag, pixels, trainer.global_step, dataformats="HWC")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the pictures need."""
        if self.wanted(trainer):
            self.collect(trainer, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the pictures need."""
        if self.wanted(trainer):
            self.collect(trainer, outputs, batch)

    # Not on_..._epoch_end: a callback's comes before the task's own, which makes the scores.
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        if self.wanted(trainer):
            self.draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        if self.wanted(trainer):
            self.draw(trainer, pl_module, "test")
