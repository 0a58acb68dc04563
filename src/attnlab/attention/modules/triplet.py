"""Triplet attention: Rotate to Attend: Convolutional Triplet Attention Module.

Diganta Misra, Trikay Nalamada, Ajay Uppili Arasanipalai, Qibin Hou, 2020, https://arxiv.org/abs/2010.03045

Formula (section 3): Z-pool over a dimension stacks the maximum and the mean over it; each of three
branches has its own convolution ψ: 2 -> 1 of size k x k and batch normalisation N:

    g_cw = σ(N1(ψ1(Z-pool of x over the height)))       a map over C and W
    g_ch = σ(N2(ψ2(Z-pool of x over the width)))        a map over C and H
    g_hw = σ(N3(ψ3(Z-pool of x over the channels)))     a map over H and W
    y[b,c,i,j] = x[b,c,i,j] · (g_cw[b,c,j] + g_ch[b,c,i] + g_hw[b,i,j]) / 3

The paper rotates the map for the first two branches, and the gated maps back. Rotated copies hold the same
numbers, so none is made here: the maps over C and W, and over C and H, are strips of the map as it lies. The
authors' code agrees with the formula; its ``no_spatial`` (the third branch left out, a mean of two) is
``spatial=False`` here. Its batch normalisations have a momentum of 0.01, as these have; the paper gives none.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.kernels import strip_means
from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm2d, same_padding


@register_attention(
    "triplet",
    paper="https://arxiv.org/abs/2010.03045",
    title="Rotate to Attend: Convolutional Triplet Attention Module",
    year=2020,
)
class TripletAttention(nn.Module):
    """Gate every pair of a channel and a column, of a channel and a row, and of a row and a column.

    Args:
        channels: Channels C of the map; the module has the same layers at any number.
        kernel_size: Side k of the convolutions, odd. Paper: 7.
        spatial: Whether there is a branch over H and W. Paper: yes; without it, two branches are averaged.
    """

    def __init__(self, channels: int, kernel_size: int = 7, spatial: bool = True) -> None:
        super().__init__()
        self.gate_cw = _gate(kernel_size)
        self.gate_ch = _gate(kernel_size)
        self.gate_hw = _gate(kernel_size) if spatial else None

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        mean_h, mean_w = strip_means(x)  # (B,C,H), (B,C,W)
        peak_h, peak_w = x.max(dim=3).values, x.max(dim=2).values
        gate_cw = self.gate_cw(torch.stack([peak_w, mean_w], dim=1)).squeeze(1).unsqueeze(2)  # (B,C,1,W)
        gate_ch = self.gate_ch(torch.stack([peak_h, mean_h], dim=1)).squeeze(1).unsqueeze(3)  # (B,C,H,1)
        gates = [gate_cw, gate_ch]
        if self.gate_hw is not None:
            gates.append(self.gate_hw(torch.stack([x.max(dim=1).values, x.mean(dim=1)], dim=1)))  # (B,1,H,W)
        # Divided while they are small: their sum is as large as x.
        first, *others = [(gate / len(gates)).to(x.dtype) for gate in gates]
        return x * sum(others, first)


def _gate(kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(2, 1, kernel_size, padding=same_padding(kernel_size), bias=False)
    return nn.Sequential(conv, BatchNorm2d(1, momentum=0.01), nn.Sigmoid())
