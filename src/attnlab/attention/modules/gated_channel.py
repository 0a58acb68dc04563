"""GCT: Gated Channel Transformation for Visual Recognition.

Zongxin Yang, Linchao Zhu, Yu Wu, Yi Yang, 2019, https://arxiv.org/abs/1909.11519

Formula (section 3), with a weight α, a weight γ and a bias β per channel:

    s[b,c] = α[c] · sqrt(sum of x[b,c]² over the map + ε)                       global context embedding
    n[b,c] = sqrt(C) · s[b,c] / sqrt(sum of s[b]² over the channels + ε)        channel normalisation
    y[b,c,i,j] = x[b,c,i,j] · (1 + tanh(γ[c] · n[b,c] + β[c]))                  gating adaptation

With ``norm="l1"``, which the paper compares, sums of absolute values take the place of the roots:

    s[b,c] = α[c] · sum of |x[b,c]| over the map
    n[b,c] = C · s[b,c] / (sum of |s[b]| over the channels + ε)

α starts at 1, γ and β at 0, so that the module starts as the identity.

The authors' code adds ε to the mean over the channels instead of the sum, which is ε·C in this formula: the
same but where the map is nearly zero. Squares are summed in float32 at least, since a float16 sum overflows
on maps that networks have.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.errors import AttnlabError


@register_attention(
    "gct",
    paper="https://arxiv.org/abs/1909.11519",
    title="Gated Channel Transformation for Visual Recognition",
    year=2019,
)
class GatedChannelTransformation(nn.Module):
    """Gate every channel by its norm among the norms of all channels.

    Args:
        channels: Channels C of the map.
        norm: ``l2`` is the paper's; ``l1`` is its ablation.
        eps: ε, which keeps the roots and the quotient from zero; positive. Paper: 1e-5.

    Raises:
        AttnlabError: If ``norm`` is neither ``l1`` nor ``l2``, or ``eps`` is not positive.
    """

    def __init__(self, channels: int, norm: Literal["l1", "l2"] = "l2", eps: float = 1e-5) -> None:
        super().__init__()
        if norm not in ("l1", "l2"):
            raise AttnlabError(f"norm must be l1 or l2, got {norm!r}.")
        if eps <= 0:
            raise AttnlabError(f"eps must be above 0, got {eps}.")
        self.norm, self.eps = norm, eps
        self.alpha = nn.Parameter(torch.ones(channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        channels, wide = x.shape[1], torch.promote_types(x.dtype, torch.float32)
        order = 2 if self.norm == "l2" else 1
        length = torch.linalg.vector_norm(x, order, dim=(2, 3), keepdim=True, dtype=wide)  # (B,C,1,1)
        if self.norm == "l2":
            context = self.alpha * (length.square() + self.eps).sqrt()
            total = (context.square().sum(dim=1, keepdim=True) + self.eps).sqrt()  # (B,1,1,1)
            normal = math.sqrt(channels) * context / total
        else:
            context = self.alpha * length
            normal = channels * context / (context.abs().sum(dim=1, keepdim=True) + self.eps)
        gate = 1 + (self.gamma * normal + self.beta).tanh()  # (B,C,1,1)
        return x * gate.to(x.dtype)
