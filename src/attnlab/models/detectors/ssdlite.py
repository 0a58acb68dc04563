"""torchvision's SSDLite on its MobileNetV3s, built from public parts of the library.

It keeps the library's state-dict keys: the published weights fit with ``reduced_tail``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead
from torchvision.ops import FrozenBatchNorm2d

from attnlab.attention.rules import allow_single_values
from attnlab.errors import AttnlabError, unknown
from attnlab.models.built import BuiltNetwork
from attnlab.models.detectors.recipe import Recipe
from attnlab.models.detectors.torchvision import give_float32

BACKBONES = ("mobilenet_v3_large", "mobilenet_v3_small")


@dataclass(frozen=True)
class SSDLite(Recipe):
    """SSDLite (arXiv 1801.04381, section 6.2) on a MobileNetV3 (arXiv 1905.02244, section 6.3).

    Images are stretched to a square. The deepest map may be of 1x1; with one image per batch, its BatchNorms
    then use their running statistics, as in the segmentation networks. Internally the background is class 0.

    Attributes:
        backbone: ``mobilenet_v3_large`` or ``mobilenet_v3_small``.
        size: Side of the square that images are resized to, in pixels.
        reduced_tail: Halve the channels of the backbone's last blocks, as in the library's published
            detector; weights of a classification network fit the full ones.
        smallest_anchor: Side of the smallest anchors, in pixels of the square; None means a fifth of
            ``size``.
    """

    backbone: str = "mobilenet_v3_large"
    size: int = 320
    reduced_tail: bool = False
    smallest_anchor: int | None = None
    score_threshold: float = 0.001
    nms_threshold: float = 0.55

    def build(self) -> BuiltNetwork:
        """Build the network, with a head for each of the trunk's maps."""
        if self.backbone not in BACKBONES:
            hint = (
                "torchvision's SSDLite uses maps inside MobileNetV3's blocks, which other networks do "
                "not have"
            )
            raise unknown("backbone of ssdlite", self.backbone, BACKBONES, f"{hint}.")
        if self.size < 32:
            raise AttnlabError(f"size of ssdlite must be at least 32 pixels (its stride), got {self.size}.")
        smallest = 0.2 if self.smallest_anchor is None else self.smallest_anchor / self.size
        if not 0 < smallest < 0.95:
            raise AttnlabError(
                f"smallest_anchor must be in 1..{int(0.95 * self.size)} pixels, got {self.smallest_anchor}."
            )
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        trunk = self._trunk(norm)
        with torch.no_grad():
            image = torch.zeros(1, 3, self.size, self.size, device=next(trunk.parameters()).device)
            channels = [output.shape[1] for output in trunk.eval()(image).values()]
        anchors = DefaultBoxGenerator([[2, 3]] * len(channels), min_ratio=smallest, max_ratio=0.95)
        network = SSD(
            trunk.train(),
            anchors,
            (self.size, self.size),
            self.num_classes + 1,
            # To -1..1, as in the library.
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
            head=SSDLiteHead(channels, anchors.num_anchors_per_location(), self.num_classes + 1, norm),
            score_thresh=self.score_threshold,
            nms_thresh=self.nms_threshold,
            detections_per_img=self.max_detections,
            topk_candidates=300,
        )
        give_float32(anchors, network.head)
        allow_single_values(network)
        return BuiltNetwork(
            network,
            "backbone.features",
            tuple(f"head.classification_head.module_list.{level}.1" for level in range(len(channels))),
            example_size=(self.size, self.size),
            first_label=1,
            renamings=(trunk.features.rename_classifier_keys,),
        )

    def _trunk(self, norm: partial[nn.BatchNorm2d]) -> SSDLiteFeatureExtractorMobileNet:
        """The backbone, its first parts frozen, and the layers that SSDLite adds."""
        features = models.get_model(
            self.backbone,
            weights=None,
            reduced_tail=self.reduced_tail,
            norm_layer=partial(FrozenBatchNorm2d, eps=0.001) if self.frozen_bn else norm,
        ).features
        reductions = [
            index
            for index, block in enumerate(features)
            if any(getattr(layer, "stride", 1) == (2, 2) for layer in block.modules())
        ]
        # The start of each part, and the end of the features.
        starts = [*reductions, len(features) - 1, len(features)]
        for block in features[: starts[-1 - self.trained_parts(len(starts) - 1)]]:
            block.requires_grad_(False)
        trunk = SSDLiteFeatureExtractorMobileNet(features, reductions[-1], norm)
        trunk.features = SSDLiteTrunk(*trunk.features)
        return trunk


class SSDLiteTrunk(nn.Sequential):
    """SSDLite's MobileNetV3, split inside the block whose expanded map SSDLite uses.

    Args:
        first: The blocks before that one, and its expansion.
        second: The rest of that block, and the blocks after it.
    """

    def __init__(self, first: nn.Sequential, second: nn.Sequential) -> None:
        super().__init__(first, second)
        self.cut = len(first) - 1

    def rename_classifier_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename tensors of torchvision's MobileNetV3 to the names used here.

        Only ``features.`` (with any prefix) are kept; the classifier is not used.
        """
        renamed = {}
        for key, value in state.items():
            _, found, inner = f".{key}".partition(".features.")
            block, _, rest = inner.partition(".")
            if not found or not block.isdigit():
                continue
            index = int(block)
            if index == self.cut:
                layer, _, rest = rest.removeprefix("block.").partition(".")
                new = f"0.{index}.{rest}" if layer == "0" else f"1.0.{layer}.{rest}"
            else:
                new = f"0.{index}.{rest}" if index < self.cut else f"1.{index - self.cut}.{rest}"
            renamed[new] = value
        return renamed
