"""SRM: A Style-based Recalibration Module for Convolutional Neural Networks.

HyunJae Lee, Hyo-Eun Kim, Hyeonseob Nam, 2019, https://arxiv.org/abs/1903.10829

Formula, with two weights w[c] per channel and a batch normalisation N over the batch:

    μ = mean of x over the map,  σ = standard deviation of x over the map       style pooling
    z[b,c] = w[c,1] · μ[b,c] + w[c,2] · σ[b,c]
    y[b,c,i,j] = x[b,c,i,j] · sigmoid(N(z))[b,c]                                style integration

The variance is the mean of the squared deviations, as in the paper; the authors' code divides their sum by
HW - 1, which fails for a map of one position. As in that code, σ = sqrt(variance + 1e-5): where all values
are equal, or there is but one, σ is finite and so is its slope, which is 0. The weights w start at 0, as in
that code, so that every gate starts at 1/2.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm1d


@register_attention(
    "srm",
    paper="https://arxiv.org/abs/1903.10829",
    title="SRM: A Style-based Recalibration Module for Convolutional Neural Networks",
    year=2019,
)
class StyleRecalibration(nn.Module):
    """Gate every channel by its own mean and standard deviation.

    Args:
        channels: Channels C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 2))
        self.norm = BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)  # (B,C) each
        style = self.weight[:, 0] * mean + self.weight[:, 1] * (variance + 1e-5).sqrt()
        gate = self.norm(style).sigmoid().to(x.dtype)
        return x * gate[:, :, None, None]
