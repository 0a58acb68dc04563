"""What a run leaves of its options: the YAML, the hparams of its loggers, and what its checkpoints need."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from attnlab import __version__, checkpoints, run_length, runs
from attnlab.callbacks.report import flat
from attnlab.data import DataModule

# Of the Trainer's options, those that tell two runs apart.
OF_THE_TRAINER = (
    *("max_epochs", "max_steps", "max_time", "precision", "strategy", "devices", "num_nodes"),
    *("accumulate_grad_batches", "gradient_clip_val", "limit_train_batches", "limit_val_batches"),
    "sync_batchnorm",
)


class RememberData(SaveConfigCallback):
    """Saves a training's YAML in its folder, and the data's part and the length in every checkpoint.

    With the task's own options, which a checkpoint holds anyway, that makes a checkpoint enough to test,
    predict or go on. A resumed run keeps the YAML of the one before; its own gets a number.

    Attributes:
        started: A training batch is through.
    """

    started: bool = False

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write YAML and hparams, in ``fit``, where there is a run's folder. Lightning asks one process."""
        folder = runs.folder_of(trainer)
        if stage != "fit" or folder is None:
            return
        for logger in trainer.loggers:
            logger.log_hyperparams(self.hparams(pl_module))
        text = self.parser.dump(self.config, skip_none=False)
        path = runs.free_name(folder / self.config_filename, text)
        if path is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def on_train_batch_end(self, *_: Any) -> None:
        """Take note that training has begun."""
        self.started = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the data's options, under Lightning's own key, and the length."""
        data = _plain(self.config.data)
        module = trainer.datamodule  # type: ignore[attr-defined]
        more = module.remembered() if isinstance(module, DataModule) else {}
        options = {**(data.get("init_args") or {}), **more}
        checkpoint[checkpoints.OF_DATA] = {checkpoints.CLASS_PATH: data["class_path"], **options}
        length = run_length.remembered(self.config.trainer.as_dict())
        checkpoint.setdefault("attnlab", {}).update({"version": __version__, "length": length})

    def hparams(self, task: LightningModule) -> dict[str, Any]:
        """What tells this run from another, under dotted names: seed, network, data, length, versions."""
        data = _plain(self.config.data)
        options = data.get("init_args") if isinstance(data, dict) else None
        trainer = self.config.trainer.as_dict()
        return flat(
            {
                "seed": self.config.seed_everything,
                "task": getattr(task, "kind", type(task).__name__),
                **dict(task.hparams),
                "data": {"class": str(data.get("class_path", "")).rpartition(".")[2], **(options or {})},
                "trainer": {key: _plain(trainer.get(key)) for key in OF_THE_TRAINER},
                "version": {name: version(name) for name in ("attnlab", "torch", "torchvision", "lightning")},
            }
        )


def _plain(value: Any) -> Any:
    """Options as parsed, of nothing but dicts, lists and scalars."""
    if isinstance(value, Namespace):
        value = value.clone().as_dict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
