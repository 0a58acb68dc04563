"""EMA: Efficient Multi-Scale Attention Module with Cross-Spatial Learning.

Daliang Ouyang, Su He, Guozhong Zhang, Mingzhu Luo, Huaiyong Guo, Jian Zhan, Zhijie Huang, 2023,
https://arxiv.org/abs/2305.13563

Formula: the channels fall into G groups x of D = C/G; all groups share a 1x1 convolution f, a normalisation N
and a 3x3 convolution F, D -> D, with biases:

    a[d,i] = σ(f(mean of x over the width)),  b[d,j] = σ(f(mean of x over the height))
    u = N(x · a · b)                                 each channel of the map by itself
    v = F(x)
    p = softmax over d of (mean of u over the map),  q = softmax over d of (mean of v over the map)
    y[d,i,j] = x[d,i,j] · σ(Σ_e p[e] v[e,i,j] + Σ_e q[e] u[e,i,j])

The computation is shorter than that. The mean of a channel after N is the bias of N, so that p is the same
for all images and groups, and Σ p v is a convolution of x to one channel, with the kernel Σ p F. The mean of
v comes from nine sums over x without its border rows and columns. v itself, D times the work, is never made.

The authors' code agrees with the formula. Its number of groups is 32 wherever it is written; copies of it
elsewhere often have 8. It asks for 32 channels or more, and where there are fewer, or 32 does not divide
them, G is the largest divisor of C not above 32. One channel a group leaves each softmax 1.

Shapes: B batch, C channels, H height, W width, G groups, D = C/G channels of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.kernels import gate_strips, strip_means
from attnlab.attention.registry import register_attention
from attnlab.attention.rules import GroupNorm, largest_divisor


@register_attention(
    "ema",
    paper="https://arxiv.org/abs/2305.13563",
    title="Efficient Multi-Scale Attention Module with Cross-Spatial Learning",
    year=2023,
)
class EfficientMultiScaleAttention(nn.Module):
    """Gate every position of each channel group by a branch over strips and a branch over 3x3 windows.

    Args:
        channels: Channels C of the map.
        groups: Groups G; what does not divide C becomes its largest divisor not above it. Authors' code: 32.
    """

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.groups = largest_divisor(channels, at_most=groups)
        width = channels // self.groups
        self.conv_strips = nn.Conv1d(width, width, kernel_size=1)
        self.norm = GroupNorm(width, width)
        self.conv_window = nn.Conv2d(width, width, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        split, height = (self.groups, -1), x.shape[2]
        mean_h, mean_w = strip_means(x)  # (B,C,H), (B,C,W)
        strips = torch.cat([mean_h, mean_w], dim=2).unflatten(1, split).flatten(0, 1)  # (BG,D,H+W)
        gates = self.conv_strips(strips).sigmoid().reshape(x.shape[0], x.shape[1], -1)  # (B,C,H+W)
        gated = gate_strips(x, gates[:, :, :height], gates[:, :, height:])
        weight, bias = self.norm.weight.repeat(self.groups), self.norm.bias.repeat(self.groups)
        normal = torch.group_norm(gated, x.shape[1], weight, bias, self.norm.eps)  # (B,C,H,W)

        strip_share = self.norm.bias.softmax(dim=0)  # (D,): p of the formula
        window_share = self._window_means(x, mean_w).softmax(dim=2)  # (B,G,D): q of the formula
        assert self.conv_window.bias is not None
        kernel = torch.einsum("d,deij->eij", strip_share, self.conv_window.weight).repeat(
            self.groups, 1, 1, 1
        )
        offset = (strip_share * self.conv_window.bias).sum().expand(self.groups)
        from_window = torch.conv2d(x, kernel, offset, padding=1, groups=self.groups)  # (B,G,H,W)
        from_strips = torch.einsum(
            "bgdhw,bgd->bghw", normal.unflatten(1, split), window_share.to(normal.dtype)
        )
        gate = (from_window + from_strips).sigmoid().to(x.dtype).unsqueeze(2)  # (B,G,1,H,W)
        return (x.unflatten(1, split) * gate).flatten(1, 2)

    def _window_means(self, x: Tensor, mean_w: Tensor) -> Tensor:
        """The means over the map of its 3x3 convolution (B,G,D): a tap misses a border row and column."""
        height, width = x.shape[2:]
        rows = torch.stack([mean_w - x[:, :, -1] / height, mean_w, mean_w - x[:, :, 0] / height], dim=2)
        whole = rows.mean(dim=3)  # (B,C,3)
        taps = torch.stack([whole - rows[..., -1] / width, whole, whole - rows[..., 0] / width], dim=3)
        grouped = taps.unflatten(1, (self.groups, -1)).flatten(2)  # (B,G,9D)
        return nn.functional.linear(grouped, self.conv_window.weight.flatten(1), self.conv_window.bias)
