"""No attention: the baseline of every comparison.

Formula: y = x
"""

from __future__ import annotations

from torch import Tensor, nn

from attnlab.attention.registry import register_attention


@register_attention("none", title="No attention: the baseline")
class NoAttention(nn.Module):
    """Return the map unchanged.

    ``attach`` inserts nothing for it, so a baseline differs in one word of YAML.

    Args:
        channels: Channels C of the map; not used.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W), the same tensor."""
        return x
