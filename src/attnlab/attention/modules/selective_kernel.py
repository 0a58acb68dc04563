"""SK: Selective Kernel Networks.

Xiang Li, Wenhai Wang, Xiaolin Hu, Jian Yang, 2019, https://arxiv.org/abs/1903.06586

Formula (section 3.1, equations 1 to 6), with M branches F_m, each a 3x3 convolution of dilation m in G
groups, batch normalisation and relu; W: C -> d and A_m: d -> C without biases, and d = max(C/r, L):

    u_m = F_m(x)                                                  split
    z = relu(N(W(mean of u_1 + ... + u_M over the map)))          fuse
    a_m = exp(A_m z) / (exp(A_1 z) + ... + exp(A_M z))            select: a softmax over the branches
    y[b,c,i,j] = sum over m of a_m[b,c] · u_m[b,c,i,j]

In the paper this takes the place of the 3x3 convolution of a block; as a drop-in with C channels in and out
it is a layer of its own, with the weights of M convolutions, and no gate on x: y is made of the u_m alone.

The authors' Caffe models agree with the formula; convolutions start from He's normal distribution, W and the
A_m from a normal distribution of standard deviation 0.01, so that all branches start with nearly the same
share. timm's ``SelectiveKernel`` is the same with ``split_input=False``, ``groups=32`` and ``rd_channels=d``;
by default it gives each branch a part of the channels, has one group, and rounds C/r to a multiple of 8
without the floor L.

Shapes: B batch, C channels, H height, W width, D = d fused channels, M branches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm2d, largest_divisor, reduced_width
from attnlab.errors import AttnlabError


@register_attention(
    "sk", paper="https://arxiv.org/abs/1903.06586", title="Selective Kernel Networks", year=2019
)
class SelectiveKernel(nn.Module):
    """Mix convolutions of several sizes, each channel of each image in its own proportions.

    Args:
        channels: Channels C of the map.
        branches: Branches M, at least 2; branch m sees as far as a kernel of side 2m + 1. Paper: 2, and 3
            in its ablation.
        groups: Groups G of the convolutions; becomes the largest divisor of C not above it. Paper: 32.
        reduction: Ratio r of the fused width, which is C // r, at least ``min_channels``. Paper: 16.
        min_channels: Smallest fused width L. Paper: 32.

    Raises:
        AttnlabError: There are fewer than two branches.
    """

    def __init__(
        self, channels: int, branches: int = 2, groups: int = 32, reduction: int = 16, min_channels: int = 32
    ) -> None:
        super().__init__()
        if branches < 2:
            raise AttnlabError(f"branches must be at least 2, got {branches}.")
        groups = largest_divisor(channels, at_most=groups)
        reduced = reduced_width(channels, reduction, at_least=min_channels)
        self.branches = nn.ModuleList(_branch(channels, groups, m) for m in range(1, branches + 1))
        self.reduce = nn.Conv2d(channels, reduced, kernel_size=1, bias=False)
        self.norm = BatchNorm2d(reduced)
        self.expand = nn.Conv2d(reduced, branches * channels, kernel_size=1, bias=False)
        for layer in (self.reduce, self.expand):
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        maps = [branch(x) for branch in self.branches]  # M times (B,C,H,W)
        fused = torch.stack([u.mean(dim=(2, 3), keepdim=True) for u in maps]).sum(dim=0)  # (B,C,1,1)
        scores = self.expand(self.norm(self.reduce(fused)).relu())  # (B,D,1,1) -> (B,MC,1,1)
        shares = scores.unflatten(1, (len(maps), -1)).softmax(dim=1).to(x.dtype)  # (B,M,C,1,1)
        y = maps[0].to(x.dtype) * shares[:, 0]
        for index, u in enumerate(maps[1:], start=1):
            y = torch.addcmul(y, u.to(x.dtype), shares[:, index])
        return y


def _branch(channels: int, groups: int, dilation: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, BatchNorm2d(channels), nn.ReLU())
