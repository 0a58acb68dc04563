"""CAM: Dual Attention Network for Scene Segmentation: the channel attention module.

Jun Fu, Jing Liu, Haijie Tian, Yong Li, Yongjun Bao, Zhiwei Fang, Hanqing Lu, 2018,
https://arxiv.org/abs/1809.02983

Formula (equations 3 and 4), with x_i the map of a channel as a vector of N positions, and all channels i:

    s_ji = softmax over i of x_i · x_j
    y_j  = β · Σ_i s_ji · x_i + x_j                   β is learned and starts at 0

The authors' code takes the softmax of max_i(x_i · x_j) - x_i · x_j instead, which is that of -x_i · x_j:
there a channel attends to those least like it, in the formula to those most like it. The two give different
results; the formula is the default here, the code's is an option.

The softmax is one fused call whose logits are in float32, as sums over a whole map overflow float16.

Shapes: B batch, C channels, H height, W width, N = H · W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.registry import register_attention


@register_attention(
    "da_channel",
    paper="https://arxiv.org/abs/1809.02983",
    title="Dual Attention Network for Scene Segmentation",
    year=2018,
)
class ChannelAttention(nn.Module):
    """Add to every channel a mean over all channels, weighted by similarity.

    Args:
        channels: Channels C of the map; the module has one parameter at any width.
        unlike: Weight by dissimilarity instead, as in the authors' code. Paper: false.
    """

    def __init__(self, channels: int, unlike: bool = False) -> None:
        super().__init__()
        self.unlike = unlike
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        rows = x.flatten(2).unsqueeze(1)  # (B,1,C,N): a token is a channel
        query = -rows if self.unlike else rows
        means = F.scaled_dot_product_attention(query, rows, rows, scale=1.0)  # (B,1,C,N)
        return x + (self.beta * means).reshape(x.shape).to(x.dtype)
