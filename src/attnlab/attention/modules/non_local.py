"""NL: Non-local Neural Networks.

Xiaolong Wang, Ross Girshick, Abhinav Gupta, Kaiming He, 2017, https://arxiv.org/abs/1711.07971

Formula (equations 1 to 6), with 1x1 convolutions θ, φ, g: C -> R and W_z: R -> C, and all positions j:

    y_i = 1/C(x) · Σ_j f(x_i, x_j) · g(x_j)
    z_i = W_z · y_i + x_i

    embedded Gaussian   f = exp(θ(x_i) · φ(x_j)),                C(x) = Σ_j f(x_i, x_j)
    Gaussian            f = exp(x_i · x_j),                      C(x) = Σ_j f(x_i, x_j)
    dot product         f = θ(x_i) · φ(x_j),                     C(x) = N
    concatenation       f = relu(w_f · [θ(x_i); φ(x_j)]),        C(x) = N

Sub-sampled, the sum runs over the positions of x after a 2x2 maximum pooling. The paper's equation and the
authors' code pool x, before φ and g (a sentence of the paper puts the pooling after them): so does this. An
odd row or column at the end makes cells of its own, so that 1x1 maps work; the authors' pooling drops it.

Start (section 4.1): W_z is followed by a batch normalisation whose scale starts at 0, so that the module
starts as the identity; without the normalisation W_z itself starts at 0. All other weights are drawn with the
standard deviation 0.01 of the authors' code.

The authors' code differs from the formula by biases and by logits divided by √R: options here, both off.
timm's ``NonLocalAttn`` is the embedded Gaussian with biases; it divides the logits by √C instead
(``use_scale``), takes R = C/8, and draws wider weights. A bias of φ cannot matter to the softmax.

The softmax is one fused call, which on most devices never holds all N · M pairs and has its logits in
float32. The dot product sums φ(x_j) g(x_j)ᵀ first, as the order does not matter, and holds R · R numbers
instead of N · M.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels, N = H · W positions, M = N or,
sub-sampled, about N/4 positions.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm2d, reduced_width


def halve(x: Tensor) -> Tensor:
    """Maximum of every 2x2 cell: (B,C,H,W) -> (B,C,⌈H/2⌉,⌈W/2⌉)."""
    # As ceil_mode=True does, whose size torch.export cannot reason about. A pad not needed is cut off.
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), kernel_size=2)


@register_attention(
    "non_local", paper="https://arxiv.org/abs/1711.07971", title="Non-local Neural Networks", year=2017
)
class NonLocal(nn.Module):
    """Add to every position a mean over all positions, weighted by similarity.

    Args:
        channels: Channels C of the map.
        pairwise: The function f of two positions: ``embedded_gaussian`` is the paper's default;
            ``gaussian``, ``dot_product`` and ``concatenation`` are what it is compared with.
        reduction: Ratio r of the bottleneck, whose width is C // r, at least 1. Paper: 2.
        subsample: Whether φ and g see the map after a 2x2 maximum pooling, for a quarter of the pairs. In the
            paper an option, used in the authors' configurations.
        scale: Whether the logits of ``embedded_gaussian`` and ``gaussian`` are divided by the square root of
            their number of terms. Not in the paper; the authors' code does it.
        norm: ``bn``, the paper's, puts a batch normalisation after W_z; ``none`` leaves it out.
        bias: Whether the convolutions have biases (W_z: without ``bn`` only). The paper's formula has none,
            the authors' code has them.
    """

    def __init__(
        self,
        channels: int,
        pairwise: Literal[
            "embedded_gaussian", "gaussian", "dot_product", "concatenation"
        ] = "embedded_gaussian",
        reduction: int = 2,
        subsample: bool = False,
        scale: bool = False,
        norm: Literal["bn", "none"] = "bn",
        bias: bool = False,
    ) -> None:
        super().__init__()
        reduced = reduced_width(channels, reduction)
        self.pairwise, self.subsample = pairwise, subsample
        embeds = pairwise != "gaussian"
        self.theta = nn.Conv2d(channels, reduced, kernel_size=1, bias=bias) if embeds else nn.Identity()
        self.phi = nn.Conv2d(channels, reduced, kernel_size=1, bias=bias) if embeds else nn.Identity()
        self.pair = nn.Linear(2 * reduced, 1, bias=False) if pairwise == "concatenation" else None
        self.g = nn.Conv2d(channels, reduced, kernel_size=1, bias=bias)
        self.w_z = nn.Conv2d(reduced, channels, kernel_size=1, bias=bias and norm == "none")
        self.norm = BatchNorm2d(channels) if norm == "bn" else nn.Identity()
        self.scale = (reduced if embeds else channels) ** -0.5 if scale else 1.0
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif not name.startswith("norm"):
                nn.init.normal_(parameter, std=0.01)
        nn.init.zeros_(self.norm.weight if isinstance(self.norm, BatchNorm2d) else self.w_z.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        batch, _, height, width = x.shape
        seen = halve(x) if self.subsample else x
        maps = self.theta(x), self.phi(seen), self.g(seen)
        theta, phi, g = (each.flatten(2).transpose(1, 2) for each in maps)  # (B,N,R), (B,M,R), (B,M,R)
        y = self.attend(theta, phi, g).transpose(1, 2).reshape(batch, -1, height, width)  # (B,R,H,W)
        return x + self.norm(self.w_z(y)).to(x.dtype)

    def attend(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """The weighted mean of g over all positions: (B,N,R), (B,M,R) and (B,M,R) -> (B,N,R)."""
        # A factor √(1/M) on either side of the sum over M positions: float16 would overflow without them.
        share = phi.shape[1] ** -0.5
        if self.pairwise == "dot_product":
            return theta @ ((phi * share).transpose(1, 2) @ (g * share))  # (B,R,R)
        if self.pair is not None:
            first, second = self.pair.weight.chunk(2, dim=1)  # (1,R) each
            one, other = F.linear(theta * share, first), F.linear(phi * share, second)  # (B,N,1), (B,M,1)
            return (one + other.transpose(1, 2)).relu() @ (g * share)  # (B,N,M)
        # The fused kernels want a head and contiguous rows.
        query, key, value = (each.unsqueeze(1).contiguous() for each in (theta, phi, g))
        return F.scaled_dot_product_attention(query, key, value, scale=self.scale).squeeze(1)
