"""eSE: CenterMask: Real-Time Anchor-Free Instance Segmentation.

Youngwan Lee, Jongyoul Park, 2019, https://arxiv.org/abs/1911.06667

Formula of effective squeeze-and-excitation, part of the paper's backbone VoVNetV2, with one layer W: C -> C
in place of the two of SE, so that no channel is lost in a bottleneck:

    z = mean of x over the map
    s = σ(W · z + b)
    y[b,c,i,j] = x[b,c,i,j] · s[b,c]

The paper writes a sigmoid σ. The authors' code has a hard sigmoid, clamp(v + 3, 0, 6) / 6, there, and so have
the weights that were trained with it and timm's ``EffectiveSEModule``: it is the default here.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from attnlab.attention.registry import register_attention


@register_attention(
    "ese",
    paper="https://arxiv.org/abs/1911.06667",
    title="CenterMask: Real-Time Anchor-Free Instance Segmentation",
    year=2019,
)
class EffectiveSqueezeExcite(nn.Module):
    """Gate every channel by the means of all channels, through one layer of full width.

    Args:
        channels: Channels C of the map.
        gate: ``hard_sigmoid`` as in the authors' code, or ``sigmoid`` as in the paper's formula.
    """

    def __init__(self, channels: int, gate: Literal["hard_sigmoid", "sigmoid"] = "hard_sigmoid") -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, kernel_size=1)
        self.gate = nn.Hardsigmoid() if gate == "hard_sigmoid" else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        means = x.mean(dim=(2, 3), keepdim=True)  # (B,C,1,1)
        gate: Tensor = self.gate(self.fc(means))
        return x * gate.to(x.dtype)
