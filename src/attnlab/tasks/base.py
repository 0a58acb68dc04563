"""What every task shares: attention, weights, optimisation, and checkpoints that say what they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from attnlab.attention import Site, attach, attention_keys, attention_modules, describe
from attnlab.data.sampling import run_seed
from attnlab.errors import AttnlabError
from attnlab.models import library_encoder_weights, load_backbone, read_state_dict
from attnlab.tasks.configs import AttentionConfig, OptimizerConfig
from attnlab.tasks.identity import refuse_another_network
from attnlab.tasks.optimization import Schedule, apply_config, build_optimizer, parameter_groups

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
        restored: A checkpoint is about to be loaded, so that pretrained weights are not needed. Set it before
            ``trainer.fit(..., ckpt_path=...)``; the command line does.
    """

    restored: bool = False
    network: nn.Module
    sites: list[Site]
    # The metric that decides which checkpoint is best; more is better.
    monitor: str

    def remember(self, **hparams: Any) -> None:
        """Keep the arguments in ``hparams``, as plain values, for checkpoints and logs."""
        self.save_hyperparameters({name: plain(value) for name, value in hparams.items()}, logger=False)
        self.attention: AttentionConfig = hparams["attention"]
        self.optimizer_config: OptimizerConfig = hparams["optimizer"]
        self.schedule = Schedule(hparams["schedule"])
        self._configured_groups: list[dict[str, Any]] = []
        self._weights_ready = False

    @property
    def backbone(self) -> nn.Module:
        """The part of the network that pretrained weights are for."""
        raise AttnlabError(f"{type(self).__name__} names no backbone.")

    @property
    def example_size(self) -> int:
        """Side in pixels of the square image on which sites are found and costs counted."""
        return 224

    def attach_attention(self) -> None:
        """Put the configured attention into the network and say where.

        Raises:
            AttnlabError: For an unknown module, option or placement, or when nothing matches.
        """
        config = self.attention
        self.sites = attach(self.network, config.name, at=config.at, mode=config.mode, options=config.options)
        if self.sites:
            where = describe(self.sites)
            rank_zero_info(f"{config.name} ({config.mode}) at {len(self.sites)} sites:\n{where}")

    def batchnorms(self) -> Iterator[AnyBatchNorm]:
        """BatchNorm layers of the backbone, but for those of attention modules, which start anew."""
        new = {id(m) for _, site in attention_modules(self.network) for m in site.attention.modules()}
        for module in self.backbone.modules():
            if isinstance(module, AnyBatchNorm) and id(module) not in new:
                yield module

    def summary(self, stage: str, per_class: bool = True) -> list[tuple[str, str]]:
        """Label and figure of the last scores of a stage (``val`` or ``test``), for the closing table."""
        return []

    def setup(self, stage: str) -> None:
        """Load pretrained weights, unless a checkpoint is about to replace them."""
        weights = self.hparams.get("weights")
        if self.restored or self._weights_ready or weights in (None, "none"):
            return
        if weights == "imagenet":
            encoder = self.hparams["encoder"]
            state = library_encoder_weights(encoder, depth=len(self.backbone.out_channels) - 1)  # type: ignore[arg-type]
            source = f"the ImageNet weights of '{encoder}'"
        else:
            state, source = read_state_dict(weights), str(weights)
        report = load_backbone(
            self.backbone,
            state,
            source,
            new=attention_keys(self.backbone),
            dropped=getattr(self.network, "dropped", ()),
        )
        self._weights_ready = True
        rank_zero_info(str(report))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over the groups head, backbone and attention; one schedule, stepped every update."""
        groups = parameter_groups(
            self.network,
            self.backbone,
            [p for _, site in attention_modules(self.network) for p in site.new_parameters()],
            self.optimizer_config,
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

    def on_train_start(self) -> None:
        """Tell the schedule how long training is, and let what is configured beat what was restored."""
        self.schedule.start(self.trainer.estimated_stepping_batches)
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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, and say what differs."""
        refuse_another_network(self, checkpoint)
