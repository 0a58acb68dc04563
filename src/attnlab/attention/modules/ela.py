"""ELA: Efficient Local Attention for Deep Convolutional Neural Networks.

Wei Xu, Yi Wan, 2024, https://arxiv.org/abs/2403.01123

Formula, with one convolution F and one group normalisation G for both directions:

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

On the CPU and on GPUs all of it is one operation that reads the map twice and writes it once, and keeps for
the backward pass little more than the map (`attnlab.attention.kernels.ela`); the formula as layers reads
and writes it some nine times. ``implementation="formula"`` is the latter: hooks on ``conv`` and ``norm`` see
their calls, and exported graphs are made of ordinary operations (``auto`` exports these too).

timm's ``ela`` is another module: a convolution for each direction, and a SiLU before the gate.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from attnlab.attention.kernels import gate_strips, strip_means
from attnlab.attention.kernels.choice import Implementation, check_implementation
from attnlab.attention.kernels.ela import ela, exporting, register_flops
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
    """Gate every row and column by strip means of its neighbourhood.

    Args:
        channels: Channels C of the map.
        kernel_size: Length k of the strip convolution, odd; no bias. Paper: 5 (T, S), 7 (B, L).
        channels_per_group: Channels that one group of the convolution mixes: 1 is depthwise, the paper's
            ``groups = C`` (T, B); 8 is the paper's ``groups = C/8`` (S, L). If it does not divide C, the
            largest smaller divisor of C is used.
        norm_groups: Groups of the group normalisation, by the same divisor rule. Paper: 32 (T) or 16.
        implementation: How it is computed, with the same result: ``formula`` uses ordinary operations;
            ``fused`` is one operation in plain torch, ``triton`` in GPU kernels; ``auto`` takes ``triton`` on
            a GPU if installed, else ``fused``.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        channels_per_group: int = 1,
        norm_groups: int = 16,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        check_implementation(implementation)
        if implementation != "formula":
            register_flops()
        self.implementation = implementation
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
        if self.implementation == "formula" or (self.implementation == "auto" and exporting()):
            mean_h, mean_w = strip_means(x)
            return gate_strips(x, self.gate(mean_h), self.gate(mean_w))
        norm = self.norm
        return ela(
            *(x, self.conv.weight, norm.weight, norm.bias, norm.num_groups, norm.eps, self.implementation)
        )

    def gate(self, strip: Tensor) -> Tensor:
        """The gate of one direction: strip means (B,C,L) -> values in 0..1, (B,C,L)."""
        return self.norm(self.conv(strip)).sigmoid()
