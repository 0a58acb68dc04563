"""Saves a run's options: its YAML, the loggers' hparams, and in its checkpoints."""

from __future__ import annotations

from enum import Enum
from importlib.metadata import version
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from attnlab import __version__, checkpoints, run_length, run_starts, runs
from attnlab.callbacks.checkpoint_io import AtomicCheckpointIO
from attnlab.callbacks.report import flat
from attnlab.data import DataModule

# The Trainer's options that distinguish runs.
OF_THE_TRAINER = (
    *("max_epochs", "max_steps", "max_time", "precision", "strategy", "devices", "num_nodes"),
    *("accumulate_grad_batches", "gradient_clip_val", "limit_train_batches", "limit_val_batches"),
    "sync_batchnorm",
)


class RememberData(SaveConfigCallback):
    """Saves the YAML of ``fit``, and the data's options and the training length in checkpoints.

    With the task's options, which checkpoints hold anyway, a checkpoint suffices to test, predict or resume.
    A resumed run keeps the previous YAML; its own gets a number.

    Attributes:
        started: Whether a training batch is done.
    """

    started: bool = False

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write YAML and hparams in ``fit``, if the run has a folder; called on one process."""
        folder = runs.folder_of(trainer)
        if stage != "fit" or folder is None:
            return
        if not runs.names_its_folder(trainer):
            run_starts.stamp(folder)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.hparams(pl_module))
        text = self.parser.dump(self.config, skip_none=False)
        path = runs.free_name(folder / self.config_filename, text)
        if path is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def on_train_batch_end(self, *_: Any) -> None:
        """Note that training has begun."""
        self.started = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the data's options, under Lightning's key, and the training length."""
        self._add_to(checkpoint, trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the YAML; see to it that checkpoints of weights alone, too, remember the data."""
        super().setup(trainer, pl_module, stage)
        io = trainer.strategy.checkpoint_io
        if isinstance(io, AtomicCheckpointIO):
            io.complete = lambda checkpoint: self._add_to(checkpoint, trainer)

    def _add_to(self, checkpoint: dict[str, Any], trainer: Trainer) -> None:
        data = _as_builtin(self.config.data)
        module = trainer.datamodule  # type: ignore[attr-defined]
        more = module.remembered() if isinstance(module, DataModule) else {}
        options = {**(data.get("init_args") or {}), **more}
        checkpoint[checkpoints.OF_DATA] = {checkpoints.CLASS_PATH: data["class_path"], **options}
        length = run_length.remembered(self.config.trainer.as_dict())
        own = checkpoint.setdefault("attnlab", {})
        own.update({"version": __version__, "length": length})
        if trainer.is_global_zero and len(trainer.loggers) > 1:
            own["loggers"] = runs.folders_of_loggers(trainer)

    def hparams(self, task: LightningModule) -> dict[str, Any]:
        """What distinguishes this run, under dotted names: seed, network, data, length, versions."""
        data = _as_builtin(self.config.data)
        options = data.get("init_args") if isinstance(data, dict) else None
        trainer = self.config.trainer.as_dict()
        return flat(
            {
                "seed": self.config.seed_everything,
                "task": getattr(task, "kind", type(task).__name__),
                **dict(task.hparams),
                "data": {"class": str(data.get("class_path", "")).rpartition(".")[2], **(options or {})},
                "trainer": {key: _as_builtin(trainer.get(key)) for key in OF_THE_TRAINER},
                "version": {name: version(name) for name in ("attnlab", "torch", "torchvision", "lightning")},
            }
        )


def _as_builtin(value: Any) -> Any:
    """Parsed options as dicts, lists and scalars."""
    if isinstance(value, Namespace):
        value = value.clone().as_dict()
    if isinstance(value, dict):
        return {key: _as_builtin(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_builtin(item) for item in value]
    if isinstance(value, Enum):  # the name is what the parser reads
        return value.name
    return value if isinstance(value, bool | int | float | str | None) else str(value)
