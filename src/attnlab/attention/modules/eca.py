"""ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks.

Qilong Wang, Banggu Wu, Pengfei Zhu, Peihua Li, Wangmeng Zuo, Qinghua Hu, 2019,
https://arxiv.org/abs/1910.03151

Formula, with a convolution of k weights along the channels:

    z = mean of x over the map
    s = σ(conv_k(z))                       each channel sees its k neighbours
    y[b,c,i,j] = x[b,c,i,j] · s[b,c]
    k = the odd number that belongs to |(log2 C + b) / γ|      (equation 12)

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import same_padding


def adaptive_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    """The kernel that the paper gives to a width (equation 12).

    Args:
        channels: Channels C.
        gamma: γ of the paper.
        b: b of the paper.

    Returns:
        The whole part of abs((log2 C + b) / γ), plus one if that is even.
    """
    whole = int(abs((math.log2(channels) + b) / gamma))
    return whole if whole % 2 else whole + 1


@register_attention(
    "eca",
    paper="https://arxiv.org/abs/1910.03151",
    title="ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
    year=2019,
)
class ECA(nn.Module):
    """Gate every channel by the means of its neighbours in the channel order.

    Args:
        channels: Channels C of the map.
        kernel_size: Channels k that a gate sees, odd; None, the paper's way, computes it from C.
        gamma: γ of the rule for k; not used if k is given. Paper: 2.
        b: b of the rule for k; not used if k is given. Paper: 1.
    """

    def __init__(self, channels: int, kernel_size: int | None = None, gamma: float = 2, b: float = 1) -> None:
        super().__init__()
        size = adaptive_kernel_size(channels, gamma, b) if kernel_size is None else kernel_size
        self.conv = nn.Conv1d(1, 1, size, padding=same_padding(size), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        means = x.mean(dim=(2, 3)).unsqueeze(1)  # (B,1,C)
        gate = self.conv(means).sigmoid().to(x.dtype)  # (B,1,C)
        return x * gate.transpose(1, 2).unsqueeze(3)  # (B,C,1,1)
