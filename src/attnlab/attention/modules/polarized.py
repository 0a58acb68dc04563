"""PSA: Polarized Self-Attention: Towards High-quality Pixel-wise Regression.

Huajun Liu, Fuqiang Liu, Xinyi Fan, Dong Huang, 2021, https://arxiv.org/abs/2107.00782

Formula, with 1x1 convolutions without biases. The primed ones belong to the spatial branch:

    a_ch = σ(LN(W_z · Σ_p softmax over p of W_q(x)_p · W_v(x)_p))    W_q: C -> 1, W_v: C -> C/2, W_z: C/2 -> C
    a_sp = σ(softmax over channels of mean of W_q'(x), times W_v'(x))    W_q', W_v': C -> C/2
    parallel      y = a_ch(x) · x + a_sp(x) · x
    sequential    z = a_ch(x) · x,  y = a_sp(z) · z

p are the positions. The layer normalisation LN over the channels is in the figure of the paper, not in its
equation: an option. The authors' released code is another module: its spatial branch takes the softmax over
the positions (in the parallel order of the product, in the sequential one of W_v'), its parallel order has no
LN, and its sequential order has a bottleneck of C/8 with LN and ReLU for W_z. This follows the paper. Weights
start as in the code: normal, by fan-in, for queries and values.

Convolutions of one pixel do not mind the order of the sums: x is pooled before W_v works on it, and W_v' is
applied to the pooled query, which leaves C numbers to multiply the map with. No map of C/2 channels is built,
and the multiply-accumulates are far below the paper's count, which is of the formula term by term.

Shapes: B batch, C channels, H height, W width, R = C/2 reduced channels, N = H · W positions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import reduced_width

_PAPER = "https://arxiv.org/abs/2107.00782"
_TITLE = "Polarized Self-Attention: Towards High-quality Pixel-wise Regression"


@register_attention("psa_parallel", paper=_PAPER, title=_TITLE, year=2021, order="parallel")
@register_attention("psa_sequential", paper=_PAPER, title=_TITLE, year=2021, order="sequential")
class PolarizedSelfAttention(nn.Module):
    """Gate every channel by an attentive mean, and every position by its similarity to the map's query.

    Args:
        channels: Channels C of the map.
        order: ``parallel`` adds the two gated maps; ``sequential`` gates the channels, then the positions of
            the result. The paper has both.
        norm: Whether the channel gate has its layer normalisation. Paper: true in its figure, not in its
            equation.
    """

    def __init__(
        self, channels: int, order: Literal["parallel", "sequential"] = "parallel", norm: bool = True
    ) -> None:
        super().__init__()
        reduced = reduced_width(channels, 2)
        self.order = order
        self.channel_query = nn.Conv2d(channels, 1, kernel_size=1, bias=False)
        self.channel_value = nn.Conv2d(channels, reduced, kernel_size=1, bias=False)
        self.channel_out = nn.Conv2d(reduced, channels, kernel_size=1, bias=False)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.spatial_query = nn.Conv2d(channels, reduced, kernel_size=1, bias=False)
        self.spatial_value = nn.Conv2d(channels, reduced, kernel_size=1, bias=False)
        for layer in (self.channel_query, self.channel_value, self.spatial_query, self.spatial_value):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        gated = x * self.gate_channels(x)
        if self.order == "parallel":
            return torch.addcmul(gated, x, self.gate_positions(x))
        return gated * self.gate_positions(gated)

    def gate_channels(self, x: Tensor) -> Tensor:
        """The gate of every channel: (B,C,H,W) -> (B,C,1,1)."""
        weights = self.channel_query(x).flatten(2).softmax(dim=2).to(x.dtype)  # (B,1,N)
        pooled = (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)  # (B,C,1,1)
        out = self.norm(self.channel_out(self.channel_value(pooled)).flatten(1))  # (B,R,1,1) -> (B,C)
        return out.sigmoid().to(x.dtype)[..., None, None]

    def gate_positions(self, x: Tensor) -> Tensor:
        """The gate of every position: (B,C,H,W) -> (B,1,H,W)."""
        query = self.spatial_query(x.mean(dim=(2, 3), keepdim=True)).softmax(dim=1)  # (B,R,1,1)
        weights = F.conv_transpose2d(query, self.spatial_value.weight).flatten(2)  # W_v' transposed: (B,C,1)
        logits = weights.transpose(1, 2).to(x.dtype) @ x.flatten(2)  # (B,1,N)
        return logits.sigmoid().to(x.dtype).reshape(x.shape[0], 1, x.shape[2], x.shape[3])
