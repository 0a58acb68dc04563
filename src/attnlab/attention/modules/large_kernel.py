"""LKA: Visual Attention Network.

Meng-Hao Guo, Cheng-Ze Lu, Zheng-Ning Liu, Ming-Ming Cheng, Shi-Min Hu, 2022, https://arxiv.org/abs/2202.09741

Formula of its large kernel attention, with a depthwise convolution f1 of (2d-1) x (2d-1), a depthwise
convolution f2 of ⌈K/d⌉ x ⌈K/d⌉ and dilation d, and a 1x1 convolution f3, all with biases and zeros outside:

    a = f3(f2(f1(x)))
    y = x · a                                            no sigmoid

Together f1 and f2 see a square somewhat larger than K x K: 23 x 23 for K = 21 and d = 3. The layers start as
in the authors' code: weights normal with variance 2 over the inputs of an output, biases 0. That code also
has, around this module, 1x1 convolutions, a GELU, a residual and a layer scale of 0.01: they are the
network's block, not LKA. As no sigmoid bounds the gates, ``mode: rezero`` is the gentle way to put LKA into
a trained network.

Shapes: B batch, C channels, H height, W width, K kernel, d dilation.
"""

from __future__ import annotations

from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.errors import AttnlabError


@register_attention(
    "lka", paper="https://arxiv.org/abs/2202.09741", title="Visual Attention Network", year=2022
)
class LargeKernelAttention(nn.Module):
    """Scale every value by a decomposed large convolution of the map.

    Args:
        channels: Channels C of the map.
        kernel_size: Side K of the kernel that is decomposed. Paper: 21; its ablation has 7, 14 and 28 too.
        dilation: Dilation d. Paper: 3; in its ablation 2 with K = 7 and 4 with K = 28.

    Raises:
        AttnlabError: If ``kernel_size`` or ``dilation`` is below 1, or if ⌈K/d⌉ is even and d odd: then
            nothing can be padded alike on both sides to keep the size.
    """

    def __init__(self, channels: int, kernel_size: int = 21, dilation: int = 3) -> None:
        super().__init__()
        if min(kernel_size, dilation) < 1:
            raise AttnlabError(
                f"kernel_size and dilation must be at least 1, got {kernel_size} and {dilation}."
            )
        taps = -(-kernel_size // dilation)
        reach = dilation * (taps - 1)
        if reach % 2:
            raise AttnlabError(
                f"kernel_size {kernel_size} at dilation {dilation} gives {taps} taps over {reach + 1} "
                "positions, which have no centre: choose an even dilation, or an odd kernel_size / dilation "
                "(rounded up)."
            )
        self.local = nn.Conv2d(channels, channels, 2 * dilation - 1, padding=dilation - 1, groups=channels)
        self.distant = nn.Conv2d(
            channels, channels, taps, padding=reach // 2, dilation=dilation, groups=channels
        )
        self.mix = nn.Conv2d(channels, channels, kernel_size=1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        attention = self.mix(self.distant(self.local(x)))  # (B,C,H,W)
        return x * attention.to(x.dtype)
