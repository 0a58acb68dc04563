"""CA: Coordinate Attention for Efficient Mobile Network Design.

Qibin Hou, Daquan Zhou, Jiashi Feng, 2021, https://arxiv.org/abs/2103.02907

Formula (equations 4 to 9), with 1x1 convolutions F1: C -> C/r and F_h, F_w: C/r -> C, a normalisation N and
the activation δ = hard-swish:

    z_h = mean of x over the width,  z_w = mean of x over the height
    [f_h; f_w] = δ(N(F1([z_h; z_w])))            one sequence of H + W positions
    y[b,c,i,j] = x[b,c,i,j] · σ(F_h(f_h))[b,c,i] · σ(F_w(f_w))[b,c,j]

The paper leaves δ open ("non-linear"); hard-swish is the authors' code.

The ELA paper traces the weak points of this module to its batch normalisation and to its reduction of the
channels: both are options here, so that the analysis can be run.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.attention.kernels import gate_strips, strip_means
from attnlab.attention.registry import register_attention
from attnlab.attention.rules import GroupNorm, largest_divisor, reduced_width


@register_attention(
    "ca",
    paper="https://arxiv.org/abs/2103.02907",
    title="Coordinate Attention for Efficient Mobile Network Design",
    year=2021,
)
class CoordinateAttention(nn.Module):
    """Gate every row and every column, by strips that share one narrow layer.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of the shared layer, whose width is C // r, at least ``min_channels``; 1 keeps all
            channels. Paper: 32.
        norm: What normalises the shared layer: ``bn``, batch normalisation, is the paper's; ``gn`` is group
            normalisation; ``none`` leaves it out.
        min_channels: Smallest width of the shared layer. Authors' code: 8.
        norm_groups: Groups of ``gn``; what does not divide the reduced width becomes its largest divisor not
            above it. Not in the paper; 16 is ELA's.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 32,
        norm: Literal["bn", "gn", "none"] = "bn",
        min_channels: int = 8,
        norm_groups: int = 16,
    ) -> None:
        super().__init__()
        reduced = reduced_width(channels, reduction, at_least=min_channels)
        self.reduce = nn.Conv1d(channels, reduced, kernel_size=1)
        self.norm: nn.Module
        if norm == "bn":
            self.norm = nn.BatchNorm1d(reduced)
        elif norm == "gn":
            self.norm = GroupNorm(largest_divisor(reduced, at_most=norm_groups), reduced)
        else:
            self.norm = nn.Identity()
        self.act = nn.Hardswish()
        self.expand_h = nn.Conv1d(reduced, channels, kernel_size=1)
        self.expand_w = nn.Conv1d(reduced, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        height, width = x.shape[2:]
        strips = torch.cat(strip_means(x), dim=2)  # (B,C,H+W)
        shared = self.act(self.norm(self.reduce(strips)))  # (B,R,H+W)
        shared_h, shared_w = shared.split([height, width], dim=2)
        gate_h = self.expand_h(shared_h).sigmoid()  # (B,C,H)
        gate_w = self.expand_w(shared_w).sigmoid()  # (B,C,W)
        return gate_strips(x, gate_h, gate_w)
