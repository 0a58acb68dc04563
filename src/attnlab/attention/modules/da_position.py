"""PAM: Dual Attention Network for Scene Segmentation: the position attention module.

Jun Fu, Jing Liu, Haijie Tian, Yong Li, Yongjun Bao, Zhiwei Fang, Hanqing Lu, 2018,
https://arxiv.org/abs/1809.02983

Formula (equations 1 and 2), with 1x1 convolutions b, c: C -> C/8 and d: C -> C, and all positions i:

    s_ji = softmax over i of b(x)_j · c(x)_i
    y_j  = α · Σ_i s_ji · d(x)_i + x_j                α is learned and starts at 0

The paper keeps the width C in b and c; the authors' code reduces it by 8, which this follows (1 keeps it, as
in the paper). Of the three biases in the code, that of c is left out: it adds the same to all logits of a
position, which the softmax does not see. The 3x3 convolutions around the module belong to the authors' head.

The softmax is one fused call whose logits are in float32; where the device has such a kernel for keys and
values of different widths, it never holds all N · N pairs.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels, N = H · W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import reduced_width


@register_attention(
    "da_position",
    paper="https://arxiv.org/abs/1809.02983",
    title="Dual Attention Network for Scene Segmentation",
    year=2018,
)
class PositionAttention(nn.Module):
    """Add to every position a mean over all positions, weighted by similarity.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of queries and keys, whose width is C // r, at least 1. Authors' code: 8.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        reduced = reduced_width(channels, reduction)
        self.query = nn.Conv2d(channels, reduced, kernel_size=1)
        self.key = nn.Conv2d(channels, reduced, kernel_size=1, bias=False)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        maps = self.query(x), self.key(x), self.value(x)
        # (B,1,N,R), (B,1,N,R), (B,1,N,C): the fused kernels want a head and contiguous rows.
        query, key, value = (each.flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for each in maps)
        means = F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)  # (B,N,C)
        return x + (self.alpha * means).transpose(1, 2).reshape(x.shape).to(x.dtype)
