"""The cost of the network, and a summary of it before training."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from attnlab.attention import attention_modules, describe
from attnlab.callbacks.evaluation import EvaluationCallback
from attnlab.models.cost import Cost, measure_cost, share
from attnlab.tasks import BaseTask

LISTED_SITES = 12


class CostReport(EvaluationCallback):
    """Counts parameters and MACs before training or scoring, and logs them with attention's share.

    In training every logger gets them as hyperparameters (``cost.macs`` …), shown with the scores in
    TensorBoard's HParams tab; TensorBoard also gets them as text, with the list of sites. Before training,
    the network, its parts and the sites are printed.

    Args:
        size: Side in pixels of the square image for counting MACs; 0 means the size to which a detector
            resizes images, or else the data's crop size.

    Attributes:
        shown: Whether to print the summary; ``--trainer.enable_model_summary false`` turns it off.
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

    def begins(self, trainer: Trainer, stage: str) -> None:
        """Count, and log."""
        if self.asked_for(trainer):
            self._count(trainer, trainer.lightning_module)

    def _count(self, trainer: Trainer, task: LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(task, BaseTask):
            return
        crop = getattr(getattr(trainer, "datamodule", None), "crop_size", None)
        side = self.size or (crop if isinstance(crop, int) else 224)
        own = task.built.example_size
        size = (side, side) if self.size or own is None else own
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


def summary_lines(trainer: Trainer, task: BaseTask, cost: Cost) -> list[str]:
    """The network, its parts and the attention sites, with parameters and MACs."""
    named = (task.hparams.get(key) for key in ("architecture", "encoder", "network"))
    height, width = cost.size
    parameters, attention = list(task.network.parameters()), task.attention_parameters()
    of_attention = {id(parameter) for parameter in attention}
    backbone = [p for p in task.backbone_parameters() if id(p) not in of_attention]
    head = count(parameters) - count(backbone) - count(attention)
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    sites = len(task.sites)
    placed = f"{task.attention.name} ({task.attention.mode}) at {sites} sites" if sites else "none"
    macs = f"{cost.macs / 1e9:.3f} G, attention {share(cost.attention_macs, cost.macs, 'M', 1e6)}"
    rows = [
        ("network", " on ".join(filter(None, named))),
        ("parameters", f"{count(parameters):,d}, {count(trainable):,d} trainable"),
        ("", f"backbone {count(backbone):,d}, head {head:,d}, attention {count(attention):,d}"),
        (f"MACs at {height}x{width}", macs),
        ("on", f"{trainer.world_size} x {trainer.strategy.root_device.type}, precision {trainer.precision}"),
        ("layout", _layout(task)),
        ("attention", placed),
    ]
    width = max(16, *(len(label) + 2 for label, _ in rows))
    lines = [f"{label:<{width}}{value}".rstrip() for label, value in rows]
    if sites:
        lines += describe(task.sites[:LISTED_SITES]).splitlines()
    if sites > LISTED_SITES:
        lines.append(f"  … and {sites - LISTED_SITES} more")
    return lines


def _layout(task: BaseTask) -> str:
    """The memory format, whether it was chosen automatically, and what is compiled."""
    name = str(task.layout).removeprefix("torch.")
    chosen = " (auto)" if task.hparams["channels_last"] == "auto" else ""
    if not task.hparams["compile"]:
        return f"{name}{chosen}"
    whole = task.compiled_part is task.network
    return f"{name}{chosen}, {'the network' if whole else 'the backbone'} compiled"


def count(parameters: Iterable[nn.Parameter]) -> int:
    """The number of elements, each tensor counted once."""
    return sum({id(parameter): parameter.numel() for parameter in parameters}.values())
