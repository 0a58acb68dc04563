"""Parameter groups, optimizer and learning-rate schedule of all tasks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from attnlab.errors import AttnlabError, unknown
from attnlab.tasks.configs import OptimizerConfig, ScheduleConfig


def parameter_groups(
    network: nn.Module,
    backbone: Iterable[nn.Parameter],
    attention: Iterable[nn.Parameter],
    config: OptimizerConfig,
    lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Trainable parameters as groups named ``head``, ``backbone`` and ``attention``, empty ones left out.

    A parameter of the attention belongs to ``attention`` even inside the backbone. If norms and biases are
    exempt from decay, each group's form a separate one, ``head_no_decay`` and so on.

    Args:
        network: The whole network.
        backbone: The backbone's parameters.
        attention: The parameters added by attention.
        config: Learning rates and decay.
        lr_factor: Multiplies every learning rate, see `batch_factor`.
    """
    in_attention = {id(p) for p in attention}
    in_backbone = {id(p) for p in backbone} - in_attention
    factors = {"head": 1.0, "backbone": config.backbone_lr_factor, "attention": config.attention_lr_factor}
    split: dict[tuple[str, bool], list[nn.Parameter]] = {
        (part, decayed): [] for part in factors for decayed in (True, False)
    }
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        place = id(parameter)
        part = "attention" if place in in_attention else "backbone" if place in in_backbone else "head"
        split[part, config.decay_norms_and_biases or parameter.ndim > 1].append(parameter)
    return [
        {
            "params": parameters,
            "name": part if decayed else f"{part}_no_decay",
            "lr": config.lr * lr_factor * factors[part],
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (part, decayed), parameters in split.items()
        if parameters
    ]


def batch_factor(config: OptimizerConfig, global_batch: int) -> float:
    """The factor on the learning rate for a global batch size, by the configured rule.

    Args:
        config: The rule, and the batch size that the configured rate is meant for.
        global_batch: Images per optimizer step, over all processes and accumulated batches.

    Raises:
        AttnlabError: ``lr_batch_size`` is below 1.
    """
    if config.lr_scaling == "none":
        return 1.0
    if config.lr_batch_size < 1:
        raise AttnlabError(f"optimizer.lr_batch_size is {config.lr_batch_size}; it must be at least 1.")
    ratio = global_batch / config.lr_batch_size
    return ratio if config.lr_scaling == "linear" else math.sqrt(ratio)


def build_optimizer(config: OptimizerConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer of ``torch.optim`` that the config names.

    Args:
        config: Name, decay and options.
        groups: From `parameter_groups`.

    Raises:
        AttnlabError: Unknown name or option, or a value that the optimizer rejects.
    """
    known: dict[str, Any] = {
        name: cls
        for name, cls in vars(torch.optim).items()
        if inspect.isclass(cls) and issubclass(cls, Optimizer) and cls is not Optimizer
    }
    cls = {name.lower(): cls for name, cls in known.items()}.get(config.name.lower())
    if cls is None:
        raise unknown("optimizer", config.name, known)
    named = set(inspect.signature(cls).parameters) - {"params", "lr", "weight_decay"}
    for option in config.options:
        if option not in named:
            raise unknown(f"option of {cls.__name__}", option, named)
    try:
        return cls(groups, lr=config.lr, weight_decay=config.weight_decay, **config.options)
    except (TypeError, ValueError) as error:
        raise AttnlabError(f"torch.optim.{cls.__name__} rejects its options: {error}") from error


class Schedule:
    """The factor on all learning rates as a function of the optimizer step.

    Args:
        config: The curve.

    Attributes:
        total_steps: Length of the training in optimizer steps. Set when training starts: asking the Trainer
            earlier would build the loaders before their state is restored.
        warmup_steps: Length of the warm-up in optimizer steps; if given in epochs, set when training starts.

    Raises:
        AttnlabError: The warm-up is given both in steps and in epochs.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        if config.warmup_steps and config.warmup_epochs:
            raise AttnlabError(
                f"schedule.warmup_steps is {config.warmup_steps} and schedule.warmup_epochs "
                f"{config.warmup_epochs}; set only one of the two."
            )
        self.config = config
        self.total_steps: float = math.inf
        self.warmup_steps = config.warmup_steps

    def __call__(self, step: int) -> float:
        """Factor for optimizer step ``step``, counted from 0."""
        config = self.config
        if step < self.warmup_steps:
            rise = (step / self.warmup_steps) ** config.warmup_power
            return config.warmup_factor + (1 - config.warmup_factor) * rise
        length = self.total_steps - self.warmup_steps
        t = min((step - self.warmup_steps) / length, 1.0) if length > 0 else 1.0
        if config.name == "poly":
            factor = (1 - t) ** config.power
        elif config.name == "cosine":
            factor = config.final_factor + (1 - config.final_factor) * (1 + math.cos(math.pi * t)) / 2
        elif config.name == "step":
            factor = config.gamma ** sum(milestone <= t for milestone in config.milestones)
        else:
            factor = 1.0
        return max(factor, config.min_factor)

    def start(self, total_steps: float, epoch_steps: float = math.inf) -> None:
        """Set the length of the training.

        Args:
            total_steps: In optimizer steps.
            epoch_steps: Optimizer steps of one epoch.

        Raises:
            AttnlabError: The curve or the warm-up needs a length, but there is none.
        """
        if self.config.warmup_epochs:
            if math.isinf(epoch_steps):
                raise AttnlabError(
                    "schedule.warmup_epochs needs epochs of known length: use schedule.warmup_steps."
                )
            self.warmup_steps = round(self.config.warmup_epochs * epoch_steps)
        if math.isinf(total_steps) and self.config.name != "constant":
            raise AttnlabError(
                f"The schedule '{self.config.name}' needs the length of the training: set "
                "--trainer.max_epochs or --trainer.max_steps, or --model.schedule.name constant."
            )
        self.total_steps = total_steps


def apply_config(optimizer: Optimizer, scheduler: LambdaLR, groups: list[dict[str, Any]]) -> None:
    """Put the configured values back after a checkpoint was restored.

    An optimizer's state dict holds the old learning rates, decay and momentum, which would silently override
    the current options. With an unchanged configuration this changes nothing.

    Args:
        optimizer: Restored from the checkpoint.
        scheduler: Its schedule, restored to its step.
        groups: ``optimizer.param_groups`` before the restore, without their parameters. Further groups are a
            callback's; see `adopt_groups`.
    """
    # A new list: the old one may be the state dict's own.
    scheduler.base_lrs = [group["initial_lr"] for group in groups] + scheduler.base_lrs[len(groups) :]
    for group, configured, function in zip(
        optimizer.param_groups, groups, scheduler.lr_lambdas, strict=False
    ):
        group.update(configured)
        group["lr"] = configured["initial_lr"] * function(scheduler.last_epoch)


def adopt_groups(optimizer: Optimizer, scheduler: LambdaLR, configured: int) -> None:
    """Keep the learning rate of groups added by a callback (Lightning's BackboneFinetuning).

    Such a callback sets it at the start of an epoch; the schedule, which does not know them, would fail.

    Args:
        optimizer: The optimizer; configured groups come first.
        scheduler: The schedule.
        configured: Number of configured groups.
    """
    added = optimizer.param_groups[configured:]
    scheduler.base_lrs[configured:] = [group["lr"] for group in added]
    scheduler.lr_lambdas[configured:] = [lambda step: 1.0 for _ in added]
    for group in added:
        group["initial_lr"] = group["lr"]
        # A resumed run has its groups, but Lightning's callback has frozen their parameters again.
        for parameter in group["params"]:
            parameter.requires_grad_(True)


def learning_rate_schedule(
    optimizer: Optimizer,
    total_steps: int,
    config: ScheduleConfig | str = "cosine",
    epoch_steps: float = math.inf,
) -> LambdaLR:
    """A YAML's ``schedule`` block for your own training loop; step it after every optimizer step.

    Args:
        optimizer: Its groups' learning rates are the base values.
        total_steps: Length of the training in optimizer steps.
        config: The block, or the name of a curve with the block's other defaults.
        epoch_steps: Optimizer steps per epoch, if the warm-up is given in epochs.

    Returns:
        The scheduler.

    Raises:
        AttnlabError: The curve needs an argument that was not given.
    """
    names = get_args(get_type_hints(ScheduleConfig)["name"])
    if isinstance(config, str) and config not in names:
        raise unknown("schedule", config, names)
    schedule = Schedule(ScheduleConfig(name=config) if isinstance(config, str) else config)  # type: ignore[arg-type]
    schedule.start(total_steps, epoch_steps)
    return LambdaLR(optimizer, schedule)
