"""A²: A²-Nets: Double Attention Networks.

Yunpeng Chen, Yannis Kalantidis, Jianshu Li, Shuicheng Yan, Jiashi Feng, 2018,
https://arxiv.org/abs/1810.11579

Formula, with 1x1 convolutions φ: C -> c_m, θ and ρ: C -> c_n, and W: c_m -> C:

    A = φ(x),  B = softmax of θ(x) over the positions,  V = softmax of ρ(x) over the c_n channels
    G = A · Bᵀ                     gather: c_n descriptors of c_m values
    Z = G · V                      distribute: every position takes its mixture of the descriptors
    y = x + W · Z

The drop-in: the paper's block ends with the convolution W, which widens Z to the channels of x, and is added
to x. There is no normalisation in the formula and none here; nor are there biases. The paper states no
initial values, so that torch's own are taken.

Convolutions of one pixel do not mind the order of the sums, and both softmaxes sum to one. So the map x
itself is gathered, φ and W work on the c_n descriptors, and neither A nor Z is ever built.

Shapes: B batch, C channels, H height, W width, N = H · W positions.
"""

from __future__ import annotations

from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import reduced_width
from attnlab.errors import AttnlabError


@register_attention(
    "a2",
    paper="https://arxiv.org/abs/1810.11579",
    title="A²-Nets: Double Attention Networks",
    year=2018,
)
class DoubleAttention(nn.Module):
    """Gather global descriptors of the map, and give every position its mixture of them.

    Args:
        channels: Channels C of the map.
        c_m: Values c_m of a descriptor; None, the paper's way, takes a quarter of C, at least 1.
        c_n: Descriptors c_n; None, the paper's way, takes a quarter of C, at least 1.

    Raises:
        AttnlabError: If ``c_m`` or ``c_n`` is below 1.
    """

    def __init__(self, channels: int, c_m: int | None = None, c_n: int | None = None) -> None:
        super().__init__()
        values = reduced_width(channels, 4) if c_m is None else c_m
        number = reduced_width(channels, 4) if c_n is None else c_n
        if min(values, number) < 1:
            raise AttnlabError(f"c_m and c_n must be at least 1, got {values} and {number}.")
        self.gather = nn.Conv2d(channels, number, kernel_size=1, bias=False)
        self.distribute = nn.Conv2d(channels, number, kernel_size=1, bias=False)
        self.embed = nn.Conv1d(channels, values, kernel_size=1, bias=False)
        self.expand = nn.Conv1d(values, channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        maps = self.gather(x).flatten(2).softmax(dim=2)  # (B,c_n,N)
        vectors = self.distribute(x).flatten(2).softmax(dim=1)  # (B,c_n,N)
        gathered = x.flatten(2) @ maps.to(x.dtype).transpose(1, 2)  # (B,C,c_n)
        descriptors = self.expand(self.embed(gathered))  # (B,c_m,c_n) -> (B,C,c_n)
        return x + (descriptors @ vectors.to(descriptors.dtype)).reshape(x.shape).to(x.dtype)
