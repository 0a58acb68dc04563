"""What every task shares: attention, weights, optimisation, and checkpoints that say what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from attnlab.attention import Site, attach, attention_modules, list_attentions
from attnlab.data.sampling import run_seed
from attnlab.errors import AttnlabError, known_name
from attnlab.models import weights_file
from attnlab.tasks.configs import AttentionConfig, OptimizerConfig
from attnlab.tasks.identity import refuse_another_network
from attnlab.tasks.optimization import (
    Schedule,
    apply_config,
    batch_factor,
    build_optimizer,
    parameter_groups,
)

ConfigT = TypeVar("ConfigT")
AnyBatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def as_config(cls: type[ConfigT], value: ConfigT | dict[str, Any]) -> ConfigT:
    """A block of options from the object itself or from the plain dict that a checkpoint holds."""
    return cls(**value) if isinstance(value, dict) else value


def plain(value: Any) -> Any:
    """A block of options as plain values, which a checkpoint may hold."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


class BaseTask(LightningModule):
    """A network with attention in it, trained from random or pretrained weights.

    A task's ``__init__`` reads as four calls: `remember`, `configure_network`, `configure_losses`,
    `configure_metrics`. Subclasses write the last three and the steps.

    Attributes:
        network: The network, attention attached.
        sites: Where attention was attached.
        attention: The attention block, as configured.
        cost_size: Height and width of the image for which MACs are counted, where the network has a size of
            its own.
        restored: A checkpoint is about to be loaded, so that pretrained weights are not needed. Set it before
            ``trainer.fit(..., ckpt_path=...)``; the command line does.
        must_be_trained: Refuse to be used with pretrained weights that leave the head random. The command
            line sets it where nothing is trained.
        weights_reach_head: Whether pretrained weights can be those of the whole network.
    """

    restored: bool = False
    must_be_trained: bool = False
    weights_reach_head: bool = True
    cost_size: tuple[int, int] | None = None
    # Options of the network, out of ``network_options``, that make it no other network.
    free_options: frozenset[str] = frozenset()
    network: nn.Module
    sites: list[Site]
    # What the command line calls the task; checkpoints keep it.
    kind: str
    # The metric that decides which checkpoint is best; more is better.
    monitor: str

    def remember(self, **hparams: Any) -> None:
        """Keep the arguments in ``hparams``, as plain values, for checkpoints and logs."""
        # ELA-B and ela_b are one module, so a checkpoint holds one name.
        self.attention: AttentionConfig = replace(
            hparams["attention"], name=known_name(hparams["attention"].name, list_attentions())
        )
        hparams["attention"] = self.attention
        self.save_hyperparameters({name: plain(value) for name, value in hparams.items()}, logger=False)
        self.optimizer_config: OptimizerConfig = hparams["optimizer"]
        self.schedule = Schedule(hparams["schedule"])
        self._configured_groups: list[dict[str, Any]] = []
        self._weights_ready = False

    @property
    def backbone(self) -> nn.Module:
        """The part of the network that pretrained weights are for."""
        raise AttnlabError(f"{type(self).__name__} names no backbone.")

    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that pretrained weights are for."""
        return self.backbone.parameters()

    def attach_attention(self) -> None:
        """Put the configured attention into the network.

        Raises:
            AttnlabError: For an unknown module, option or placement, or when nothing matches.
        """
        config = self.attention
        self.sites = attach(
            self.network, config.name, config.at, config.mode, options=config.options, shared=config.shared
        )

    def batchnorms(self) -> Iterator[AnyBatchNorm]:
        """BatchNorm layers of the backbone, but for those of attention modules, which start anew."""
        new = {id(m) for _, site in attention_modules(self.network) for m in site.attention.modules()}
        for module in self.backbone.modules():
            if isinstance(module, AnyBatchNorm) and id(module) not in new:
                yield module

    def summary(self, stage: str, per_class: bool = True) -> list[tuple[str, str]]:
        """Label and figure of the last scores of a stage (``val`` or ``test``), for the closing table."""
        return []

    def check_weights_file(self) -> None:
        """Look whether the file that `setup` is to load is there.

        Raises:
            AttnlabError: When it is not.
        """
        weights = self._weights_to_load()
        if weights not in (None, "imagenet"):
            weights_file(weights)

    def _weights_to_load(self) -> str | None:
        weights = self.hparams.get("weights")
        return None if self.restored or self._weights_ready or weights == "none" else weights

    def setup(self, stage: str) -> None:
        """Load pretrained weights, unless a checkpoint is about to replace them."""
        weights = self._weights_to_load()
        if weights is None:
            return
        head = (
            {name: value.clone() for name, value in self._head_parameters()} if self.must_be_trained else {}
        )
        report = self.load_weights(weights)
        self._weights_ready = True
        rank_zero_info(str(report))
        # Zeros and ones, which biases and scales start with, tell nothing.
        random = [
            name
            for name, value in self._head_parameters()
            if name in head and torch.equal(value, head[name]) and value.unique().numel() > 1
        ]
        if random:
            raise AttnlabError(
                f"{weights} leaves {len(random)} tensors of the network random ({random[0]}, ...): it holds "
                "a backbone, or a network for other classes. Name a checkpoint (--ckpt_path best, last or "
                "FILE); if random weights are meant: --random_weights true."
            )

    def _head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that are neither the backbone's nor of attention modules."""
        attention = (p for _, site in attention_modules(self.network) for p in site.new_parameters())
        others = {id(parameter) for parameter in (*self.backbone_parameters(), *attention)}
        for name, parameter in self.network.named_parameters():
            if id(parameter) not in others:
                yield name, parameter

    def load_weights(self, weights: str) -> object:
        """Load pretrained weights into the backbone.

        Args:
            weights: ``imagenet``, or a file's path.

        Returns:
            What was done; its text is logged.

        Raises:
            AttnlabError: When they cannot be fetched or read, or do not fit.
        """
        raise NotImplementedError

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over the groups head, backbone and attention; one schedule, stepped every update."""
        groups = parameter_groups(
            self.network,
            self.backbone_parameters(),
            [p for _, site in attention_modules(self.network) for p in site.new_parameters()],
            self.optimizer_config,
            self._lr_factor(),
        )
        optimizer = build_optimizer(self.optimizer_config, groups)
        # A plain function is not saved with the scheduler's state: what is configured now decides, and a
        # checkpoint holds nothing but tensors and plain values.
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step))
        self._configured_groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _lr_factor(self) -> float:
        """The factor of the learning rates for this run's global batch."""
        config = self.optimizer_config
        if config.lr_scaling == "none":
            return 1.0
        batch_size = getattr(self.trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]
        if not isinstance(batch_size, int):
            raise AttnlabError(
                f"--model.optimizer.lr_scaling {config.lr_scaling} needs data that tells its batch_size. "
                "Use lr_scaling none, or one of attnlab's data modules."
            )
        global_batch = batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        factor = batch_factor(config, global_batch)
        rank_zero_info(
            f"Learning rate {config.lr} for batch {config.lr_batch_size}, {config.lr_scaling} rule: "
            f"{config.lr * factor:g} for batch {global_batch}."
        )
        return factor

    def on_train_start(self) -> None:
        """Tell the schedule how long training is, and let what is configured beat what was restored."""
        batches = self.trainer.num_training_batches
        self.schedule.start(
            self.trainer.estimated_stepping_batches, batches / self.trainer.accumulate_grad_batches
        )
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        apply_config(scheduler.optimizer, scheduler, self._configured_groups)

    def on_train_epoch_start(self) -> None:
        """Hold the backbone's BatchNorm statistics where that was asked for."""
        if self.hparams.get("freeze_backbone_bn"):
            for layer in self.batchnorms():
                layer.eval()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Draw each step's random numbers (dropout) from a stream of its own.

        It depends on the run's seed, the epoch, the batch and the process alone, so a resumed run draws what
        one that was never interrupted draws.
        """
        entropy = (run_seed(), self.current_epoch, batch_idx, self.trainer.global_rank)
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        # torch.manual_seed seeds every kind of device there is, at a third of a millisecond a step.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which task the checkpoint is of."""
        checkpoint.setdefault("attnlab", {})["task"] = self.kind

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, and say what differs."""
        refuse_another_network(self, checkpoint)


def names_of(num_classes: int | None, class_names: list[str] | None) -> list[str]:
    """Class names, made up where only their number is known.

    Raises:
        AttnlabError: When neither is given, or they contradict each other.
    """
    if class_names is None:
        if num_classes is None:
            raise AttnlabError(
                "The number of classes is not known: give num_classes, or class_names, or data that has them."
            )
        return [f"class {index}" for index in range(num_classes)]
    if num_classes is not None and num_classes != len(class_names):
        first = ", ".join(class_names[:30]) + (", …" if len(class_names) > 30 else "")
        raise AttnlabError(
            f"--model.num_classes {num_classes} contradicts the data, which has {len(class_names)} classes: "
            f"{first}. Leave it away: it comes from the data."
        )
    return list(class_names)
