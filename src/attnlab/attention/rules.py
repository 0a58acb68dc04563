"""Rules that all modules share where a paper's own rule does not apply.

Papers fix numbers (16 groups, a reduction of 32, 8 channels per group) for networks whose widths they divide.
For other widths:

* **Groups**: a number of groups, or of channels per group, that does not divide the channels becomes the
  largest divisor of the channels that is not above it (`largest_divisor`).
* **Reduction**: a reduced width is ``channels // reduction``, never below a stated minimum
  (`reduced_width`).
* **Kernels** are odd, so that the padding ``kernel_size // 2`` keeps the size (`same_padding`).
* **A single value**, where torch raises an error in training: a group's is normalised to 0, so that the
  output is the bias (`GroupNorm`); a channel's with the running statistics, as in evaluation
  (`BatchNorm1d`, `BatchNorm2d`).
* **Gates** have the dtype of the map they scale, so that autocast does not widen the activations.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional

from attnlab.errors import AttnlabError


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of ``number`` that is at most ``at_most``.

    Args:
        number: The number to divide, e.g. a module's channels.
        at_most: The requested divisor, e.g. 16 groups.

    Returns:
        The divisor; at least 1.

    Raises:
        AttnlabError: Either number is below 1.

    Examples:
        >>> largest_divisor(72, at_most=16)
        12
    """
    if number < 1 or at_most < 1:
        raise AttnlabError(
            f"Channels and groups must be at least 1, got {number} channels and {at_most} groups."
        )
    return next(divisor for divisor in range(min(number, at_most), 0, -1) if number % divisor == 0)


def reduced_width(channels: int, reduction: int, at_least: int = 1) -> int:
    """The width of a bottleneck: ``channels // reduction``, never below ``at_least``.

    Args:
        channels: Channels of the feature map.
        reduction: The ratio r of the paper.
        at_least: The smallest width allowed.

    Returns:
        The bottleneck's channels.

    Raises:
        AttnlabError: A number is below 1.
    """
    if min(channels, reduction, at_least) < 1:
        raise AttnlabError(
            f"Channels, reduction and minimum width must be at least 1, got {channels}, {reduction} and "
            f"{at_least}."
        )
    return max(at_least, channels // reduction)


def same_padding(kernel_size: int) -> int:
    """The padding that keeps the size for an odd kernel.

    Args:
        kernel_size: Side of the kernel.

    Returns:
        ``kernel_size // 2``.

    Raises:
        AttnlabError: The kernel size is even or below 1.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise AttnlabError(f"kernel_size must be odd to keep the map's size, got {kernel_size}.")
    return kernel_size // 2


class GroupNorm(nn.GroupNorm):
    """Group normalisation that also takes a single value per group in training.

    ``nn.GroupNorm`` raises an error if batch, length and channels per group are all 1, as for a 1x1 map of
    one image; the result is well defined (0 * weight + bias), as in larger batches.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B,C,*) over the channels of a group and all positions."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation of (B,C) or (B,C,L) that also takes a single value per channel in training.

    One value has no variance, and ``nn.BatchNorm1d`` raises an error. Such a batch is normalised as in
    evaluation, with the running mean and variance, and leaves those unchanged.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over all dimensions but the channels."""
        if isinstance(input, torch.fx.Proxy):
            return _as_a_leaf(self, input)
        return _as_in_evaluation(self, input) if _is_single(self, input) else super().forward(input)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of (B,C,H,W), as `BatchNorm1d`."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over all dimensions but the channels."""
        if isinstance(input, torch.fx.Proxy):
            return _as_a_leaf(self, input)
        return _as_in_evaluation(self, input) if _is_single(self, input) else super().forward(input)


def allow_single_values(module: nn.Module) -> int:
    """Give every BatchNorm in a module this rule, in place and with its weights; how many there were."""
    layers = [layer for layer in module.modules() if type(layer) is nn.BatchNorm2d]
    for layer in layers:
        layer.__class__ = BatchNorm2d
    return len(layers)


def _as_a_leaf(norm: nn.Module, input: torch.fx.Proxy) -> Any:
    """The layer's call in a graph of torch.fx, whole, as that of torch's own layers.

    Its way depends on the batch and on its mode, and its statistics change. A tracer takes only torch's own
    classes for leaves: here it would write down one way for all, and count a batch by itself.
    """
    tracer = cast(torch.fx.Tracer, input.tracer)
    return tracer.create_proxy("call_module", tracer.path_of_module(norm), (input,), {})


def _is_single(norm: nn.BatchNorm1d | nn.BatchNorm2d, input: Tensor) -> bool:
    return norm.training and input.numel() == norm.num_features


def _as_in_evaluation(norm: nn.BatchNorm1d | nn.BatchNorm2d, input: Tensor) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    return functional.batch_norm(input, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
