"""ELA: Efficient Local Attention for Deep Convolutional Neural Networks.

Wei Xu, Yi Wan, 2024, https://arxiv.org/abs/2403.01123

Formula, with one convolution F and one group normalisation G for both directions::

    z_h = mean of x over the width       g_h = σ(G(F(z_h)))
    z_w = mean of x over the height      g_w = σ(G(F(z_w)))
    y[b,c,i,j] = x[b,c,i,j] · g_h[b,c,i] · g_w[b,c,j]

The channels are never reduced, and no statistic depends on the batch: the two weak points that the paper
finds in coordinate attention. The paper gives four sizes:

====== =========== ================== =========== ====================
name   kernel_size channels_per_group norm_groups meant for
====== =========== ================== =========== ====================
ela_t  5           1                  32          light networks
ela_b  7           1                  16          light to deep ones
ela_s  5           8                  16          deep networks
ela_l  7           8                  16          large networks
====== =========== ================== =========== ====================

timm's ``ela`` is another module: a convolution for each direction, and a SiLU before the gate.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import GroupNorm, largest_divisor, same_padding

_named = partial(
    register_attention,
    paper="https://arxiv.org/abs/2403.01123",
    title="ELA: Efficient Local Attention for Deep Convolutional Neural Networks",
    year=2024,
)


@_named("ela_l", kernel_size=7, channels_per_group=8, norm_groups=16)
@_named("ela_s", kernel_size=5, channels_per_group=8, norm_groups=16)
@_named("ela_b", kernel_size=7, channels_per_group=1, norm_groups=16)
@_named("ela_t", kernel_size=5, channels_per_group=1, norm_groups=32)
@_named("ela")
class ELA(nn.Module):
    """Gate every row and every column by its own strip mean, seen in its neighbourhood.

    Args:
        channels: Channels C of the map.
        kernel_size: Length k of the strip convolution, odd; no bias. Paper: 5 (T, S), 7 (B, L).
        channels_per_group: Channels that one group of the convolution mixes: 1 is depthwise, the paper's
            ``groups = C`` (T, B); 8 is the paper's ``groups = C/8`` (S, L). What does not divide C becomes
            the largest divisor of C not above it.
        norm_groups: Groups of the group normalisation, by the same divisor rule. Paper: 32 (T) or 16.
    """

    def __init__(
        self, channels: int, kernel_size: int = 7, channels_per_group: int = 1, norm_groups: int = 16
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            channels,
            channels,
            kernel_size,
            padding=same_padding(kernel_size),
            groups=channels // largest_divisor(channels, at_most=channels_per_group),
            bias=False,
        )
        self.norm = GroupNorm(largest_divisor(channels, at_most=norm_groups), channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        gate_h = self.gate(x.mean(dim=3)).to(x.dtype)  # (B,C,H)
        gate_w = self.gate(x.mean(dim=2)).to(x.dtype)  # (B,C,W)
        return x * gate_h.unsqueeze(3) * gate_w.unsqueeze(2)

    def gate(self, strip: Tensor) -> Tensor:
        """The gate of one direction: strip means (B,C,L) -> values in 0..1, (B,C,L)."""
        return self.norm(self.conv(strip)).sigmoid()
