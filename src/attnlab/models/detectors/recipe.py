"""A detector's options, and what is built of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from attnlab.errors import AttnlabError


@dataclass(frozen=True)
class BuiltDetector:
    """A detector, and what its user must know of it.

    Attributes:
        network: Images (a sequence of (3, h, w) in 0..1, or one (B, 3, h, w)) and, in training, targets ->
            losses by name in training, and else for each image a dict of ``boxes`` (M, 4) as x0, y0, x1, y1
            in its pixels, ``scores`` (M,), descending, and ``labels`` (M,).
        first_label: What class 0 is called in targets and detections: 1 where 0 is the background.
        trunk: Name of the submodule that weights of a classification network are for.
        example_size: Height and width of the image that MACs are counted for, in pixels.
    """

    network: nn.Module
    first_label: int
    trunk: str
    example_size: tuple[int, int]


@dataclass(frozen=True)
class Recipe(ABC):
    """The options that all detectors on a classification network of torchvision have.

    Attributes:
        num_classes: Number of classes K, without a background.
        backbone: Name of the network.
        frozen_bn: The backbone's BatchNorms keep their statistics and weights: for pretrained backbones with
            few images in a batch. False trains them.
        trainable_layers: How many of the backbone's parts, from the last, are trained: 0 to 5 of a ResNet, 0
            to 6 of a MobileNet. None trains all.
        score_threshold: Detections of a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class that overlap by a larger IoU, the better one is kept, 0 to 1.
        max_detections: Most detections in an image.
    """

    num_classes: int
    backbone: str = "resnet50"
    frozen_bn: bool = False
    trainable_layers: int | None = None
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100

    @abstractmethod
    def build(self) -> BuiltDetector:
        """Build the detector with random weights, or refuse an unknown backbone or numbers that cannot be."""

    def trained_parts(self, parts: int) -> int:
        """The number of the backbone's parts to train, out of so many."""
        if self.trainable_layers is None:
            return parts
        if not 0 <= self.trainable_layers <= parts:
            raise AttnlabError(
                f"trainable_layers must be in 0..{parts} with this backbone, got {self.trainable_layers}."
            )
        return self.trainable_layers


def example_size(short: int, longest: int) -> tuple[int, int]:
    """Height and width of a 3:4 photograph after resizing to a shorter and a longest side."""
    return min(short, longest), min(longest, round(short * 4 / 3))
