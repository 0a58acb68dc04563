"""SGE: Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks.

Xiang Li, Xiaolin Hu, Jian Yang, 2019, https://arxiv.org/abs/1905.09646

Formula: the channels fall into G groups; x_p is the vector of a group's D = C/G channels at position p, and
each group has a scale γ and a bias β:

    g = mean of x_p over the positions c_p = g · x_p similarity of the position to the whole ĉ_p = (c_p - μ) /
    (s + ε) μ, s: mean and standard deviation of c over the map y_p = x_p · σ(γ ĉ_p + β)

γ starts at 0 and β at 1, as in the paper, so that every gate starts at σ(1). s² is the mean of the squared
deviations, as in the paper; the authors' code divides their sum by HW - 1, which fails for a map of one
position. ε is that code's 1e-5; where all c are equal, s and its slope are taken as 0.

Shapes: B batch, C channels, H height, W width, G groups, D = C/G channels of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import largest_divisor


@register_attention(
    "sge",
    paper="https://arxiv.org/abs/1905.09646",
    title="Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks",
    year=2019,
)
class SpatialGroupEnhance(nn.Module):
    """Gate every position of each channel group by its similarity to the group's mean.

    Args:
        channels: Channels C of the map.
        groups: Groups G; what does not divide C becomes its largest divisor not above it. Paper: 64; 8 to 64
            in its ablation.
    """

    def __init__(self, channels: int, groups: int = 64) -> None:
        super().__init__()
        self.groups = largest_divisor(channels, at_most=groups)
        self.weight = nn.Parameter(torch.zeros(self.groups, 1, 1, 1))
        self.bias = nn.Parameter(torch.ones(self.groups, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        grouped = x.unflatten(1, (self.groups, -1))  # (B,G,D,H,W)
        likeness = (grouped * grouped.mean(dim=(3, 4), keepdim=True)).sum(dim=2, keepdim=True)  # (B,G,1,H,W)
        centred = likeness - likeness.mean(dim=(3, 4), keepdim=True)
        # The norm takes half the time of torch.std, and its slope at 0 is 0 too.
        length = torch.linalg.vector_norm(centred, dim=(3, 4), keepdim=True)  # (B,G,1,1,1)
        normal = centred / (length / (x.shape[2] * x.shape[3]) ** 0.5 + 1e-5)
        gate = (self.weight * normal + self.bias).sigmoid().to(x.dtype)
        return (grouped * gate).flatten(1, 2)
