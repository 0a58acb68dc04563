"""SA-Net: Shuffle Attention for Deep Convolutional Neural Networks.

Qing-Long Zhang, Yu-Bin Yang, 2021, https://arxiv.org/abs/2102.00240

Formula: the channels fall into G groups, and each group into two halves of D = C/2G channels. All groups
share six vectors of D values: w, b, v, d, and the weight and bias of the normalisation N:

    y1 = x1 · σ(w · mean of x1 over the map + b)         channel attention, equation 3
    y2 = x2 · σ(v · N(x2) + d)                           spatial attention, equation 4
    y  = channels of [y1; y2] of all groups, shuffled: the two halves of the whole are interleaved

N normalises each channel of the map by itself (a group norm of one channel a group).

Initial values are the authors': w = v = 0 and b = d = 1, so that every gate starts at σ(1).

Shapes: B batch, C channels, H height, W width, G groups, D = C/2G channels of a half.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.kernels import lay_out_like
from attnlab.attention.registry import register_attention
from attnlab.attention.rules import GroupNorm, largest_divisor
from attnlab.errors import AttnlabError


@register_attention(
    "sa",
    paper="https://arxiv.org/abs/2102.00240",
    title="SA-Net: Shuffle Attention for Deep Convolutional Neural Networks",
    year=2021,
)
class ShuffleAttention(nn.Module):
    """Gate one half of each channel group by channel, the other by position, and shuffle the channels.

    Args:
        channels: Channels C of the map; even, as a half of them takes each way.
        groups: Groups G; becomes the largest divisor of C/2 not above it. Paper: 64 for ResNets.

    Raises:
        AttnlabError: If ``channels`` is odd.
    """

    def __init__(self, channels: int, groups: int = 64) -> None:
        super().__init__()
        if channels % 2:
            raise AttnlabError(
                f"Shuffle attention halves the channels and needs an even number, got {channels}."
            )
        self.groups = largest_divisor(channels // 2, at_most=groups)
        half = channels // (2 * self.groups)
        self.channel_weight = nn.Parameter(torch.zeros(half, 1, 1))
        self.channel_bias = nn.Parameter(torch.ones(half, 1, 1))
        self.norm = GroupNorm(half, half)
        self.spatial_weight = nn.Parameter(torch.zeros(half, 1, 1))
        self.spatial_bias = nn.Parameter(torch.ones(half, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        batch, channels, height, width = x.shape
        by_channel, by_place = x.reshape(batch * self.groups, -1, height, width).chunk(2, dim=1)  # (BG,D,H,W)
        means = by_channel.mean(dim=(2, 3), keepdim=True)  # (BG,D,1,1)
        channel_gate = (self.channel_weight * means + self.channel_bias).sigmoid()
        place_gate = (self.spatial_weight * self.norm(by_place) + self.spatial_bias).sigmoid()  # (BG,D,H,W)
        gated = torch.cat([by_channel * channel_gate.to(x.dtype), by_place * place_gate.to(x.dtype)], dim=1)
        halves = gated.reshape(batch, 2, channels // 2, height, width)
        return lay_out_like(halves.transpose(1, 2).reshape(x.shape), x)  # the reshapes lose the layout
