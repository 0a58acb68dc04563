"""SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks.

Lingxiao Yang, Ru-Yuan Zhang, Lida Li, Xiaohua Xie, ICML 2021,
https://proceedings.mlr.press/v139/yang21o.html

Formula (equations 5 and 6): each value t of a channel has the energy e* that it takes to tell it linearly
from the other values of its channel; the lower the energy, the more the value stands out:

    μ  = mean of the channel over the map,  σ² = its variance
    e* = 4 (σ² + λ) / ((t - μ)² + 2 σ² + 2 λ)
    y  = x · σ(1 / e*),   1 / e* = (t - μ)² / (4 (σ² + λ)) + 1/2

Equation 5 divides the variance by H·W; the code that the paper prints (figure 3) and the authors' repository
divide it by n = H·W - 1, the number of the other values. All published numbers come from the latter, which is
followed. One pixel has no other values: n is then 1, the variance 0 and the gate σ(1/2).

Half precision is computed in float32, as squares above 65504 are infinite in float16.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.errors import AttnlabError


@register_attention(
    "simam",
    paper="https://proceedings.mlr.press/v139/yang21o.html",
    title="SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks",
    year=2021,
)
class SimAM(nn.Module):
    """Gate every value by how far it lies from the mean of its channel; no parameters.

    Args:
        channels: Channels C of the map; any number, as nothing depends on it.
        e_lambda: λ of the energy, above 0. Paper: 0.0001 on CIFAR; 0.1 on ImageNet and COCO.

    Raises:
        AttnlabError: If ``e_lambda`` is not above 0.
    """

    def __init__(self, channels: int, e_lambda: float = 1e-4) -> None:
        super().__init__()
        if not e_lambda > 0:
            raise AttnlabError(
                f"e_lambda must be above 0 (else a constant channel is divided by 0), got {e_lambda}."
            )
        self.e_lambda = e_lambda

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        squares = (wide - wide.mean(dim=(2, 3), keepdim=True)).square()
        variance = _mean_of_others(squares)  # (B,C,1,1)
        gate = (squares / (4 * (variance + self.e_lambda)) + 0.5).sigmoid()  # (B,C,H,W)
        return x * gate.to(x.dtype)

    def extra_repr(self) -> str:
        """The options, for ``print``."""
        return f"e_lambda={self.e_lambda}"


def _mean_of_others(squares: Tensor) -> Tensor:
    """The sum over the map, divided by the number of its values less one: (B,C,H,W) -> (B,C,1,1)."""
    others = max(squares.shape[2] * squares.shape[3] - 1, 1)
    return squares.sum(dim=(2, 3), keepdim=True) / others


torch.fx.wrap("_mean_of_others")  # a leaf: which is larger depends on the size, which a tracer does not know
