"""CCA: CCNet: Criss-Cross Attention for Semantic Segmentation.

Zilong Huang, Xinggang Wang, Yunchao Wei, Lichao Huang, Humphrey Shi, Wenyu Liu, Thomas S. Huang, 2018,
https://arxiv.org/abs/1811.11721

Formula (equations 1 and 2), with 1x1 convolutions Q, K: C -> C/8 and V: C -> C. The cross of a position u has
the H + W - 1 positions i of its row and its column, u itself once:

    a_ui = softmax over the cross of Q(x)_u · K(x)_i
    x'_u = γ · Σ_i a_ui · V(x)_i + x_u                γ is learned and starts at 0

Applied twice with the same parameters (R = 2), every position reaches every other.

The paper's equation 2 has no γ, the authors' code has it: followed here, as the module then starts as the
identity. Of the three biases in the code, that of K is left out: it adds the same to all logits of a
position, which the softmax does not see. The 3x3 convolutions around the module belong to the authors' head.

The logits of column and row stand side by side, with u struck out of its column. They and the softmax are in
float32 for float16 and bfloat16 maps; under autocast the logits have autocast's dtype.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import reduced_width
from attnlab.errors import AttnlabError


@register_attention(
    "criss_cross",
    paper="https://arxiv.org/abs/1811.11721",
    title="CCNet: Criss-Cross Attention for Semantic Segmentation",
    year=2018,
)
class CrissCrossAttention(nn.Module):
    """Add to every position a mean over its row and column, weighted by similarity; repeat.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of queries and keys, whose width is C // r, at least 1. Authors' code: 8.
        recurrence: Times R that the attention is applied, with the same parameters. Paper: 2.

    Raises:
        AttnlabError: If ``recurrence`` is below 1.
    """

    def __init__(self, channels: int, reduction: int = 8, recurrence: int = 2) -> None:
        super().__init__()
        if recurrence < 1:
            raise AttnlabError(f"recurrence must be at least 1, got {recurrence}.")
        reduced = reduced_width(channels, reduction)
        self.recurrence = recurrence
        self.query = nn.Conv2d(channels, reduced, kernel_size=1)
        self.key = nn.Conv2d(channels, reduced, kernel_size=1, bias=False)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        for _ in range(self.recurrence):
            x = x + (self.gamma * self.attend(x)).to(x.dtype)
        return x

    def attend(self, x: Tensor) -> Tensor:
        """The weighted mean of the values over the cross: (B,C,H,W) -> (B,C,H,W)."""
        height, width = x.shape[2:]
        query, key, value = self.query(x), self.key(x), self.value(x)
        wide = torch.promote_types(query.dtype, torch.float32)
        query, key = query.to(wide), key.to(wide)
        column = torch.einsum("brhw,brgw->bhwg", query, key)  # (B,H,W,H)
        row = torch.einsum("brhw,brhv->bhwv", query, key)  # (B,H,W,W)
        itself = torch.eye(height, height + width, dtype=torch.bool, device=x.device).unsqueeze(1)
        logits = torch.cat([column, row], dim=3).masked_fill(itself, float("-inf"))  # (B,H,W,H+W)
        weights = logits.softmax(dim=3).to(value.dtype)
        column, row = weights.split([height, width], dim=3)
        means = torch.einsum("bhwg,bcgw->bchw", column, value)
        return means + torch.einsum("bhwv,bchv->bchw", row, value)
