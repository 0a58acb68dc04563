"""SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention.

Yunzhong Si, Huiying Xu, Xinzhong Zhu, Wenhao Zhang, Yao Dong, Yuxing Chen, Hongbo Li, 2024,
https://arxiv.org/abs/2407.05128

Formula. SMSA, the spatial attention, cuts the strip means into four sub-features of C/4 channels. Sub-feature
n has a depthwise convolution F_n of 3, 5, 7 or 9 taps, shared by both directions; the group normalisations
G_h and G_w have a group for each sub-feature, so that these do not mix:

    s_h = mean of x over the width       g_h = σ(G_h([F_1(s_h1); F_2(s_h2); F_3(s_h3); F_4(s_h4)]))
    s_w = mean of x over the height      g_w = σ(G_w([F_1(s_w1); F_2(s_w2); F_3(s_w3); F_4(s_w4)]))
    z[b,c,i,j] = x[b,c,i,j] · g_h[b,c,i] · g_w[b,c,j]

PCSA, the channel attention, averages z over windows of 7 x 7 and normalises the result as one group, G. Each
channel has one weight for each of query, key and value; D is the number of channels of a head:

    p = G(means of z over N windows)     q, k, v = w_q · p, w_k · p, w_v · p        (C,N) each
    a = softmax(q · kᵀ / √D) · v         rows and columns of a head
    y[b,c,i,j] = z[b,c,i,j] · σ(mean of a[b,c] over the windows)

The mean over the windows is taken of v, before the product, which is the same. Order, biases (the depthwise
convolutions have them, q, k and v not) and the single head are those of the authors' code; layers start as in
that code, which leaves them to torch. Its softmax gates and its other poolings are not here.

Channels that four does not divide have as many sub-features as their largest divisor below it, with the first
of the kernels; heads follow the same rule. Where windows do not fill the map, the authors' pooling drops what
is left at the end, and fails on maps that are smaller than a window. Here the last window takes the mean of
what lies inside the map, which is the same wherever theirs drops nothing. (Only ``torch.export`` with dynamic
sizes wants maps that are larger than a window.)

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W; N = h · w windows, E heads
of D = C/E channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.kernels import gate_strips, strip_means
from attnlab.attention.registry import register_attention
from attnlab.attention.rules import GroupNorm, largest_divisor, same_padding
from attnlab.errors import AttnlabError


@register_attention(
    "scsa",
    paper="https://arxiv.org/abs/2407.05128",
    title="SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention",
    year=2024,
)
class SpatialChannelSynergy(nn.Module):
    """Gate rows and columns at several scales, then every channel by its similarity to the others.

    Args:
        channels: Channels C of the map.
        kernel_sizes: Lengths of the strip convolutions, odd, one for each sub-feature. Paper: 3, 5, 7 and 9.
        window: Side of the windows that are averaged for the channel attention. Paper: 7.
        heads: Heads E; becomes the largest divisor of C not above it. Paper: 1.

    Raises:
        AttnlabError: If a kernel size is even, there is none, or ``window`` is below 1.
    """

    def __init__(
        self,
        channels: int,
        kernel_sizes: tuple[int, ...] = (3, 5, 7, 9),
        window: int = 7,
        heads: int = 1,
    ) -> None:
        super().__init__()
        if not kernel_sizes or window < 1:
            raise AttnlabError(
                f"At least one kernel size and a window of at least 1 are needed, got {kernel_sizes} and "
                f"{window}."
            )
        parts = largest_divisor(channels, at_most=len(kernel_sizes))
        part = channels // parts
        self.window, self.heads = window, largest_divisor(channels, at_most=heads)
        self.convs = nn.ModuleList(
            nn.Conv1d(part, part, size, padding=same_padding(size), groups=part)
            for size in kernel_sizes[:parts]
        )
        self.norm_h, self.norm_w = GroupNorm(parts, channels), GroupNorm(parts, channels)
        self.norm = GroupNorm(1, channels)
        self.query, self.key, self.value = (
            nn.Conv1d(channels, channels, kernel_size=1, groups=channels, bias=False) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        mean_h, mean_w = strip_means(x)  # (B,C,H), (B,C,W)
        gate_h, gate_w = self.norm_h(self.convolve(mean_h)), self.norm_w(self.convolve(mean_w))
        z = gate_strips(x, gate_h.sigmoid(), gate_w.sigmoid())
        return z * self.channel_gate(z).to(x.dtype)

    def convolve(self, strip: Tensor) -> Tensor:
        """Each sub-feature by its own kernel: (B,C,L) -> (B,C,L)."""
        parts = strip.chunk(len(self.convs), dim=1)
        return torch.cat([conv(parts[index]) for index, conv in enumerate(self.convs)], dim=1)

    def channel_gate(self, z: Tensor) -> Tensor:
        """Self-attention of the channels, pooled: (B,C,H,W) -> values in 0..1, (B,C,1,1)."""
        pooled = self.norm(_window_means(z, self.window).flatten(2))  # (B,C,N)
        query, key = (
            layer(pooled).unflatten(1, (self.heads, -1)) for layer in (self.query, self.key)
        )  # (B,E,D,N)
        value = self.value(pooled.mean(dim=2, keepdim=True)).unflatten(1, (self.heads, -1))  # (B,E,D,1)
        likeness = (query * query.shape[2] ** -0.5) @ key.transpose(2, 3)  # (B,E,D,D)
        return (likeness.softmax(dim=3) @ value.to(likeness.dtype)).flatten(1, 2).sigmoid().unsqueeze(3)


def _window_means(z: Tensor, window: int) -> Tensor:
    """(B,C,H,W) -> (B,C,h,w) with h = ⌈H/window⌉, w = ⌈W/window⌉."""
    if not torch.compiler.is_compiling():
        return F.avg_pool2d(z, window, ceil_mode=True)
    # Zeros at the end, and their share out again: torch.export cannot reason about the sizes of ceil_mode,
    # and inductor's gradient of windows that end outside the map is wrong (torch 2.15).
    pad = (0, window - 1, 0, window - 1)
    share = F.avg_pool2d(F.pad(z.new_ones(1, 1, z.shape[2], z.shape[3]), pad), window)  # (1,1,h,w)
    return F.avg_pool2d(F.pad(z, pad), window) / share


torch.fx.wrap("_window_means")  # a leaf, so that a traced graph, too, asks whether it is compiled
