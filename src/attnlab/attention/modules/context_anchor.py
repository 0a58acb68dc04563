"""CAA: Poly Kernel Inception Network for Remote Sensing Detection.

Xinhao Cai, Qiuxia Lai, Yuwei Wang, Wenguan Wang, Zeren Sun, Yazhou Yao, 2024,
https://arxiv.org/abs/2403.06258

Formula of PKINet's context anchor attention, with a mean P over windows of 7 x 7 at every position, 1x1
convolutions f1 and f2, and depthwise convolutions of 1 x k and k x 1; all convolutions have biases:

    z = column(row(f1(P(x))))
    y = x · σ(f2(z))

The paper has no normalisation nor activation between the layers, and neither has the network of the authors:
their class CAA has BN and SiLU after the 1x1 convolutions by default, but PKINet builds it with ``None`` for
both. Paper and trained network are followed; copies that use the defaults of the class are another module
(whose last SiLU also holds every gate above 0.43).

In PKINet the attention is computed from the input of an inception block and scales the output of its
kernels; a drop-in has one map only, so that here it scales the map it is computed from. Zeros outside the
map count in P, as in the authors' code.

Shapes: B batch, C channels, H height, W width, k strip kernel.
"""

from __future__ import annotations

from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import same_padding


@register_attention(
    "caa",
    paper="https://arxiv.org/abs/2403.06258",
    title="Poly Kernel Inception Network for Remote Sensing Detection",
    year=2024,
)
class ContextAnchorAttention(nn.Module):
    """Gate every value by long strips of local means.

    Args:
        channels: Channels C of the map.
        h_kernel_size: Length k of the convolution along the rows, odd. Paper: 11 in the first block of a
            stage, and 2 more in each next one.
        v_kernel_size: Length k of the convolution along the columns, odd. Paper: the same.
        pool_size: Side of the windows of P, odd. Paper: 7.
    """

    def __init__(
        self, channels: int, h_kernel_size: int = 11, v_kernel_size: int = 11, pool_size: int = 7
    ) -> None:
        super().__init__()
        h_padding, v_padding = same_padding(h_kernel_size), same_padding(v_kernel_size)
        self.pool = nn.AvgPool2d(pool_size, stride=1, padding=same_padding(pool_size))
        self.before = nn.Conv2d(channels, channels, kernel_size=1)
        self.row = nn.Conv2d(channels, channels, (1, h_kernel_size), padding=(0, h_padding), groups=channels)
        self.column = nn.Conv2d(
            channels, channels, (v_kernel_size, 1), padding=(v_padding, 0), groups=channels
        )
        self.after = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        strips = self.column(self.row(self.before(self.pool(x))))  # (B,C,H,W)
        return x * self.after(strips).sigmoid().to(x.dtype)
