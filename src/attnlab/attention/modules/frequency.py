"""FcaNet: Frequency Channel Attention Networks.

Zequn Qin, Pengyi Zhang, Fei Wu, Xi Li, 2020, https://arxiv.org/abs/2012.11879

Formula (section 3), with an n x n cosine transform (DCT-II), F pairs of frequencies (u, v), W1: C -> C/r
and W2: C/r -> C. The channels fall into F parts of equal size, and each takes one pair:

    p = x pooled to n x n by adaptive means
    b_u[t] = cos(π u (t + 1/2) / n) / sqrt(n),  times sqrt(2) if u > 0
    z[b,c] = sum over i, j of p[b,c,i,j] · b_u[i] · b_v[j]          (u, v) of the part of c
    y[b,c,i,j] = x[b,c,i,j] · σ(W2 · relu(W1 · z))[b,c]

The pair (0, 0) is n times the mean of the pooled map: with it alone, this is SE without biases but for that
factor, where height and width are multiples or divisors of n (elsewhere adaptive means weigh some positions
more than others).

The pairs are the lists in the authors' code (``get_freq_indices`` of https://github.com/cfzd/FcaNet). Of the
49 pairs of a 7x7 transform, ``top`` has those that reach the best accuracy alone, best first, ``bot`` those
that reach the worst, ``low`` the lowest frequencies. The factors 1/sqrt(n) and sqrt(2) are the code's; the
paper drops them. In the code n is the side of the map at images of 224 pixels, 56, 28, 14 and 7 in the four
stages of a ResNet, and the frequencies are multiplied by n // 7: ``size`` does that too. The default, 7
everywhere, is the space that the paper searches. The code takes only channels that F divides.

The cosines are a buffer, but not part of the state dict: they follow from the options, and a checkpoint holds
what was learned. They are computed in float64 and change their dtype with the module.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import largest_divisor, reduced_width
from attnlab.errors import AttnlabError

FREQUENCIES = {  # a digit a frequency: u, of the height, then v, of the width
    "top": ("00600114513000324635526553342261", "01052020060463526333511242113053"),
    "low": ("00110221203401301234501234561234", "01012012230043154321065432106543"),
    "bot": ("61332412445146256162243355625536", "64466314456522514350311242115333"),
}


@register_attention(
    "fca",
    paper="https://arxiv.org/abs/2012.11879",
    title="FcaNet: Frequency Channel Attention Networks",
    year=2020,
)
class FrequencyChannelAttention(nn.Module):
    """Gate every channel by all channels, each seen through one frequency of a cosine transform.

    Args:
        channels: Channels C of the map.
        frequencies: Number F of frequencies, 1 to 32, the first of the list; becomes the largest divisor of C
            not above it. Paper: 16, compared with 1, 2, 4, 8 and 32.
        choice: Which list: ``top``, the paper's, ``low`` or ``bot``.
        size: Side n of the transform, at least 7, to which every map is pooled. Authors' code: the map's own
            side in training.
        reduction: Ratio r of the bottleneck, whose width is C // r, at least 1; no biases. Paper: 16.

    Raises:
        AttnlabError: If ``frequencies`` is not 1 to 32, ``choice`` is unknown, or ``size`` is below 7.
    """

    basis: Tensor

    def __init__(
        self,
        channels: int,
        frequencies: int = 16,
        choice: Literal["top", "low", "bot"] = "top",
        size: int = 7,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        if not 1 <= frequencies <= 32 or size < 7:
            raise AttnlabError(
                f"frequencies must be 1 to 32 and size at least 7, got {frequencies} and {size}."
            )
        if choice not in FREQUENCIES:
            raise AttnlabError(f"choice must be one of {', '.join(FREQUENCIES)}, got {choice!r}.")
        parts = largest_divisor(channels, at_most=frequencies)
        rows, columns = ([int(u) * (size // 7) for u in digits[:parts]] for digits in FREQUENCIES[choice])
        basis = torch.einsum("fi,fj->fij", _cosines(rows, size), _cosines(columns, size))  # (F,n,n)
        basis = basis.to(torch.get_default_dtype()).repeat_interleave(channels // parts, dim=0)  # (C,n,n)
        self.register_buffer("basis", basis, persistent=False)
        reduced = reduced_width(channels, reduction)
        self.reduce = nn.Linear(channels, reduced, bias=False)
        self.expand = nn.Linear(reduced, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        pooled = nn.functional.adaptive_avg_pool2d(x, self.basis.shape[2])  # (B,C,n,n)
        spectrum = (pooled * self.basis).sum(dim=(2, 3))  # (B,C)
        gate = self.expand(self.reduce(spectrum).relu()).sigmoid().to(x.dtype)  # (B,R) -> (B,C)
        return x * gate.unsqueeze(2).unsqueeze(3)


def _cosines(frequencies: list[int], size: int) -> Tensor:
    """One orthonormal cosine a frequency: (F,n) in float64."""
    u = torch.tensor(frequencies, dtype=torch.float64).unsqueeze(1)
    places = torch.arange(size, dtype=torch.float64) + 0.5
    scale = torch.where(u > 0, 2.0, 1.0).to(u) / size
    return (math.pi * u * places / size).cos() * scale.sqrt()
