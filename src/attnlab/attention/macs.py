"""Multiply-accumulates (MACs), counted from shapes.

Convolutions and matrix products count; additions, products and means of maps, activations, normalisation and
pooling count as zero, as is usual for CNNs. One MAC is two FLOPs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Modules whose work is counted.
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def count_macs(module: nn.Module, *shape: int) -> int:
    """MACs of one call in evaluation with a tensor of a shape, e.g. ``1, 64, 56, 56``; see `macs_within`."""
    return macs_within(module, (), *shape)[0]


def macs_within(network: nn.Module, parts: Iterable[nn.Module], *shape: int) -> tuple[int, int]:
    """MACs of one call in evaluation, and those of them that are done in some of the network's modules.

    A copy runs on the ``meta`` device, without computing; where it stops there before all its weights were
    used, since a second stage looks at what depends on values, a copy runs on the CPU.

    Args:
        network: Takes one tensor. Not changed.
        parts: The modules in it.
        *shape: Shape of the tensor, e.g. ``1, 3, 224, 224``.

    Returns:
        The two counts. It raises what the network does, if it cannot run.
    """
    inside = {id(module) for module in parts}
    names = [name for name, module in network.named_modules() if id(module) in inside]
    try:
        return _count(network, names, shape, "meta")
    except (NotImplementedError, RuntimeError):
        if any(parameter.is_meta for parameter in network.parameters()):
            raise
        return _count(network, names, shape, "cpu")


def _count(network: nn.Module, names: list[str], shape: tuple[int, ...], device: str) -> tuple[int, int]:
    # On meta the weights are not copied, only what is known of them.
    known = [*network.parameters(), *network.buffers()] if device == "meta" else []
    probe = copy.deepcopy(network, {id(tensor): tensor.detach().to("meta") for tensor in known})
    probe.to(device, torch.float32).eval()
    spent = 0

    # The counter's own per-module table goes by names that a wrapper repeats, so the share is taken from
    # the running total before and after each part.
    counter = FlopCounterMode(display=False)
    before: list[int] = []

    def enter(module: nn.Module, args: object) -> None:
        before.append(counter.get_total_flops())

    def leave(module: nn.Module, args: object, output: object) -> None:
        nonlocal spent
        spent += counter.get_total_flops() - before.pop()

    for name in names:
        module = probe.get_submodule(name)
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    # Attention may use its weights without calling the modules that hold them.
    inside = {part for name in names for part in probe.get_submodule(name).modules()}
    unused = {module for module in probe.modules() if isinstance(module, _WEIGHTED)} - inside
    for module in unused:
        module.register_forward_hook(lambda module, args, output: unused.discard(module))
    with torch.no_grad(), counter:
        try:
            probe(torch.zeros(shape, device=device))
        except (NotImplementedError, RuntimeError):
            # A detector of one stage is through with its weights when it sorts out its boxes.
            if unused or not any(isinstance(module, _WEIGHTED) for module in probe.modules()):
                raise
    return counter.get_total_flops() // 2, spent // 2
