"""Options shared by detectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from attnlab.errors import AttnlabError
from attnlab.models.built import BuiltNetwork


@dataclass(frozen=True)
class Recipe(ABC):
    """The options of all detectors on a torchvision classification network.

    Attributes:
        num_classes: Number of classes K, without background.
        backbone: Name of the network.
        frozen_bn: Freeze the backbone's BatchNorms, statistics and weights: for pretrained backbones with
            small batches. False trains them.
        trainable_layers: Number of the backbone's last parts that are trained: 0 to 5 for a ResNet, 0 to 6
            for a MobileNet. None trains all.
        score_threshold: Detections with a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class with a larger IoU, only the better one is kept, 0 to 1.
        max_detections: Maximum number of detections per image.
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
        """Build the detector with random weights; invalid options raise an AttnlabError."""

    def trained_parts(self, parts: int) -> int:
        """The number of the backbone's parts to train, out of ``parts``."""
        if self.trainable_layers is None:
            return parts
        if not 0 <= self.trainable_layers <= parts:
            raise AttnlabError(
                f"trainable_layers must be in 0..{parts} with this backbone, got {self.trainable_layers}."
            )
        return self.trainable_layers


def example_size(short: int, longest: int) -> tuple[int, int]:
    """Height and width of a 3:4 image after resizing to a shorter and a longest side."""
    return min(short, longest), min(longest, round(short * 4 / 3))
