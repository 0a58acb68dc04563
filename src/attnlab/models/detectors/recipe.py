"""A detector's options, and what is built of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from attnlab.errors import AttnlabError
from attnlab.models.built import BuiltNetwork


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
    def build(self) -> BuiltNetwork:
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
