"""SE: Squeeze-and-Excitation Networks.

Jie Hu, Li Shen, Samuel Albanie, Gang Sun, Enhua Wu, 2017, https://arxiv.org/abs/1709.01507

Formula (equations 2 to 4), with W1: C -> C/r and W2: C/r -> C:

    z = mean of x over the map
    s = σ(W2 · relu(W1 · z))
    y[b,c,i,j] = x[b,c,i,j] · s[b,c]

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import reduced_width


@register_attention(
    "se", paper="https://arxiv.org/abs/1709.01507", title="Squeeze-and-Excitation Networks", year=2017
)
class SqueezeExcite(nn.Module):
    """Gate every channel by the means of all channels.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of the bottleneck, whose width is C // r, at least 1. Paper: 16.
        bias: Whether the two layers have biases. The paper's formula has none; most trained networks do.
    """

    def __init__(self, channels: int, reduction: int = 16, bias: bool = True) -> None:
        super().__init__()
        reduced = reduced_width(channels, reduction)
        self.reduce = nn.Conv2d(channels, reduced, kernel_size=1, bias=bias)
        self.expand = nn.Conv2d(reduced, channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        squeezed = x.mean(dim=(2, 3), keepdim=True)  # (B,C,1,1)
        excited = self.expand(self.reduce(squeezed).relu())  # (B,R,1,1) -> (B,C,1,1)
        return x * excited.sigmoid().to(x.dtype)
