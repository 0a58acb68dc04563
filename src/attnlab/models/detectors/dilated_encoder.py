"""The dilated encoder of YOLOF: You Only Look One-level Feature, arXiv 2103.09460, section 4.1, figure 5.

From one map, features of many receptive fields: a projector brings the map to 512 channels, and residual
blocks with growing dilations add larger fields to those that are there already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


class DilatedEncoder(nn.Module):
    """(B, in_channels, H, W) -> (B, channels, H, W).

    Args:
        in_channels: Channels of the backbone's map.
        channels: Channels that come out.
        mid_channels: Channels inside the residual blocks.
        dilations: Dilation of the 3x3 convolution of each residual block, in steps of the map.

    Attributes:
        projector: ``lateral`` (1x1), ``lateral_norm``, ``output`` (3x3) and ``output_norm``, without an
            activation.
        blocks: The residual blocks.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 512,
        mid_channels: int = 128,
        dilations: Sequence[int] = (2, 4, 6, 8),
    ) -> None:
        super().__init__()
        self.channels = channels
        self.projector = nn.Sequential(
            OrderedDict(
                lateral=nn.Conv2d(in_channels, channels, 1),
                lateral_norm=nn.BatchNorm2d(channels),
                output=nn.Conv2d(channels, channels, 3, padding=1),
                output_norm=nn.BatchNorm2d(channels),
            )
        )
        self.blocks = nn.Sequential(
            *(DilatedBottleneck(channels, mid_channels, dilation) for dilation in dilations)
        )
        for layer in self.projector:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Encode (B, in_channels, H, W)."""
        encoded: Tensor = self.blocks(self.projector(features))
        return encoded


class DilatedBottleneck(nn.Module):
    """x + ReLU(BN(1x1(ReLU(BN(3x3 dilated(ReLU(BN(1x1(x)))))))).

    Args:
        channels: Channels of x.
        mid_channels: Channels of the 3x3 convolution.
        dilation: Its dilation.
    """

    def __init__(self, channels: int, mid_channels: int, dilation: int) -> None:
        super().__init__()
        self.reduce = conv_norm_relu(channels, mid_channels, 1)
        self.dilate = conv_norm_relu(mid_channels, mid_channels, 3, dilation)
        self.expand = conv_norm_relu(mid_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        added: Tensor = self.expand(self.dilate(self.reduce(x)))
        return x + added


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the size (with a bias, as published), BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2 * dilation, dilation=dilation),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
