"""The decoupled, anchor-free head of YOLOX, and its box encoding.

https://arxiv.org/abs/2107.08430, section 2.1. Each position (i, j) of a map of stride s predicts one box:

    x = (t_x + j) · s      y = (t_y + i) · s      w = exp(t_w) · s      h = exp(t_h) · s

(x, y) is the box's centre; each position also has an objectness and K class logits. Positions are called
anchors here, though they have no size: A over all three maps, from stride 8 to 32, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnlab.models.detectors.csp_darknet import ConvNormAct, conv3x3

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Anchors:
    """The positions of the predictions.

    Attributes:
        cells: Column and row of each anchor in its map, (A,2).
        strides: Its map's stride in pixels, (A,1).
    """

    cells: Tensor
    strides: Tensor

    @property
    def centres(self) -> Tensor:
        """Centre of each anchor's cell, x and y in pixels, (A,2)."""
        return (self.cells + 0.5) * self.strides

    def decode(self, offsets: Tensor) -> Tensor:
        """Predicted t_x, t_y, t_w, t_h (...,A,4) -> boxes xyxy in pixels (...,A,4)."""
        middle = (offsets[..., :2] + self.cells) * self.strides
        half = offsets[..., 2:].exp() * self.strides / 2
        return torch.cat([middle - half, middle + half], dim=-1)

    def encode(self, boxes: Tensor) -> Tensor:
        """Boxes xyxy in pixels (...,A,4) -> regression targets of the anchors (...,A,4)."""
        middle = (boxes[..., :2] + boxes[..., 2:]) / 2
        size = boxes[..., 2:] - boxes[..., :2]
        return torch.cat([middle / self.strides - self.cells, (size / self.strides).log()], dim=-1)

    def __getitem__(self, index: Tensor) -> Anchors:
        """Some of the anchors."""
        return Anchors(self.cells[index], self.strides[index])


@dataclass(frozen=True)
class Predictions:
    """The head's output for a batch, in float32.

    Attributes:
        offsets: t_x, t_y, t_w, t_h of each anchor, (B,A,4).
        objectness: Logits, (B,A).
        classes: Logits, (B,A,K).
        anchors: The anchors.
    """

    offsets: Tensor
    objectness: Tensor
    classes: Tensor
    anchors: Anchors


class YOLOXHead(nn.Module):
    """Two branches per map: one for the classes, one for box and objectness.

    Args:
        num_classes: Number of classes K.
        in_channels: Channels of the three maps.
        channels: Channels within the head.
        depthwise: Whether the 3x3 layers are depthwise separable.
    """

    def __init__(self, num_classes: int, in_channels: Sequence[int], channels: int, depthwise: bool) -> None:
        super().__init__()

        def tower() -> nn.Module:
            return nn.Sequential(*(conv3x3(channels, channels, depthwise=depthwise) for _ in range(2)))

        def last(outputs: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(channels, outputs, 1) for _ in in_channels)

        self.stems = nn.ModuleList(ConvNormAct(each, channels) for each in in_channels)
        self.class_towers = nn.ModuleList(tower() for _ in in_channels)
        self.box_towers = nn.ModuleList(tower() for _ in in_channels)
        self.class_logits = last(num_classes)
        self.box_offsets = last(4)
        self.objectness = last(1)
        # Initially every prediction is background with probability 0.99, as in RetinaNet.
        for layer in (*self.class_logits, *self.objectness):
            nn.init.constant_(layer.bias, -math.log((1 - 0.01) / 0.01))

    def forward(self, *maps: Tensor) -> Predictions:
        """Maps of stride 8, 16 and 32 -> predictions."""
        stems = [stem(x) for stem, x in zip(self.stems, maps, strict=True)]
        of_class = [tower(x) for tower, x in zip(self.class_towers, stems, strict=True)]
        of_box = [tower(x) for tower, x in zip(self.box_towers, stems, strict=True)]

        def joined(layers: nn.ModuleList, inputs: Sequence[Tensor]) -> Tensor:
            """Outputs (B,C,H,W) of all levels -> (B,A,C)."""
            outputs = [layer(x).flatten(2).transpose(1, 2) for layer, x in zip(layers, inputs, strict=True)]
            return torch.cat(outputs, dim=1).float()

        return Predictions(
            offsets=joined(self.box_offsets, of_box),
            objectness=joined(self.objectness, of_box).squeeze(-1),
            classes=joined(self.class_logits, of_class),
            anchors=anchors_of(maps),
        )


def anchors_of(maps: Sequence[Tensor]) -> Anchors:
    """The anchors of maps (B,C,H,W) of stride 8, 16 and 32."""
    cells, strides = [], []
    for stride, x in zip(STRIDES, maps, strict=True):
        rows, columns = (torch.arange(n, device=x.device, dtype=torch.float32) for n in x.shape[-2:])
        y, x_ = torch.meshgrid(rows, columns, indexing="ij")
        cells.append(torch.stack([x_, y], dim=-1).view(-1, 2))
        strides.append(cells[-1].new_full((len(cells[-1]), 1), stride))
    return Anchors(torch.cat(cells), torch.cat(strides))
