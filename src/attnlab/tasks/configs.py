"""The blocks shared by every task's YAML: attention, optimizer, schedule.

Their attributes are built-in types, so a checkpoint that holds them can be read with ``weights_only=True``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class AttentionConfig:
    """Which attention module to use, and where.

    Attributes:
        name: A registered name (``python main.py attention list``) or the import path of your own class
            (``my_package.my_module.MyAttention``). On the command line ``--model.attention=NAME`` is short
            for this key and resets the options to NAME's defaults.
        at: A placement: auto (the usual one for the network's family), resnet.block, resnet.conv2,
            mobilenetv2.depthwise, stage, aspp, decoder, fpn, yolox.neck, yolof.projector; or a pattern over
            module names (``*.layer4.*.bn2``, ``re:<regular expression>``); or a list of these.
        mode: replace: y = A(x). residual: y = x + A(x). rezero: y = x + a (A(x) - x) with a learned from
            0, so that a pretrained network computes what it did before until training moves a.
        shared: Whether all sites with the same number of channels share one module; by default as the
            placement defines (yolox.neck shares, no other does).
        options: The module's own options (``python main.py attention show NAME``). On the command line
            ``--model.attention.OPTION=VALUE`` is short for ``--model.attention.options.OPTION=VALUE``.
    """

    name: str = "none"
    at: str | list[str] = "auto"
    mode: Literal["replace", "residual", "rezero"] = "replace"
    shared: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning rates.

    Attributes:
        name: An optimizer of ``torch.optim``, e.g. SGD or AdamW. On the command line
            ``--model.optimizer=NAME`` is short for this key and drops the options of another optimizer.
        lr: Base learning rate; the head's.
        lr_scaling: none: ``lr`` is used as is. linear: ``lr`` is multiplied by the global batch size (images
            per optimizer step over all processes and accumulated batches) divided by ``lr_batch_size`` (arXiv
            1706.02677, section 2.1). sqrt: by the square root of that.
        lr_batch_size: The global batch size that ``lr`` is meant for, if it is scaled.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW).
        decay_norms_and_biases: Apply weight decay to every parameter. If false, parameters with at most one
            dimension (norms' scales and offsets, biases) are exempt.
        backbone_lr_factor: Learning rate of the backbone relative to the base learning rate.
        attention_lr_factor: Learning rate of the attention modules relative to the base learning rate, inside
            the backbone too.
        options: Further arguments of the optimizer, e.g. ``{momentum: 0.9}``.
    """

    name: str = "AdamW"
    lr: float = 1e-3
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    lr_batch_size: int = 256
    weight_decay: float = 0.01
    decay_norms_and_biases: bool = True
    backbone_lr_factor: float = 1.0
    attention_lr_factor: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning-rate schedule, updated every optimizer step.

    With t in 0..1 the fraction of steps done after the warm-up, every learning rate is its base value times:
    poly (1 - t)^power; cosine f + (1 - f)(1 + cos(pi t)) / 2 with f the ``final_factor``; step gamma^(number
    of milestones at or below t); constant 1. The result never falls below ``min_factor``.

    Attributes:
        name: The curve of the schedule.
        power: Exponent of poly (0.9 in DeepLab, arXiv 1606.00915, section 4.1.1).
        milestones: Where step multiplies by gamma, as fractions of the training in 0..1.
        gamma: Factor of step.
        final_factor: Final factor of cosine, in 0..1.
        min_factor: Lower bound of the factor.
        warmup_steps: Optimizer steps during which the factor rises from ``warmup_factor`` to 1.
        warmup_epochs: The same in epochs; one of the two must be 0.
        warmup_factor: Factor of the first step of the warm-up.
        warmup_power: Shape of the rise: 1 is linear; 2 is quadratic, as YOLOX does (arXiv 2107.08430's code).
    """

    name: Literal["poly", "cosine", "step", "constant"] = "poly"
    power: float = 0.9
    milestones: list[float] = field(default_factory=lambda: [0.3, 0.6, 0.9])
    gamma: float = 0.1
    final_factor: float = 0.0
    min_factor: float = 0.0
    warmup_steps: int = 0
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.01
    warmup_power: float = 1.0
