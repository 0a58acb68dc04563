"""NAM: Normalization-based Attention Module.

Yichao Liu, Zongru Shao, Yueyang Teng, Nico Hoffmann, 2021, https://arxiv.org/abs/2111.12419

Formula (equations 1 and 2), with a batch normalisation BN of scales γ and offsets β:

    w_c = |γ_c| / Σ_j |γ_j|                              the share of a channel in all scales
    y[b,c,i,j] = x[b,c,i,j] · σ(w_c · BN(x)[b,c,i,j])

As in the authors' code, the scales are taken without their signs, which the paper does not write. That code
keeps the gradient of w away from γ (it reads ``weight.data``); here it flows, as the formula has it. One
version of the code also puts a ReLU before the sigmoid, which neither the paper nor the other versions have.
The penalty on |γ| that the paper adds to the loss is the training's, not the module's.

The paper's spatial half (equation 3) is not here: its "pixel normalisation" learns one scale for every
position, so that it fits maps of a single size only and cannot be defined for any H and W. The authors' code
does without it too, but for one version with the size fixed.

If all scales are 0, so are all shares, and every gate is 1/2.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm2d


@register_attention(
    "nam",
    paper="https://arxiv.org/abs/2111.12419",
    title="NAM: Normalization-based Attention Module",
    year=2021,
)
class NAM(nn.Module):
    """Gate every value by its batch-normalised self, weighed by the channel's share in the scales.

    Args:
        channels: Channels C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        normal = self.norm(x)
        share = _shares(self.norm.weight)  # (C,)
        return x * (normal * share[:, None, None]).sigmoid().to(x.dtype)


def _shares(weight: Tensor) -> Tensor:
    scale = weight.abs()
    return scale / scale.sum().clamp(min=torch.finfo(scale.dtype).eps)


torch.fx.wrap("_shares")  # a leaf: the smallest divisor depends on the dtype, which a tracer does not know
