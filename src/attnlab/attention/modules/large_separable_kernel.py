"""LSKA: Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN.

Kin Wai Lau, Lai-Man Po, Yasar Abbas Ur Rehman, 2023, https://arxiv.org/abs/2309.01439

Formula: each of the two depthwise convolutions of LKA becomes a row and a column convolution, of 2d-1 and of
⌊K/d⌋ taps with dilation d; f is a 1x1 convolution; all have biases, and zeros lie outside:

    u = column(row(x))                                   2d-1 taps each
    v = column'(row'(u))                                 ⌊K/d⌋ taps each, dilation d
    y = x · f(v)                                         no sigmoid

As in the authors' code, d is 2 up to K = 11 and 3 above, and the layers start with normal weights of
variance 2 over the inputs of an output and biases of 0. That code also has, around this module, 1x1
convolutions, a GELU, a residual and a layer scale of 0.01: they are the block of the network (VAN), not
LSKA.

Shapes: B batch, C channels, H height, W width, K kernel, d dilation.
"""

from __future__ import annotations

from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.errors import AttnlabError

DILATIONS = {7: 2, 11: 2, 23: 3, 35: 3, 41: 3, 53: 3}


@register_attention(
    "lska",
    paper="https://arxiv.org/abs/2309.01439",
    title="Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN",
    year=2023,
)
class LargeSeparableKernelAttention(nn.Module):
    """Scale every value by a large convolution of the map, decomposed into rows and columns.

    Args:
        channels: Channels C of the map.
        kernel_size: Side K of the kernel that is decomposed: 7, 11, 23, 35 or 53, which the paper has, or 41,
            which only the authors' code has. Paper: 23 for the weights that the authors published.

    Raises:
        AttnlabError: If ``kernel_size`` is none of these.
    """

    def __init__(self, channels: int, kernel_size: int = 23) -> None:
        super().__init__()
        if kernel_size not in DILATIONS:
            raise AttnlabError(f"kernel_size must be one of {sorted(DILATIONS)}, got {kernel_size}.")
        dilation = DILATIONS[kernel_size]

        def row(taps: int, dilation: int) -> nn.Conv2d:
            padding = (0, dilation * (taps - 1) // 2)
            return nn.Conv2d(
                channels, channels, (1, taps), padding=padding, dilation=(1, dilation), groups=channels
            )

        def column(taps: int, dilation: int) -> nn.Conv2d:
            padding = (dilation * (taps - 1) // 2, 0)
            return nn.Conv2d(
                channels, channels, (taps, 1), padding=padding, dilation=(dilation, 1), groups=channels
            )

        near, far = 2 * dilation - 1, kernel_size // dilation
        self.local_row, self.local_column = row(near, 1), column(near, 1)
        self.distant_row, self.distant_column = row(far, dilation), column(far, dilation)
        self.mix = nn.Conv2d(channels, channels, kernel_size=1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        local = self.local_column(self.local_row(x))
        attention = self.mix(self.distant_column(self.distant_row(local)))  # (B,C,H,W)
        return x * attention.to(x.dtype)
