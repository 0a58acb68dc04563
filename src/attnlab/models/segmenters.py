"""Segmentation networks by name: any architecture of segmentation-models-pytorch on any of its encoders."""

from __future__ import annotations

import copy
import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.rules import allow_single_values
from attnlab.errors import AttnlabError, known_name, unknown
from attnlab.models.built import REFUSALS, BuiltNetwork
from attnlab.models.published import library_encoder_weights

# They act only in training.
FREE_OPTIONS = frozenset({"decoder_aspp_dropout", "psp_dropout", "decoder_dropout"})


class Segmenter(nn.Module):
    """A segmentation-models-pytorch network that takes images of any size.

    The image is padded at the bottom and right with zeros (the mean colour of a normalised image) to a
    multiple of the network's stride, and the logits are cropped. The padding depends only on the image's
    size.

    Args:
        model: The network, with ``encoder`` and ``decoder``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def encoder(self) -> nn.Module:
        """The backbone, which takes pretrained weights."""
        return self.model.get_submodule("encoder")

    @property
    def stride(self) -> int:
        """Stride of the deepest feature map; inputs are padded to a multiple of it."""
        return int(self.encoder.output_stride)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of images (B, 3, H, W), any H and W."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % self.stride, 0, -height % self.stride))
        logits: Tensor = self.model(padded)
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def architectures() -> dict[str, type[nn.Module]]:
    """The architectures of segmentation-models-pytorch, by class name."""
    import segmentation_models_pytorch as smp

    return {cls.__name__: cls for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()}


def build_segmenter(
    architecture: str = "DeepLabV3Plus",
    encoder: str = "resnet18",
    num_classes: int | None = None,
    architecture_options: dict[str, Any] | None = None,
) -> BuiltNetwork:
    """Build a `Segmenter` with random weights.

    Args:
        architecture: Class name in segmentation-models-pytorch, e.g. ``DeepLabV3Plus``.
        encoder: Encoder name there, e.g. ``resnet18``, or ``tu-<name>`` for any network of timm.
        num_classes: Number of classes K, including the background; None means the library's default.
        architecture_options: Further arguments of the architecture, e.g. ``{"encoder_output_stride": 16}``.

    Returns:
        The network; its backbone is the encoder.

    Raises:
        AttnlabError: Unknown architecture, encoder or option, or a combination that the library rejects (e.g.
            a dilated DeepLab on an encoder that cannot be dilated).
    """
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    known, encoders = architectures(), get_encoder_names()
    name, encoder = known_name(architecture, known), known_name(encoder, encoders)
    if name not in known:
        raise unknown("architecture", architecture, known)
    if encoder.startswith("tu-"):
        if not timm.is_model(encoder.removeprefix("tu-")):
            raise unknown("timm network", encoder.removeprefix("tu-"), timm.list_models())
    elif encoder not in encoders and not encoder.startswith("timm-"):
        raise unknown("encoder", encoder, encoders, "Any timm network works as 'tu-<name>'.")
    cls, options = known[name], dict(architecture_options or {})
    # The architecture would silently accept others in its ``**kwargs``.
    named = {p.name for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD}
    named -= {"encoder_name", "encoder_weights", "in_channels", "classes"}
    if strangers := [option for option in options if option not in named]:
        raise unknown(f"option of {name}", strangers[0], named)
    classes = {} if num_classes is None else {"classes": num_classes}
    try:
        model = cls(encoder_name=encoder, encoder_weights=None, in_channels=3, **classes, **options)
    except REFUSALS as error:
        raise AttnlabError(
            f"segmentation-models-pytorch cannot build {name} on encoder '{encoder}' "
            f"with {options or 'default options'}: {error}"
        ) from error
    allow_single_values(model.get_submodule("decoder"))
    segmenter = Segmenter(model)
    try:
        dropped = _drop_unused(segmenter)
    except RuntimeError as error:
        message = f"{name} on encoder '{encoder}' does not take images of any size: {error}"
        raise AttnlabError(message) from error
    stages: Any = segmenter.encoder.out_channels
    return BuiltNetwork(
        segmenter,
        "model.encoder",
        class_layers=("model.segmentation_head",),
        free_options=FREE_OPTIONS,
        dropped=dropped,
        imagenet=partial(library_encoder_weights, encoder, len(stages) - 1),
    )


def _drop_unused(segmenter: Segmenter) -> tuple[str, ...]:
    """Replace unused parts of the encoder by ``nn.Identity``; returns their names in the encoder.

    In a shallow network (PSPNet uses three encoder stages by default) the deeper stages get no gradient:
    their parameters would be counted but never used, and distributed training would fail.
    """
    probe = copy.deepcopy(segmenter).to("meta").eval()
    side = 8 * segmenter.stride
    probe(torch.empty(2, 3, side, side, device="meta")).sum().backward()
    unused = [
        name
        for name, module in probe.encoder.named_modules()
        if name and (own := list(module.parameters())) and all(p.grad is None for p in own)
    ]
    outermost = [name for name in unused if not any(name.startswith(f"{other}.") for other in unused)]
    for name in outermost:
        parent, _, child = name.rpartition(".")
        setattr(segmenter.encoder.get_submodule(parent), child, nn.Identity())
    return tuple(outermost)
