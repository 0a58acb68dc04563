"""CPCA: Channel prior convolutional attention for medical image segmentation.

Hejun Huang, Zuguo Chen, Ying Zou, Ming Lu, Chaoyang Chen, 2023, https://arxiv.org/abs/2306.05196

Formula, with one two-layer MLP for both poolings, a depthwise convolution d of 5 x 5, three
depthwise branches b of 1 x k, then k x 1, with k = 7, 11 and 21, and a 1x1 convolution f:

    x' = x · σ(MLP(mean of x over the map) + MLP(maximum of x over the map))
    u  = d(x')
    y  = x' · f(u + b7(u) + b11(u) + b21(u))             no sigmoid

The channel prior x' is what both the spatial attention and the product with it take. All layers have biases,
as in the authors' code, whose ratio of the MLP is 4.

That code differs from the formula in two ways. Each pooling has its own sigmoid, and the channel gate is
their sum, between 0 and 2. And the attention is wrapped in a block, x -> f(y(GELU(f(x)))), in which one 1x1
convolution f serves three times: before the attention, inside it and after it. The default here is the
formula, as a drop-in that only scales its map; ``form="block"`` is the code.

The paper states no initial values; the layers have torch's own. As no sigmoid bounds the spatial attention,
``mode: rezero`` is the gentle way to put CPCA into a trained network.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import reduced_width, same_padding
from attnlab.errors import AttnlabError


@register_attention(
    "cpca",
    paper="https://arxiv.org/abs/2306.05196",
    title="Channel prior convolutional attention for medical image segmentation",
    year=2023,
)
class ChannelPriorConvolutionalAttention(nn.Module):
    """Gate every channel, then scale every value by convolutions of several sizes.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of the MLP, whose width is C // r, at least 1. Authors' code: 4.
        kernel_sizes: Lengths k of the branches, odd. Paper: 7, 11 and 21.
        form: ``attention`` is the paper's formula; ``block`` is the authors' code, with a 1x1 convolution
            before and after, a GELU, and a sum of two sigmoids as the channel gate.

    Raises:
        AttnlabError: If a kernel size is even, or ``form`` is neither.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        kernel_sizes: tuple[int, ...] = (7, 11, 21),
        form: Literal["attention", "block"] = "attention",
    ) -> None:
        super().__init__()
        if form not in ("attention", "block"):
            raise AttnlabError(f"form must be attention or block, got {form!r}.")
        self.form = form
        reduced = reduced_width(channels, reduction)
        self.reduce = nn.Conv2d(channels, reduced, kernel_size=1)
        self.expand = nn.Conv2d(reduced, channels, kernel_size=1)
        self.local = _depthwise(channels, 5, 5)
        self.branches = nn.ModuleList(
            nn.Sequential(_depthwise(channels, 1, size), _depthwise(channels, size, 1))
            for size in kernel_sizes
        )
        self.mix = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        if self.form == "block":
            return self.mix(self.attend(F.gelu(self.mix(x)))).to(x.dtype)
        return self.attend(x)

    def attend(self, x: Tensor) -> Tensor:
        """Channel attention, then spatial attention: (B,C,H,W) -> (B,C,H,W)."""
        mean = self.mlp(x.mean(dim=(2, 3), keepdim=True))  # (B,C,1,1)
        peak = self.mlp(x.amax(dim=(2, 3), keepdim=True))
        gate = mean.sigmoid() + peak.sigmoid() if self.form == "block" else (mean + peak).sigmoid()
        x = x * gate.to(x.dtype)
        local = self.local(x)  # (B,C,H,W)
        attention = self.mix(sum((branch(local) for branch in self.branches), local))
        return x * attention.to(x.dtype)

    def mlp(self, pooled: Tensor) -> Tensor:
        """The shared MLP: (B,C,1,1) -> (B,C,1,1)."""
        return self.expand(self.reduce(pooled).relu())


def _depthwise(channels: int, height: int, width: int) -> nn.Conv2d:
    padding = same_padding(height), same_padding(width)
    return nn.Conv2d(channels, channels, (height, width), padding=padding, groups=channels)
