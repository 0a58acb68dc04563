"""CSPDarknet and PAFPN, the backbone and the neck of YOLOX, and their layers.

Zheng Ge, Songtao Liu, Feng Wang, Zeming Li, Jian Sun: YOLOX: Exceeding YOLO Series in 2021,
https://arxiv.org/abs/2107.08430, section 2.2, after YOLOv5's; cross-stage partial layers:
https://arxiv.org/abs/1911.11929; path aggregation: https://arxiv.org/abs/1803.01534.

Normalisation has eps 1e-3 and momentum 0.03, the activation is SiLU. The backbone has five stages; C3, C4 and
C5, of stride 8, 16 and 32, have 256, 512 and 1024 channels times the width. The neck is a top-down feature
pyramid followed by a bottom-up path:

    P5 = lateral5(C5)            p4 = [up(P5), C4]    P4 = lateral4(top_down(p4))
                                 p3 = [up(P4), C3]    P3 = outputs.p3(p3)
    n4 = [down3(P3), P4]         N4 = outputs.n4(n4)
    n5 = [down4(N4), P5]         N5 = outputs.n5(n5)

The maps in brackets are concatenations. They are modules (``merge``), as are the neck's inputs (``inputs``),
so that attention can be attached there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNormAct(nn.Module):
    """Convolution without bias, padded so that stride 1 keeps the size; batch normalisation; SiLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C',H/stride,W/stride)."""
        return F.silu(self.norm(self.conv(x)))


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, depthwise: bool = False) -> nn.Module:
    """The 3x3 layer of a network: depthwise separable in YOLOX-nano, full in the others."""
    if not depthwise:
        return ConvNormAct(in_channels, out_channels, 3, stride)
    return nn.Sequential(
        OrderedDict(
            depthwise=ConvNormAct(in_channels, in_channels, 3, stride, groups=in_channels),
            pointwise=ConvNormAct(in_channels, out_channels),
        )
    )


class Focus(nn.Module):
    """The stem: space-to-depth of 2x2 pixels (four times the channels), then a 3x3 layer."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(4 * in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W), H and W even -> (B,C,H/2,W/2)."""
        # Top left, bottom left, top right, bottom right: the order in published weights.
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(corners, dim=1))


class Bottleneck(nn.Module):
    """A 1x1 layer and a 3x3 layer, depthwise separable or full; added to the input for a ``shortcut``."""

    def __init__(self, channels: int, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels)
        self.conv2 = conv3x3(channels, channels, depthwise=depthwise)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    """Half of the channels pass ``depth`` bottlenecks, half bypass them, then both pass a 1x1 layer."""

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, shortcut: bool, depthwise: bool
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvNormAct(in_channels, hidden)
        self.conv2 = ConvNormAct(in_channels, hidden)
        self.conv3 = ConvNormAct(2 * hidden, out_channels)
        self.blocks = nn.Sequential(*(Bottleneck(hidden, shortcut, depthwise) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C',H,W)."""
        return self.conv3(torch.cat([self.blocks(self.conv1(x)), self.conv2(x)], dim=1))


class SpatialPyramidPooling(nn.Module):
    """The map and its maxima over 5x5, 9x9 and 13x13 windows, between two 1x1 layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels // 2)
        self.conv2 = ConvNormAct(channels // 2 * 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        # Maxima over 5x5 of maxima over 5x5 are maxima over 9x9, and so on.
        pooled = [self.conv1(x)]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, stride=1, padding=2))
        return self.conv2(torch.cat(pooled, dim=1))


class CSPDarknet(nn.Module):
    """The backbone: ``stem`` and ``stage2`` to ``stage5``, named after their outputs C2 to C5.

    Args:
        depth: Factor on the number of bottlenecks: 3, 9, 9 and 3 at 1.
        width: Factor on the channels: 128, 256, 512 and 1024 at 1.
        depthwise: Whether the 3x3 layers after the stem are depthwise separable.

    Attributes:
        channels: Channels of C3, C4 and C5.
    """

    def __init__(self, depth: float, width: float, depthwise: bool) -> None:
        super().__init__()
        base, blocks = int(64 * width), max(round(3 * depth), 1)
        self.channels = (4 * base, 8 * base, 16 * base)

        def stage(channels: int, depth: int) -> nn.Sequential:
            return nn.Sequential(
                conv3x3(channels // 2, channels, stride=2, depthwise=depthwise),
                CSPLayer(channels, channels, depth, True, depthwise),
            )

        self.stem = Focus(3, base)
        self.stage2 = stage(2 * base, blocks)
        self.stage3 = stage(4 * base, 3 * blocks)
        self.stage4 = stage(8 * base, 3 * blocks)
        self.stage5 = nn.Sequential(
            conv3x3(8 * base, 16 * base, stride=2, depthwise=depthwise),
            SpatialPyramidPooling(16 * base),
            CSPLayer(16 * base, 16 * base, blocks, False, depthwise),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B,3,H,W), H and W multiples of 32 -> C3, C4, C5 of stride 8, 16, 32."""
        c3 = self.stage3(self.stage2(self.stem(x)))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


class Concat(nn.Module):
    """Concatenates maps of one size along their channels."""

    def forward(self, *maps: Tensor) -> Tensor:
        """(B,C1,H,W), (B,C2,H,W) ... -> (B,C1+C2+...,H,W)."""
        return torch.cat(maps, dim=1)


class PAFPN(nn.Module):
    """The neck.

    Args:
        channels: Channels of C3, C4 and C5, each twice the previous one, and of the outputs.
        depth: Factor on the number of bottlenecks per layer, 3 at 1.
        depthwise: Whether the 3x3 layers are depthwise separable.

    Attributes:
        inputs: ``c3``, ``c4``, ``c5``: the backbone's maps.
        merge: ``p4``, ``p3``, ``n4``, ``n5``: the concatenated maps, with the channels of C5, C4, C4, C5.
        outputs: ``p3``, ``n4``, ``n5``: the layers whose maps, of stride 8, 16 and 32, go to the head.
    """

    def __init__(self, channels: Sequence[int], depth: float, depthwise: bool) -> None:
        super().__init__()
        c3, c4, c5 = channels
        blocks = max(round(3 * depth), 1)
        self.inputs = nn.ModuleDict({name: nn.Identity() for name in ("c3", "c4", "c5")})
        self.merge = nn.ModuleDict({name: Concat() for name in ("p4", "p3", "n4", "n5")})
        self.lateral5 = ConvNormAct(c5, c4)
        self.top_down = CSPLayer(2 * c4, c4, blocks, False, depthwise)
        self.lateral4 = ConvNormAct(c4, c3)
        self.down3 = conv3x3(c3, c3, stride=2, depthwise=depthwise)
        self.down4 = conv3x3(c4, c4, stride=2, depthwise=depthwise)
        self.outputs = nn.ModuleDict(
            {
                name: CSPLayer(2 * inner, outer, blocks, False, depthwise)
                for name, inner, outer in (("p3", c3, c3), ("n4", c3, c4), ("n5", c4, c5))
            }
        )

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4, C5 -> maps of the same sizes and channels for the head."""
        c3, c4, c5 = self.inputs["c3"](c3), self.inputs["c4"](c4), self.inputs["c5"](c5)
        p5 = self.lateral5(c5)
        p4 = self.lateral4(self.top_down(self.merge["p4"](_doubled(p5), c4)))
        p3 = self.outputs["p3"](self.merge["p3"](_doubled(p4), c3))
        n4 = self.outputs["n4"](self.merge["n4"](self.down3(p3), p4))
        n5 = self.outputs["n5"](self.merge["n5"](self.down4(n4), p5))
        return p3, n4, n5


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
