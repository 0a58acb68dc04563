"""GC: GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond.

Yue Cao, Jiarui Xu, Stephen Lin, Fangyun Wei, Han Hu, 2019, https://arxiv.org/abs/1904.11492

Formula, with 1x1 convolutions W_k: C -> 1, W_v1: C -> C/r, W_v2: C/r -> C and a layer normalisation LN over
the C/r channels; p runs over all positions:

    α = softmax of W_k x over the positions
    z[b,c] = Σ_p α[b,p] · x[b,c,p]                        one context for all positions
    δ = W_v2 · relu(LN(W_v1 · z))
    y[b,c,i,j] = x[b,c,i,j] + δ[b,c]                      or, scaled:  x[b,c,i,j] · σ(δ[b,c])

As in the authors' code, W_v1 and W_v2 have biases; W_v2 starts at 0, its bias included, so that the block
starts as the identity (scaled: as a half); and W_k starts at He's normal values. Its bias in that code, which
the softmax cancels, is left out. timm's ``GlobalContext(fuse_add=True, fuse_scale=False)`` computes the same
but for the epsilon of its LN, 1e-6 instead of 1e-5, and starts W_v2's bias at random; by default timm scales,
and reduces by 8.

Shapes: B batch, C channels, H height, W width, R = C/r reduced channels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import GroupNorm, reduced_width


@register_attention(
    "gc",
    paper="https://arxiv.org/abs/1904.11492",
    title="GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
    year=2019,
)
class GlobalContext(nn.Module):
    """Add one context vector, drawn from the positions that matter, to all positions.

    Args:
        channels: Channels C of the map.
        reduction: Ratio r of the bottleneck, whose width is C // r, at least 4, since a normalisation over
            one or two channels leaves at most a sign of them. Paper: 16, also 4.
        pooling: How positions are weighed: ``attention`` is the paper's softmax; ``mean``, from its
            ablation, gives all the same weight and has no W_k.
        fusion: ``add``, the paper's, adds the context to the map; ``scale``, from its ablation, gates the
            channels by it.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        pooling: Literal["attention", "mean"] = "attention",
        fusion: Literal["add", "scale"] = "add",
    ) -> None:
        super().__init__()
        reduced = reduced_width(channels, reduction, at_least=4)
        self.key = nn.Conv2d(channels, 1, kernel_size=1, bias=False) if pooling == "attention" else None
        self.reduce = nn.Conv2d(channels, reduced, kernel_size=1)
        self.norm = GroupNorm(1, reduced)  # on a map of one position, layer normalisation
        self.expand = nn.Conv2d(reduced, channels, kernel_size=1)
        self.fusion = fusion
        if self.key is not None:
            nn.init.kaiming_normal_(self.key.weight)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        change = self.expand(self.norm(self.reduce(self.context(x))).relu())  # (B,R,1,1) -> (B,C,1,1)
        return x + change.to(x.dtype) if self.fusion == "add" else x * change.sigmoid().to(x.dtype)

    def context(self, x: Tensor) -> Tensor:
        """The weighted mean over the map: (B,C,H,W) -> (B,C,1,1)."""
        if self.key is None:
            return x.mean(dim=(2, 3), keepdim=True)
        weights = self.key(x).flatten(2).softmax(dim=2).to(x.dtype)  # (B,1,HW)
        return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)
