"""SPM: Strip Pooling: Rethinking Spatial Pooling for Scene Parsing.

Qibin Hou, Li Zhang, Ming-Ming Cheng, Jiashi Feng, 2020, https://arxiv.org/abs/2003.13328

Formula (section 3.1, equations 2 to 5), with a convolution of 3 weights per pair of channels for each
direction and a 1x1 convolution f, all C -> C with biases:

    u = conv_h(mean of x over the width)                 along the height
    v = conv_w(mean of x over the height)                along the width
    y[b,c,i,j] = x[b,c,i,j] · σ(f(u[b,:,i] + v[b,:,j]))[c]

This is the strip pooling module, which gates a map; the mixed pooling module of section 3.2, which the paper
puts behind the backbone, adds to a map instead and is not here.

The authors' code differs: a batch normalisation follows each of the two convolutions, and a rectifier their
sum. This file follows the paper; ``norm="bn"`` is the code. Without the rectifier f is linear in u and in v,
and is applied to the strips before they are expanded, at the cost of H + W positions instead of H · W.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.attention.kernels import strip_means
from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm1d
from attnlab.errors import AttnlabError


@register_attention(
    "spm",
    paper="https://arxiv.org/abs/2003.13328",
    title="Strip Pooling: Rethinking Spatial Pooling for Scene Parsing",
    year=2020,
)
class StripPooling(nn.Module):
    """Gate every value by the means of all channels in its row and in its column.

    Args:
        channels: Channels C of the map.
        norm: ``none`` is the paper's formula; ``bn`` is the authors' code, with batch normalisations of the
            strips and a rectifier of their sum.

    Raises:
        AttnlabError: If ``norm`` is neither.
    """

    def __init__(self, channels: int, norm: Literal["none", "bn"] = "none") -> None:
        super().__init__()
        if norm not in ("none", "bn"):
            raise AttnlabError(f"norm must be none or bn, got {norm!r}.")
        self.conv_h = nn.Conv1d(channels, channels, kernel_size=3, padding=1)
        self.conv_w = nn.Conv1d(channels, channels, kernel_size=3, padding=1)
        self.norm_h = BatchNorm1d(channels) if norm == "bn" else None
        self.norm_w = BatchNorm1d(channels) if norm == "bn" else None
        self.fuse = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        mean_h, mean_w = strip_means(x)
        strip_h, strip_w = self.conv_h(mean_h), self.conv_w(mean_w)  # (B,C,H), (B,C,W)
        if self.norm_h is not None and self.norm_w is not None:
            strip_h, strip_w = self.norm_h(strip_h), self.norm_w(strip_w)
            logits = self.fuse((strip_h.unsqueeze(3) + strip_w.unsqueeze(2)).relu())  # (B,C,H,W)
        else:
            logits_w = torch.conv2d(strip_w.unsqueeze(2), self.fuse.weight)  # (B,C,1,W); one bias is enough
            logits = self.fuse(strip_h.unsqueeze(3)) + logits_w  # (B,C,H,1) + (B,C,1,W) -> (B,C,H,W)
        return x * logits.sigmoid().to(x.dtype)
