"""GAM: Global Attention Mechanism: Retain Information to Enhance Channel-Spatial Interactions.

Yichao Liu, Zongru Shao, Nico Hoffmann, 2021, https://arxiv.org/abs/2112.05561

Formula (equations 1 and 2), with a two-layer MLP C -> C/r -> C that is applied at every position (no
pooling), and 7x7 convolutions f1: C -> C/r and f2: C/r -> C, each with a batch normalisation:

    m_c = σ(MLP(channels of x at a position))            permuted to (B,H,W,C) and back
    x'  = x · m_c
    m_s = σ(BN(f2(relu(BN(f1(x'))))))
    y   = x' · m_s

An MLP at every position is a pair of 1x1 convolutions, which need no permutation. The paper's figure 2 has a
sigmoid after the MLP, which is followed; the widely copied code leaves it out. The batch normalisations and
the ReLU between the 7x7 convolutions are from that code, as the paper's figure 3 names the convolutions
only. Convolutions and MLP have biases.

For large networks (ResNet-50) the paper groups the 7x7 convolutions and shuffles channels. It does not say
where; as in that code, it is the channels of the finished gates m_s that are shuffled.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels, G groups.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import channel_shuffle

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm2d, largest_divisor, reduced_width, same_padding


@register_attention(
    "gam",
    paper="https://arxiv.org/abs/2112.05561",
    title="Global Attention Mechanism: Retain Information to Enhance Channel-Spatial Interactions",
    year=2021,
)
class GAM(nn.Module):
    """Gate every value by all channels of its position, then by the positions around it.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of both narrow layers, whose width is C // r, at least 1. Paper: 4.
        kernel_size: Side of the two convolutions, odd. Paper: 7.
        groups: Groups G of the two convolutions, whose gates are shuffled; becomes the largest divisor of C
            and of the reduced width not above it. Paper: 1; grouped on ResNet-50, with 4 in the widely copied
            code.
    """

    def __init__(self, channels: int, reduction: int = 4, kernel_size: int = 7, groups: int = 1) -> None:
        super().__init__()
        reduced, padding = reduced_width(channels, reduction), same_padding(kernel_size)
        self.groups = largest_divisor(math.gcd(channels, reduced), at_most=groups)
        self.reduce = nn.Conv2d(channels, reduced, kernel_size=1)
        self.expand = nn.Conv2d(reduced, channels, kernel_size=1)
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, reduced, kernel_size, padding=padding, groups=self.groups),
            BatchNorm2d(reduced),
            nn.ReLU(),
            nn.Conv2d(reduced, channels, kernel_size, padding=padding, groups=self.groups),
            BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        x = x * self.expand(self.reduce(x).relu()).sigmoid().to(x.dtype)  # (B,R,H,W) -> (B,C,H,W)
        gate = self.spatial(x).sigmoid()  # (B,C,H,W)
        if self.groups > 1:
            gate = channel_shuffle(gate, self.groups)
        return x * gate.to(x.dtype)
