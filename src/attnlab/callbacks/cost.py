"""What the network costs, beside what it scores."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.attention import attention_modules
from attnlab.callbacks.summary import summary_lines
from attnlab.models.cost import Cost, measure_cost
from attnlab.tasks import BaseTask


class CostReport(Callback):
    """Counts parameters and MACs before training or testing, and logs them with the attention's share.

    Every logger gets those of a training among its hyperparameters (``cost.macs`` …), beside which
    TensorBoard's tab HParams shows the scores; TensorBoard also has them as text, with the list of sites.
    Before training the network, its parts and the sites are printed.

    Args:
        size: Side in pixels of the square image for which MACs are counted; 0 takes the size that a detector
            brings images to, or else the data's crop size.

    Attributes:
        shown: Whether the summary is printed; ``--trainer.enable_model_summary false`` leaves it out.
    """

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.shown = True
        self.cost: Cost | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count, log, and print the summary."""
        self._count(trainer, pl_module)
        if self.shown and self.cost is not None and isinstance(pl_module, BaseTask):
            print("\n".join(summary_lines(trainer, pl_module, self.cost)), flush=True)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count, and log."""
        self._count(trainer, pl_module)

    def _count(self, trainer: Trainer, task: LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(task, BaseTask):
            return
        crop = getattr(getattr(trainer, "datamodule", None), "crop_size", None)
        side = self.size or (crop if isinstance(crop, int) else 224)
        size = (side, side) if self.size or task.cost_size is None else task.cost_size
        modules = [wrapper.attention for _, wrapper in attention_modules(task.network)]
        self.cost = measure_cost(task.network, modules, size)
        rows = "\n".join(f"| {label} | {figure} |" for label, figure in self.cost.rows())
        sites = "\n".join(f"| {s.name} | {s.channels} | {s.parameters} |" for s in task.sites)
        tables = (
            f"|  |  |\n| --- | ---: |\n{rows}\n\n"
            f"| site | channels | parameters |\n| --- | ---: | ---: |\n{sites}"
        )
        for logger in trainer.loggers:
            if trainer.state.fn == TrainerFn.FITTING:
                logger.log_hyperparams(self.cost.hparams())
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("cost", tables)
