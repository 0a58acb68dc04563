"""MLCA: Mixed local channel attention for object detection.

Dahang Wan, Rongsheng Lu, Siyuan Shen, Ting Xu, Xianli Lang, Zhijie Ren, 2023,
https://doi.org/10.1016/j.engappai.2023.106442

Formula, with convolutions of k weights along the channels; k is ECA's, from C:

    l = means of x over s x s cells local pooling, s = 5 z = mean of l over the cells global pooling m = (1 -
    w) σ(conv_z(z)) + w σ(conv_l(l)) C values per cell; w = 0.5 y[b,c,i,j] = x[b,c,i,j] · (m brought to the
    size of the map)[b,c,i,j]

Cells are those of adaptive pooling: cell p takes the rows from floor(p·H/s) to ceil((p+1)·H/s), so that every
size works; on a map smaller than s x s they share values. m comes to the size of the map by the same rule
from s x s to H x W: a value of the map takes the mean of the cells that it lies in.

The article draws the steps and leaves their detail to the authors' code, which this file follows: conv_l runs
over one sequence, the C channels of the first cell, then those of the second, and so on row by row. The first
and the last channels of a cell so have neighbours in other cells, and a flipped map is not just flipped. In
the code's first version the global gates of the images of a batch were mixed; this is its correction.

Shapes: B batch, C channels, H height, W width, s cells along a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from attnlab.attention.kernels import lay_out_like
from attnlab.attention.modules.eca import adaptive_kernel_size
from attnlab.attention.registry import register_attention
from attnlab.attention.rules import same_padding
from attnlab.errors import AttnlabError


@register_attention(
    "mlca",
    paper="https://doi.org/10.1016/j.engappai.2023.106442",
    title="Mixed local channel attention for object detection",
    year=2023,
)
class MixedLocalChannelAttention(nn.Module):
    """Gate every channel of every cell by the means of its neighbours, in the cell and in the whole map.

    Args:
        channels: Channels C of the map.
        kernel_size: Channels k that a gate sees, odd; None, the paper's way, computes it from C.
        local_size: Cells s along a side. Authors' code: 5.
        local_weight: Share w of the local gates, 0 to 1; the global ones have the rest. Authors' code: 0.5.

    Raises:
        AttnlabError: If ``local_size`` is below 1 or ``local_weight`` is outside 0 to 1.
    """

    def __init__(
        self, channels: int, kernel_size: int | None = None, local_size: int = 5, local_weight: float = 0.5
    ) -> None:
        super().__init__()
        if local_size < 1:
            raise AttnlabError(f"local_size must be at least 1, got {local_size}.")
        if not 0 <= local_weight <= 1:
            raise AttnlabError(f"local_weight must be in 0..1, got {local_weight}.")
        self.local_size, self.local_weight = local_size, local_weight
        size = adaptive_kernel_size(channels) if kernel_size is None else kernel_size
        self.conv_global = nn.Conv1d(1, 1, size, padding=same_padding(size), bias=False)
        self.conv_local = nn.Conv1d(1, 1, size, padding=same_padding(size), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        cells = adaptive_avg_pool2d(x, self.local_size).flatten(2).transpose(1, 2)  # (B,ss,C)
        gate_global = self.conv_global(cells.mean(dim=1, keepdim=True)).sigmoid()  # (B,1,C)
        gate_local = self.conv_local(cells.flatten(1).unsqueeze(1)).sigmoid().reshape(cells.shape)  # (B,ss,C)
        gate = torch.lerp(gate_global.expand_as(gate_local), gate_local, self.local_weight).to(x.dtype)
        gate = gate.transpose(1, 2).unflatten(2, (self.local_size, self.local_size))  # (B,C,s,s)
        gate = lay_out_like(gate, x)  # small still: a full-size gate in another layout than x is slow
        return x * adaptive_avg_pool2d(gate, (x.shape[2], x.shape[3]))
