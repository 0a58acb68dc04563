"""A network with attention: its options, weights and training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

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
from attnlab.models import BuiltNetwork, WeightsReport, load_weights, weights_file
from attnlab.tasks.configs import AttentionConfig, OptimizerConfig, ScheduleConfig
from attnlab.tasks.freezing import BackboneFreeze
from attnlab.tasks.layout import memory_format
from attnlab.tasks.optimization import (
    Schedule,
    adopt_groups,
    apply_config,
    batch_factor,
    build_optimizer,
    parameter_groups,
)

ConfigT = TypeVar("ConfigT")
AnyBatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def as_config(cls: type[ConfigT], value: ConfigT | dict[str, Any]) -> ConfigT:
    """A block of options from an object or from the dict that a checkpoint holds."""
    return cls(**value) if isinstance(value, dict) else value


def as_builtin(value: Any) -> Any:
    """A block of options as built-in types, for checkpoints."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


class NetworkModule(LightningModule):
    """Base of all tasks: a network with attention, trained from random or pretrained weights.

    A subclass sets the ``builder`` of its networks, whose parameters are its own options; or it builds its
    network itself (`configure_network`) and defines the ``backbone``.

    Args:
        own: The subclass's own options, for ``hparams``.
        weights: Initial weights: none (random), imagenet (published weights of the network or its backbone,
            downloaded) or the path of a state dict (torch or safetensors) of either. A head for another
            number of classes is reinitialised.
        attention: Which attention module to use, and where.
        optimizer: The optimizer and its learning rates.
        schedule: The learning-rate schedule.
        bn_momentum: Momentum of the backbone's BatchNorm statistics, in 0..1. Default: the network's own.
        freeze_backbone_bn: Freeze the backbone's BatchNorm statistics (for small batches on a pretrained
            backbone); scales, offsets and attention modules are still trained.
        freeze_backbone_epochs: Number of first epochs that train only attention and head, for attention added
            to a pretrained network.
        channels_last: Use channels_last memory format, which is faster for most convolutions and changes
            results only by rounding. auto uses it where measurements show a gain; the table before training
            shows the choice.
        compile: Compile the network with torch.compile: the first steps take minutes, later ones are faster.

    Attributes:
        builder: Builds the network from the options that it has parameters for.
        built: Its result; mostly empty for a network built otherwise.
        network: The network with attention.
        sites: The sites of attention.
        attention: The attention block, as configured.
        class_names: Names of the classes 0, 1, …, if the task has classes.
        layout: The memory format of images and weights.
        restored: Whether a checkpoint will be loaded, so that pretrained weights are not needed. Set it
            before ``trainer.fit(..., ckpt_path=...)``; the command line does.
        must_be_trained: Reject pretrained weights that leave the head random. Set by the command line if
            nothing is trained.
        weights_reach_head: Whether published weights can be for the whole network.

    Raises:
        AttnlabError: An option is unknown, invalid or contradicts another.
    """

    restored: bool = False
    must_be_trained: bool = False
    weights_reach_head: bool = True
    builder: ClassVar[Callable[..., BuiltNetwork]]
    built: BuiltNetwork
    network: nn.Module
    sites: list[Site]

    def __init__(
        self,
        own: Mapping[str, Any],
        weights: str = "none",
        attention: AttentionConfig = AttentionConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        schedule: ScheduleConfig = ScheduleConfig(),
        bn_momentum: float | None = None,
        freeze_backbone_bn: bool = False,
        freeze_backbone_epochs: int = 0,
        channels_last: Literal["auto"] | bool = "auto",
        compile: bool = False,
    ) -> None:
        super().__init__()
        if bn_momentum is not None and not 0 <= bn_momentum <= 1:
            raise AttnlabError(f"--model.bn_momentum is {bn_momentum}; it must be in 0..1.")
        if freeze_backbone_epochs < 0:
            raise AttnlabError(
                f"--model.freeze_backbone_epochs is {freeze_backbone_epochs}; it must be at least 0."
            )
        attention = as_config(AttentionConfig, attention)
        # ELA-B and ela_b are one module: a checkpoint holds the registered name.
        self.attention: AttentionConfig = replace(
            attention, name=known_name(attention.name, list_attentions())
        )
        self.optimizer_config = as_config(OptimizerConfig, optimizer)
        self.schedule = Schedule(as_config(ScheduleConfig, schedule))
        self.class_names: list[str] = list(own.get("class_names") or [])
        hparams = {
            **own,
            "weights": weights,
            "attention": self.attention,
            "optimizer": self.optimizer_config,
            "schedule": self.schedule.config,
            "bn_momentum": bn_momentum,
            "freeze_backbone_bn": freeze_backbone_bn,
            "freeze_backbone_epochs": freeze_backbone_epochs,
            "channels_last": channels_last,
            "compile": compile,
        }
        self.save_hyperparameters({name: as_builtin(value) for name, value in hparams.items()}, logger=False)
        self._configured_groups: list[dict[str, Any]] = []
        self._weights_ready = False
        self._compiled = False
        self.configure_network()
        if not hasattr(self, "built"):
            self.built = BuiltNetwork(self.network)
        for layer in self.batchnorms() if bn_momentum is not None else ():
            layer.momentum = bn_momentum
        self.frozen = BackboneFreeze(freeze_backbone_epochs)
        self.layout = torch.contiguous_format
        if channels_last is True:
            self.lay_out("cpu")

    def configure_network(self) -> None:
        """Build ``network``, and attach attention to it (`attach_attention`)."""
        names = inspect.signature(self.builder).parameters
        options = {name: value for name, value in self.hparams.items() if name in names}
        self.built = self.builder(**options)
        self.network = self.built.network
        self.attach_attention()

    @property
    def backbone(self) -> nn.Module:
        """The part that takes pretrained weights; in a classifier all but the class layers."""
        if self.built.backbone:
            return self.network.get_submodule(self.built.backbone)
        return nn.ModuleList(_around(self.network, self.built.class_layers))

    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that take pretrained weights."""
        return self.backbone.parameters()

    def attention_parameters(self) -> list[nn.Parameter]:
        """The parameters added by attaching attention."""
        return [p for _, site in attention_modules(self.network) for p in site.new_parameters()]

    def attach_attention(self) -> None:
        """Put the configured attention into the network.

        Raises:
            AttnlabError: A module, option or placement is unknown, or nothing matches.
        """
        config = self.attention
        self.sites = attach(
            self.network, config.name, config.at, config.mode, options=config.options, shared=config.shared
        )

    def batchnorms(self) -> Iterator[AnyBatchNorm]:
        """BatchNorm layers of the backbone, without those of attention modules, which are new."""
        new = {id(m) for _, site in attention_modules(self.network) for m in site.attention.modules()}
        for module in self.backbone.modules():
            if isinstance(module, AnyBatchNorm) and id(module) not in new:
                yield module

    def check_weights_file(self) -> None:
        """Check that the weights file for `setup` exists.

        Raises:
            AttnlabError: It does not exist.
        """
        weights = self._weights_to_load()
        if weights not in (None, "imagenet"):
            weights_file(weights)

    def _weights_to_load(self) -> str | None:
        weights = self.hparams.get("weights")
        return None if self.restored or self._weights_ready or weights == "none" else weights

    def setup(self, stage: str) -> None:
        """Set the memory format; load pretrained weights, unless a checkpoint will replace them."""
        self.lay_out(self.trainer.strategy.root_device.type, str(self.trainer.precision))
        weights = self._weights_to_load()
        if weights is not None:
            self._load_pretrained(weights)
        if self.hparams["compile"] and not self._compiled:
            # In place, so that state-dict keys do not change.
            self.compiled_part.compile()
            self._compiled = True

    def lay_out(self, device: str, precision: str = "32-true") -> None:
        """Convert the weights to the memory format of ``channels_last``; ``forward`` converts images.

        Args:
            device: Device type.
            precision: Lightning's name for it.
        """
        self.layout = memory_format(self.hparams["channels_last"], self.attention.name, device, precision)
        self.network.to(memory_format=self.layout)

    @property
    def compiled_part(self) -> nn.Module:
        """What ``compile`` compiles."""
        return self.network

    def _load_pretrained(self, weights: str) -> None:
        head = (
            {name: value.clone() for name, value in self._head_parameters()} if self.must_be_trained else {}
        )
        report = self.load_weights(weights)
        self._weights_ready = True
        rank_zero_info(str(report))
        # Zeros and ones, the initial biases and scales, say nothing.
        random = [
            name
            for name, value in self._head_parameters()
            if name in head and torch.equal(value, head[name]) and value.unique().numel() > 1
        ]
        if random:
            raise AttnlabError(
                f"{weights} leaves {len(random)} tensors of the network random ({random[0]}, ...): it is "
                "for a backbone, or for other classes. Give a checkpoint (--ckpt_path best, last or FILE), "
                "or --random_weights true if that is intended."
            )

    def _head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of neither the backbone nor attention modules."""
        others = {id(p) for p in (*self.backbone_parameters(), *self.attention_parameters())}
        for name, parameter in self.network.named_parameters():
            if id(parameter) not in others:
                yield name, parameter

    def load_weights(self, weights: str) -> WeightsReport:
        """Load pretrained weights into the network, or into its backbone.

        Args:
            weights: ``imagenet``, or a file path.

        Returns:
            What was loaded; its text is logged.

        Raises:
            AttnlabError: They cannot be downloaded or read, or do not fit.
        """
        return load_weights(self.built, weights)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer with the groups head, backbone and attention; one schedule, stepped every update."""
        groups = parameter_groups(
            self.network,
            self.backbone_parameters(),
            self.attention_parameters(),
            self.optimizer_config,
            self._lr_factor(),
        )
        optimizer = build_optimizer(self.optimizer_config, groups)
        # A function is not saved with the scheduler's state: the current configuration applies, and
        # checkpoints hold only tensors and built-in types.
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
                f"--model.optimizer.lr_scaling {config.lr_scaling} needs the data's batch_size. Use "
                "lr_scaling none, or one of attnlab's data modules."
            )
        global_batch = batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        factor = batch_factor(config, global_batch)
        rank_zero_info(
            f"Learning rate {config.lr} for batch {config.lr_batch_size}, {config.lr_scaling} rule: "
            f"{config.lr * factor:g} for batch {global_batch}."
        )
        return factor

    def on_train_start(self) -> None:
        """Set the schedule's length, and let the configuration override what was restored."""
        batches = self.trainer.num_training_batches
        self.schedule.start(
            self.trainer.estimated_stepping_batches, batches / self.trainer.accumulate_grad_batches
        )
        if (scheduler := self._scheduler()) is not None:
            apply_config(scheduler.optimizer, scheduler, self._configured_groups)

    def _scheduler(self) -> LambdaLR | None:
        """The schedule, unless a callback such as StochasticWeightAveraging has put its own in the place."""
        scheduler = self.lr_schedulers()
        return scheduler if isinstance(scheduler, LambdaLR) else None

    def on_train_epoch_start(self) -> None:
        """Freeze and unfreeze parameters for this epoch."""
        if (scheduler := self._scheduler()) is not None:
            adopt_groups(scheduler.optimizer, scheduler, len(self._configured_groups))
        attention = {id(parameter) for parameter in self.attention_parameters()}
        backbone = (parameter for parameter in self.backbone_parameters() if id(parameter) not in attention)
        self.frozen.at_epoch(self.current_epoch, backbone, self.batchnorms())
        if self.hparams["freeze_backbone_bn"]:
            for layer in self.batchnorms():
                layer.eval()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Draw each step's random numbers (dropout) from its own stream.

        It depends only on the run's seed, epoch, batch and process, so a resumed run draws the same numbers
        as an uninterrupted one.
        """
        entropy = (run_seed(), self.current_epoch, batch_idx, self.trainer.global_rank)
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        # torch.manual_seed seeds every kind of device, at a third of a millisecond per step.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Drop gradients of frozen parameters."""
        self.frozen.drop_gradients()


def _around(module: nn.Module, names: Collection[str]) -> Iterator[nn.Module]:
    """The largest parts of a module that contain none of the named modules."""
    if own := list(module.parameters(recurse=False)):
        yield nn.ParameterList(own)
    for child, part in module.named_children():
        inner = [name.partition(".")[2] for name in names if name.partition(".")[0] == child]
        if not inner:
            yield part
        elif "" not in inner:
            yield from _around(part, inner)
