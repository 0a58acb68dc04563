"""Multiply-accumulates of a module, counted from shapes."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(module: nn.Module, *shape: int) -> int:
    """Multiply-accumulates (MACs) of one call in evaluation.

    Convolutions and matrix products count; additions, products and means of maps, activations, normalisation
    and pooling count as zero, as is usual for CNNs. One MAC is two FLOPs.

    Args:
        module: A module that takes one tensor. A copy of it runs on the ``meta`` device, without computing.
        *shape: Shape of the tensor, e.g. ``1, 64, 56, 56``.

    Returns:
        The number of MACs.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        copy.deepcopy(module).to("meta").eval()(torch.empty(shape, device="meta"))
    return counter.get_total_flops() // 2
