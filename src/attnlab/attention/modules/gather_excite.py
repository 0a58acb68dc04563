"""GE: Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks.

Jie Hu, Li Shen, Samuel Albanie, Gang Sun, Andrea Vedaldi, 2018, https://arxiv.org/abs/1810.12348

Formula: gather summarises each channel over neighbourhoods whose extent is e positions, excite gates the
channel by its summary, brought back to the map's size by nearest-neighbour interpolation:

    y = x · interpolate(σ(excite(gather(x))))

    GE-θ⁻ (ge_minus)  gather = mean over windows of side 2e - 1, e apart; excite = identity
    GE-θ  (ge)        gather = log2 e depthwise 3x3 convolutions of stride 2, each with batch
                      normalisation N, all but the last with a ReLU; excite = identity
    GE-θ⁺ (ge_plus)   gather = as GE-θ, with a ReLU after the last too; excite(v) = W2 · relu(W1 · v),
                      C -> C/r -> C, with biases

A global extent, written 0 here, has one summary for the whole map: its mean (GE-θ⁻), or N of one depthwise
convolution as large as the map (GE-θ, GE-θ⁺). Such a kernel fits one size of map only. Here it has
``size`` x ``size`` weights, and every map is averaged to that size first, which leaves a map of that size as
it is. The finite extents fit all maps, so ``ge`` and ``ge_plus`` have the paper's largest one by default.
(Only ``torch.export`` with dynamic sizes wants maps that are larger than a finite extent.)

A window at the border takes the mean of what lies inside the map. Layers and initial values of GE-θ and
GE-θ⁺, the ReLU after the gathering included, are those of the authors' published networks. timm's
``GatherExcite`` is GE-θ⁻ if told ``use_mlp=False``; its other forms put an MLP behind every gathering,
without a ReLU in between, and cannot be built in timm 1.0.31.

Shapes: B batch, C channels, H height, W width, (h, w) the gathered map, R = C/r reduced channels.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import interpolate

from attnlab.attention.registry import register_attention
from attnlab.attention.rules import BatchNorm2d, reduced_width
from attnlab.errors import AttnlabError

_named = partial(
    register_attention,
    paper="https://arxiv.org/abs/1810.12348",
    title="Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks",
    year=2018,
)


@_named("ge_plus", learned=True, bottleneck=True, extent=8)
@_named("ge", learned=True, extent=8)
@_named("ge_minus")
class GatherExcite(nn.Module):
    """Gate every channel by a summary of its own neighbourhood.

    Args:
        channels: Channels C of the map.
        extent: Positions e that one summary stands for in each direction: a power of two from 2, or 0 for
            the whole map. Paper: 2, 4, 8 and the whole map, which was best.
        learned: Whether depthwise convolutions gather, as in GE-θ and GE-θ⁺, or means, as in GE-θ⁻.
        bottleneck: Whether two 1x1 convolutions mix the channels before the gate, as in GE-θ⁺.
        reduction: Ratio r of the bottleneck, whose width is C // r, at least 1. Paper: 16.
        size: Side of the kernel of a learned gathering from the whole map. Paper: that of the map, from 56
            to 7 in the stages of a ResNet.

    Raises:
        AttnlabError: If ``extent`` is neither 0 nor a power of two from 2, or ``size`` is below 1.
    """

    def __init__(
        self,
        channels: int,
        extent: int = 0,
        learned: bool = False,
        bottleneck: bool = False,
        reduction: int = 16,
        size: int = 7,
    ) -> None:
        super().__init__()
        if extent and (extent < 2 or extent & (extent - 1)):
            raise AttnlabError(f"extent must be 2, 4, 8, ..., or 0 for the whole map, got {extent}.")
        if size < 1:
            raise AttnlabError(f"size, the side of the gathering kernel, must be at least 1, got {size}.")
        self.extent = extent
        self.gather = _learned_gathering(channels, extent, size) if learned else _mean_gathering(extent)
        self.excite = nn.Sequential()
        if bottleneck:
            reduced = reduced_width(channels, reduction)
            down, up = nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1)
            for layer in (down, up):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.excite.extend([nn.ReLU(), down, nn.ReLU(), up] if learned else [down, nn.ReLU(), up])

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        gate = self.excite(self.gather(x)).sigmoid().to(x.dtype)  # (B,C,h,w)
        return x * (interpolate(gate, size=x.shape[2:]) if self.extent else gate)


def _mean_gathering(extent: int) -> nn.Module:
    if not extent:
        return nn.AdaptiveAvgPool2d(1)
    return nn.AvgPool2d(2 * extent - 1, stride=extent, padding=extent - 1, count_include_pad=False)


def _learned_gathering(channels: int, extent: int, size: int) -> nn.Module:
    layers: list[nn.Module] = []
    if extent:
        for _ in range(extent.bit_length() - 1):  # log2 e
            conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
            layers += [conv, BatchNorm2d(channels), nn.ReLU()]
        layers.pop()
    else:
        conv = nn.Conv2d(channels, channels, size, groups=channels, bias=False)
        layers += [nn.AdaptiveAvgPool2d(size), conv, BatchNorm2d(channels)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*layers)
