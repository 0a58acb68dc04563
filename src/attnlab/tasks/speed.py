"""How a network is laid out and compiled: the same numbers but for rounding, sooner."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn


def memory_format(wanted: Literal["auto"] | bool, network: nn.Module) -> torch.memory_format:
    """The layout of images and weights.

    Args:
        wanted: The option. ``auto`` looks at the network's convolutions: see `suits_channels_last`.
        network: As built, attention attached.
    """
    last = suits_channels_last(network) if wanted == "auto" else wanted
    return torch.channels_last if last else torch.contiguous_format


def suits_channels_last(network: nn.Module) -> bool:
    """Whether the rule of ``auto`` lays a network out with its channels innermost."""
    return False


def compile_in_place(module: nn.Module) -> None:
    """Compile a module so that it stays the same module: the keys of its state dict do not change."""
    module.compile()
