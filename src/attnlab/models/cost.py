"""What a network costs, counted rather than timed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Modules whose work is counted.
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-accumulates of a network, and the attention's share of both.

    Attributes:
        parameters: Number of parameters.
        macs: Multiply-accumulates of the convolutions and matrix products of one forward pass of one image.
            Element-wise operations, normalisation and pooling count nothing.
        attention_parameters: Those parameters that are in attention modules.
        attention_macs: Those multiply-accumulates that are done in attention modules.
        size: Height and width of the image, in pixels.
    """

    parameters: int
    macs: int
    attention_parameters: int
    attention_macs: int
    size: tuple[int, int]

    def hparams(self) -> dict[str, int]:
        """The four counts by the names under which runs are compared."""
        return {f"cost.{name}": count for name, count in asdict(self).items() if name != "size"}

    def rows(self) -> list[tuple[str, str]]:
        """Label and figure of each line of a table."""
        height, width = self.size
        rows = [
            ("parameters", f"{self.parameters / 1e6:.3f} M"),
            (f"MACs at {height}x{width}", f"{self.macs / 1e9:.3f} G"),
        ]
        if self.attention_parameters or self.attention_macs:
            rows += [
                ("attention's parameters", share(self.attention_parameters, self.parameters, "k", 1e3)),
                ("attention's MACs", share(self.attention_macs, self.macs, "M", 1e6)),
            ]
        return rows


def share(part: int, whole: int, unit: str, scale: float) -> str:
    """A part in its unit, and as a share of the whole."""
    return f"{part / scale:.1f} {unit} ({100 * part / max(whole, 1):.2f}%)"


def measure_cost(network: nn.Module, attention: Iterable[nn.Module], size: tuple[int, int]) -> Cost:
    """Count a network's cost for one image.

    Args:
        network: (1, 3, H, W) -> anything. Not changed.
        attention: The attention modules in it.
        size: H and W of the image.
    """
    modules = list(attention)
    names = [name for name, module in network.named_modules() if any(module is m for m in modules)]
    try:
        macs, spent = _count(network, names, size, "meta")
    except (NotImplementedError, RuntimeError):
        # What a second stage looks at depends on values, which tensors on meta have not.
        macs, spent = _count(network, names, size, "cpu")
    own = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs,
        attention_parameters=sum(parameter.numel() for parameter in own.values()),
        attention_macs=spent,
        size=size,
    )


def _count(network: nn.Module, names: list[str], size: tuple[int, int], device: str) -> tuple[int, int]:
    """Multiply-accumulates of a network and of its modules of these names, run on a device.

    It raises what the network does there, if it stops before all weights were used.
    """
    # On meta the weights are not copied, only what is known of them.
    known = [*network.parameters(), *network.buffers()] if device == "meta" else []
    probe = copy.deepcopy(network, {id(tensor): tensor.detach().to("meta") for tensor in known})
    probe.to(device, torch.float32).eval()
    spent = 0

    # The counter's own per-module table goes by names that a wrapper repeats, so the share is taken from
    # the running total before and after each attention module.
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
            probe(torch.zeros(1, 3, *size, device=device))
        except (NotImplementedError, RuntimeError):
            # A detector of one stage is through with its weights when it sorts out its boxes.
            if unused:
                raise
    return counter.get_total_flops() // 2, spent // 2
