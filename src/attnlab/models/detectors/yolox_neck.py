"""PAFPN, the neck of YOLOX: a feature pyramid downwards and a path upwards again.

Path aggregation: https://arxiv.org/abs/1803.01534; in YOLOX as in YOLOv5, with cross-stage partial layers:

    P5 = lateral5(C5)            p4 = [up(P5), C4]    P4 = lateral4(top_down(p4))
                                 p3 = [up(P4), C3]    P3 = outputs.p3(p3)
    n4 = [down3(P3), P4]         N4 = outputs.n4(n4)
    n5 = [down4(N4), P5]         N5 = outputs.n5(n5)

The maps in brackets are concatenations. They are modules (``merge``), and so are the places where the trunk's
maps come in (``inputs``), so that attention can be attached there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.models.detectors.csp_darknet import ConvNormAct, CSPLayer, conv3x3


class Concat(nn.Module):
    """Maps of one size, joined along their channels."""

    def forward(self, *maps: Tensor) -> Tensor:
        """(B,C1,H,W), (B,C2,H,W) ... -> (B,C1+C2+...,H,W)."""
        return torch.cat(maps, dim=1)


class PAFPN(nn.Module):
    """The neck.

    Args:
        channels: Channels of C3, C4 and C5, each twice the one before; the output has the same.
        depth: Factor of the number of bottlenecks a layer, 3 at 1.
        depthwise: Whether the 3x3 layers are depthwise separable.

    Attributes:
        inputs: ``c3``, ``c4``, ``c5``: the trunk's maps, as they come in.
        merge: ``p4``, ``p3``, ``n4``, ``n5``: the concatenated maps; as many channels as C5, C4, C4, C5.
        outputs: ``p3``, ``n4``, ``n5``: the layers whose maps, of stride 8, 16 and 32, the head gets.
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
                "p3": CSPLayer(2 * c3, c3, blocks, False, depthwise),
                "n4": CSPLayer(2 * c3, c4, blocks, False, depthwise),
                "n5": CSPLayer(2 * c4, c5, blocks, False, depthwise),
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
