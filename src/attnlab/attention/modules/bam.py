"""BAM: Bottleneck Attention Module.

Jongchan Park, Sanghyun Woo, Joon-Young Lee, In So Kweon, 2018, https://arxiv.org/abs/1807.06514

Formula (equations 1 to 4), with 1x1 convolutions W0, f0: C -> C/r, W1: C/r -> C and f3: C/r -> 1, 3x3
convolutions f1, f2 of dilation d, all with biases, and batch normalisations N_c and N_s:

    m_c = N_c(W1(relu(W0(mean of x over the map)))) m_s = N_s(f3(relu(f2(relu(f1(relu(f0(x)))))))) y = x + x ·
    σ(m_c + m_s) m_c per channel, m_s per position

The paper's equations name no activation inside the branches; the rectifiers are those of the authors' code,
without which each branch would be one linear map. The paper normalises once, at the end of each branch, to
bring the two to one scale, and adds the branches, the best of the three ways that it compares (sum, product,
maximum). The authors' code does neither: it normalises every hidden layer and not the end, and multiplies the
branches. This file follows the paper; ``norm="hidden", combine="product"`` is the code.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm2d, reduced_width
from attnlab.errors import AttnlabError


@register_attention(
    "bam", paper="https://arxiv.org/abs/1807.06514", title="BAM: Bottleneck Attention Module", year=2018
)
class BAM(nn.Module):
    """Add the map to itself, scaled by one gate of channels and positions together.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of both branches, whose width is C // r, at least 1. Paper: 16.
        dilation: Dilation d of the two 3x3 convolutions. Paper: 4.
        combine: How the branches are combined before the sigmoid: ``sum``, the paper's, or ``product``, the
            authors' code's.
        norm: What is normalised: each branch's ``output`` (paper), or each ``hidden`` layer (authors' code).

    Raises:
        AttnlabError: ``dilation`` is below 1, or ``combine`` or ``norm`` is invalid.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilation: int = 4,
        combine: Literal["sum", "product"] = "sum",
        norm: Literal["output", "hidden"] = "output",
    ) -> None:
        super().__init__()
        if dilation < 1:
            raise AttnlabError(f"dilation must be at least 1, got {dilation}.")
        if combine not in ("sum", "product") or norm not in ("output", "hidden"):
            raise AttnlabError(
                f"combine must be sum or product and norm output or hidden, got {combine!r} and {norm!r}."
            )
        self.combine = combine
        reduced = reduced_width(channels, reduction)
        self.channel = _branch([nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1)], norm)
        dilated = [nn.Conv2d(reduced, reduced, 3, padding=dilation, dilation=dilation) for _ in range(2)]
        self.spatial = _branch([nn.Conv2d(channels, reduced, 1), *dilated, nn.Conv2d(reduced, 1, 1)], norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        by_channel = self.channel(x.mean(dim=(2, 3), keepdim=True))  # (B,C,1,1)
        by_place = self.spatial(x)  # (B,1,H,W)
        both = by_channel + by_place if self.combine == "sum" else by_channel * by_place  # (B,C,H,W)
        return torch.addcmul(x, x, both.sigmoid().to(x.dtype))


def _branch(convs: list[nn.Conv2d], norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for conv in convs:
        last = conv is convs[-1]
        layers.append(conv)
        if last == (norm == "output"):
            layers.append(BatchNorm2d(conv.out_channels))
        if not last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
