"""scSE: Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks.

Abhijit Guha Roy, Nassir Navab, Christian Wachinger, 2018, https://arxiv.org/abs/1803.02579

Formula, with W1: C -> C/r, W2: C/r -> C and a 1x1 convolution f: C -> 1:

    cSE    y_c[b,c,i,j] = x[b,c,i,j] · σ(W2 · relu(W1 · mean of x over the map))[b,c]
    sSE    y_s[b,c,i,j] = x[b,c,i,j] · σ(f(x))[b,i,j]
    scSE   y = y_c + y_s

This paper adds the two. The authors' later one, on the same blocks (https://arxiv.org/abs/1808.08127, 2018),
compares ways to combine them and prefers the element-wise maximum, and their code takes the maximum:
``combine="max"`` here. segmentation_models_pytorch adds, with a reduction of 16. All layers have biases, as
in both codes.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import reduced_width

_named = partial(
    register_attention,
    paper="https://arxiv.org/abs/1803.02579",
    title="Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks",
    year=2018,
)


@_named("scse")
class ConcurrentSqueezeExcite(nn.Module):
    """Gate every channel and, beside it, every position, and put the two together.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of the channel gate's bottleneck, whose width is C // r, at least 1. Paper: 2.
        combine: How the two gated maps become one: ``add`` is the paper's; ``max``, the larger value of each
            element, is that of the authors' journal version and code.
    """

    def __init__(self, channels: int, reduction: int = 2, combine: Literal["add", "max"] = "add") -> None:
        super().__init__()
        self.channel = ChannelSqueezeExcite(channels, reduction)
        self.spatial = SpatialSqueezeExcite(channels)
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        by_channel, by_place = self.channel.gate(x), self.spatial.gate(x)  # (B,C,1,1) and (B,1,H,W)
        if self.combine == "add":
            return x * (by_channel + by_place)
        return torch.maximum(x * by_channel, x * by_place)


@_named("cse")
class ChannelSqueezeExcite(nn.Module):
    """The channel half of scSE by itself: squeeze-and-excitation with the paper's ratio.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of the bottleneck, whose width is C // r, at least 1. Paper: 2.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        reduced = reduced_width(channels, reduction)
        self.reduce = nn.Conv2d(channels, reduced, kernel_size=1)
        self.expand = nn.Conv2d(reduced, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """The gates of the channels: (B,C,H,W) -> (B,C,1,1)."""
        squeezed = x.mean(dim=(2, 3), keepdim=True)
        return self.expand(self.reduce(squeezed).relu()).sigmoid().to(x.dtype)


@_named("sse")
class SpatialSqueezeExcite(nn.Module):
    """The spatial half of scSE by itself: gate every position by its own channels.

    Args:
        channels: Channels C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """The gates of the positions: (B,C,H,W) -> (B,1,H,W)."""
        squeezed: Tensor = self.squeeze(x)
        return squeezed.sigmoid().to(x.dtype)
