"""A network with attention in it: its options, its weights, and how it is trained."""

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
    """A block of options from the object itself or from the plain dict that a checkpoint holds."""
    return cls(**value) if isinstance(value, dict) else value


def as_builtin(value: Any) -> Any:
    """A block of options as plain values, which a checkpoint may hold."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


class NetworkModule(LightningModule):
    """A network with attention in it, trained from random or pretrained weights: what is below every task.

    A subclass names the ``builder`` of its networks, whose parameters are options of its own; or it builds
    its network itself (`configure_network`), and says which part is the ``backbone``.

    Args:
        own: The subclass's own options, for ``hparams``.
        weights: Where the network starts: none (random), imagenet (the published weights of the network or
            its backbone, downloaded) or the path of a state dict (torch or safetensors) of either. A head
            for another number of classes starts anew.
        attention: Which attention module goes where.
        optimizer: How parameters are updated.
        schedule: How the learning rate moves.
        bn_momentum: Momentum of the backbone's BatchNorm statistics, in 0..1; by default the network's own.
        freeze_backbone_bn: Keep the backbone's BatchNorm statistics as they are (for small batches on a
            pretrained backbone); scales, offsets and attention modules still train.
        freeze_backbone_epochs: Train attention and head alone for so many epochs, then the backbone, too: for
            attention that is put into a pretrained network.
        channels_last: Lay images and weights out with the channels innermost, which most convolutions take
            faster; it changes no result beyond rounding. auto does so where a rule that was
            measured says that it pays; the table before training tells what it came to.
        compile: Compile the network (torch.compile), in place: the first steps take minutes, the others less
            than before.

    Attributes:
        builder: Builds the network of the options that it has parameters for.
        built: What it returned; of a network that was built otherwise, little is known.
        network: The network, attention attached.
        sites: Where attention was attached.
        attention: The attention block, as configured.
        class_names: Names of the classes 0, 1, …, where the task has classes.
        layout: The memory format of images and weights.
        restored: A checkpoint is about to be loaded, so that pretrained weights are not needed. Set it before
            ``trainer.fit(..., ckpt_path=...)``; the command line does.
        must_be_trained: Refuse to be used with pretrained weights that leave the head random. The command
            line sets it where nothing is trained.
        weights_reach_head: Whether published weights can be those of the whole network.

    Raises:
        AttnlabError: For anything unknown or contradictory.
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
            raise AttnlabError(f"--model.bn_momentum is {bn_momentum}; it must lie in 0..1.")
        if freeze_backbone_epochs < 0:
            raise AttnlabError(
                f"--model.freeze_backbone_epochs is {freeze_backbone_epochs}; it must be at least 0."
            )
        attention = as_config(AttentionConfig, attention)
        # ELA-B and ela_b are one module, so a checkpoint holds one name.
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
        """The part that pretrained weights are for; of a classifier all but the class layers."""
        if self.built.backbone:
            return self.network.get_submodule(self.built.backbone)
        return nn.ModuleList(_around(self.network, self.built.class_layers))

    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that pretrained weights are for."""
        return self.backbone.parameters()

    def attention_parameters(self) -> list[nn.Parameter]:
        """The parameters that attaching attention has added."""
        return [p for _, site in attention_modules(self.network) for p in site.new_parameters()]

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
        """Lay the network out; load pretrained weights, unless a checkpoint is about to replace them."""
        self.lay_out(self.trainer.strategy.root_device.type, str(self.trainer.precision))
        weights = self._weights_to_load()
        if weights is not None:
            self._load_pretrained(weights)
        if self.hparams["compile"] and not self._compiled:
            # In place, the keys of the state dict stay what they are.
            self.compiled_part.compile()
            self._compiled = True

    def lay_out(self, device: str, precision: str = "32-true") -> None:
        """Bring the weights to the layout that ``channels_last`` asks for; ``forward`` does so with images.

        Args:
            device: Type of the device on which the network is about to work.
            precision: Lightning's name of it.
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
        others = {id(p) for p in (*self.backbone_parameters(), *self.attention_parameters())}
        for name, parameter in self.network.named_parameters():
            if id(parameter) not in others:
                yield name, parameter

    def load_weights(self, weights: str) -> WeightsReport:
        """Load pretrained weights into the network, or into its backbone.

        Args:
            weights: ``imagenet``, or a file's path.

        Returns:
            What was done; its text is logged.

        Raises:
            AttnlabError: When they cannot be fetched or read, or do not fit.
        """
        return load_weights(self.built, weights)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over the groups head, backbone and attention; one schedule, stepped every update."""
        groups = parameter_groups(
            self.network,
            self.backbone_parameters(),
            self.attention_parameters(),
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
        scheduler = self._scheduler()
        apply_config(scheduler.optimizer, scheduler, self._configured_groups)

    def _scheduler(self) -> LambdaLR:
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        return scheduler

    def on_train_epoch_start(self) -> None:
        """Hold what is frozen in this epoch, and let go what no longer is."""
        scheduler = self._scheduler()
        adopt_groups(scheduler.optimizer, scheduler, len(self._configured_groups))
        attention = {id(parameter) for parameter in self.attention_parameters()}
        backbone = (parameter for parameter in self.backbone_parameters() if id(parameter) not in attention)
        self.frozen.at_epoch(self.current_epoch, backbone, self.batchnorms())
        if self.hparams["freeze_backbone_bn"]:
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

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Leave no gradient on what is frozen, whatever the strategy has computed."""
        self.frozen.drop_gradients()


def _around(module: nn.Module, names: Collection[str]) -> Iterator[nn.Module]:
    """The largest parts of a module that hold none of the modules of these names."""
    if own := list(module.parameters(recurse=False)):
        yield nn.ParameterList(own)
    for child, part in module.named_children():
        inner = [name.partition(".")[2] for name in names if name.partition(".")[0] == child]
        if not inner:
            yield part
        elif "" not in inner:
            yield from _around(part, inner)
