"""CBAM: Convolutional Block Attention Module.

Sanghyun Woo, Jongchan Park, Joon-Young Lee, In So Kweon, 2018, https://arxiv.org/abs/1807.06521

Formula (equations 1 to 3), with one two-layer MLP for both poolings and a convolution f of size k x k:

    m_c = σ(MLP(mean of x over the map) + MLP(maximum of x over the map))
    x'  = x · m_c
    m_s = σ(f([mean of x' over the channels; maximum of x' over the channels]))
    y   = x' · m_s

The authors' code adds biases to the MLP and a batch normalisation after f; the formula has neither.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import reduced_width, same_padding


@register_attention(
    "cbam",
    paper="https://arxiv.org/abs/1807.06521",
    title="CBAM: Convolutional Block Attention Module",
    year=2018,
)
class CBAM(nn.Module):
    """Gate every channel, then every position.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of the MLP, whose width is C // r, at least 1. Paper: 16.
        kernel_size: Side k of the spatial convolution, odd; no bias. Paper: 7.
        bias: Whether the MLP has biases. The paper's formula has none.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7, bias: bool = False) -> None:
        super().__init__()
        reduced = reduced_width(channels, reduction)
        self.reduce = nn.Conv2d(channels, reduced, kernel_size=1, bias=bias)
        self.expand = nn.Conv2d(reduced, channels, kernel_size=1, bias=bias)
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=same_padding(kernel_size), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        mean, peak = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)  # (B,C,1,1) each
        x = x * (self.mlp(mean) + self.mlp(peak)).sigmoid().to(x.dtype)
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)  # (B,2,H,W)
        return x * self.spatial(pooled).sigmoid().to(x.dtype)  # (B,1,H,W)

    def mlp(self, pooled: Tensor) -> Tensor:
        """The shared MLP: (B,C,1,1) -> (B,C,1,1)."""
        return self.expand(self.reduce(pooled).relu())
