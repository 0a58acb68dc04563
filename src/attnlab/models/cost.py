"""The cost of a network: parameters and MACs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from torch import nn

from attnlab.attention.macs import macs_within


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-accumulates (MACs) of a network, and attention's share of both.

    Attributes:
        parameters: Number of parameters.
        macs: MACs of the convolutions and matrix products in a forward pass of one image. Element-wise
            operations, normalisation and pooling are not counted.
        attention_parameters: Parameters of attention modules.
        attention_macs: MACs of attention modules.
        size: Height and width of the image, in pixels.
    """

    parameters: int
    macs: int
    attention_parameters: int
    attention_macs: int
    size: tuple[int, int]

    def hparams(self) -> dict[str, int]:
        """The four counts, by hyperparameter name."""
        return {f"cost.{name}": count for name, count in asdict(self).items() if name != "size"}

    def rows(self) -> list[tuple[str, str]]:
        """Label and figure of each row of a table."""
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
    """A part in a unit, and as a share of the whole."""
    return f"{part / scale:.1f} {unit} ({100 * part / max(whole, 1):.2f}%)"


def measure_cost(network: nn.Module, attention: Iterable[nn.Module], size: tuple[int, int]) -> Cost:
    """Count a network's cost for one image.

    Args:
        network: (1, 3, H, W) -> anything. Not modified.
        attention: The attention modules in it.
        size: H and W of the image.
    """
    modules = list(attention)
    macs, spent = macs_within(network, modules, 1, 3, *size)
    own = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs,
        attention_parameters=sum(parameter.numel() for parameter in own.values()),
        attention_macs=spent,
        size=size,
    )
