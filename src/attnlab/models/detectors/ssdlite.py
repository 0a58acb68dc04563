"""torchvision's SSDLite on its MobileNetV3s, built with random weights from public parts of the library.

It keeps the library's state-dict keys: the published weights fit with ``reduced_tail``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead
from torchvision.ops import FrozenBatchNorm2d

from attnlab.errors import AttnlabError, unknown
from attnlab.models.batchnorm import allow_single_values
from attnlab.models.detectors.built import BuiltDetector
from attnlab.models.detectors.precision import Float32DefaultBoxes, give_float32
from attnlab.models.detectors.torchvision import check_layers

BACKBONES = ("mobilenet_v3_large", "mobilenet_v3_small")


def ssdlite(
    num_classes: int,
    backbone: str = "mobilenet_v3_large",
    size: int = 320,
    reduced_tail: bool = False,
    frozen_bn: bool = False,
    trainable_layers: int | None = None,
    smallest_anchor: int | None = None,
    score_threshold: float = 0.001,
    nms_threshold: float = 0.55,
    max_detections: int = 100,
) -> BuiltDetector:
    """SSDLite (arXiv 1801.04381, section 6.2) on a MobileNetV3 (arXiv 1905.02244, section 6.3).

    Images are stretched to a square. The deepest map may be of 1x1; with one image in a batch, its BatchNorms
    then go by their running statistics, as in the segmentation networks.

    Args:
        num_classes: Number of classes K, without the background, which is class 0 inside.
        backbone: ``mobilenet_v3_large`` or ``mobilenet_v3_small``.
        size: Side of the square that images are resized to, in pixels.
        reduced_tail: Halve the channels of the backbone's last blocks, as in the library's published
            detector; weights of a classification network are for the whole ones.
        frozen_bn: The backbone's BatchNorms keep their statistics and weights: for pretrained backbones with
            few images in a batch. False trains them.
        trainable_layers: How many of the backbone's six parts, from the last, are trained. None trains all.
        smallest_anchor: Side of the smallest anchors, in pixels of the square; None: a fifth of it.
        score_threshold: Detections of a lower score are dropped, 0 to 1.
        nms_threshold: Of two boxes of a class that overlap by a larger IoU, the better one is kept, 0 to 1.
        max_detections: Most detections in an image.

    Raises:
        AttnlabError: For an unknown backbone, or sizes or layers that cannot be.
    """
    if backbone not in BACKBONES:
        hint = "torchvision's SSDLite takes its maps out of MobileNetV3's blocks; no other network has these."
        raise unknown("backbone of ssdlite", backbone, BACKBONES, hint)
    if size < 32:
        raise AttnlabError(f"size of ssdlite must be at least 32 pixels, the stride, got {size}.")
    smallest = 0.2 if smallest_anchor is None else smallest_anchor / size
    if not 0 < smallest < 0.95:
        raise AttnlabError(f"smallest_anchor must be in 1..{int(0.95 * size)} pixels, got {smallest_anchor}.")
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    features = models.get_model(
        backbone,
        weights=None,
        reduced_tail=reduced_tail,
        norm_layer=partial(FrozenBatchNorm2d, eps=0.001) if frozen_bn else norm,
    ).features
    starts = [index for index, block in enumerate(features) if _reduces(block)]
    _freeze_first(features, [*starts, len(features) - 1], trainable_layers)
    trunk = SSDLiteFeatureExtractorMobileNet(features, starts[-1], norm)
    trunk.features = SSDLiteTrunk(*trunk.features)
    with torch.no_grad():
        image = torch.zeros(1, 3, size, size, device=next(trunk.parameters()).device)
        channels = [output.shape[1] for output in trunk.eval()(image).values()]
    anchors = Float32DefaultBoxes([[2, 3]] * len(channels), min_ratio=smallest, max_ratio=0.95)
    head = SSDLiteHead(channels, anchors.num_anchors_per_location(), num_classes + 1, norm)
    network = SSD(
        trunk.train(),
        anchors,
        (size, size),
        num_classes + 1,
        # To -1..1, as the library's own.
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        head=head,
        score_thresh=score_threshold,
        nms_thresh=nms_threshold,
        detections_per_img=max_detections,
        topk_candidates=300,
    )
    give_float32(network.head)
    allow_single_values(network)
    return BuiltDetector(network, 1, "backbone.features", (size, size))


class SSDLiteTrunk(nn.Sequential):
    """The MobileNetV3 in SSDLite, cut in two within the block whose expanded map SSDLite takes.

    Args:
        first: The blocks before that one, and its expansion.
        second: The rest of it, and the blocks after it.
    """

    def __init__(self, first: nn.Sequential, second: nn.Sequential) -> None:
        super().__init__(first, second)
        self.cut = len(first) - 1

    def rename_classifier_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of torchvision's MobileNetV3 under the names that they have here.

        Args:
            state: Its state dict; keys with ``features.`` in them, whatever stands before, are renamed.

        Returns:
            Those of the features only: the classifier has no place here.
        """
        renamed = {}
        for key, value in state.items():
            _, found, inner = f".{key}".partition(".features.")
            block, _, rest = inner.partition(".")
            if not found or not block.isdigit():
                continue
            index = int(block)
            if index < self.cut:
                new = f"0.{index}.{rest}"
            elif index > self.cut:
                new = f"1.{index - self.cut}.{rest}"
            else:
                layer, _, rest = rest.removeprefix("block.").partition(".")
                new = f"0.{index}.{rest}" if layer == "0" else f"1.0.{layer}.{rest}"
            renamed[new] = value
        return renamed


def _freeze_first(features: nn.Sequential, starts: Sequence[int], trainable_layers: int | None) -> None:
    """Freeze the blocks before the last parts, of which `starts` has the first blocks."""
    trained = check_layers(trainable_layers, len(starts))
    for block in features[: starts[-trained] if trained else len(features)]:
        block.requires_grad_(False)


def _reduces(block: nn.Module) -> bool:
    return any(isinstance(layer, nn.Conv2d) and layer.stride == (2, 2) for layer in block.modules())
