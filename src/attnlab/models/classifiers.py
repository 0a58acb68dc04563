"""Classification networks by name: any CNN of torchvision or timm, for large images and small ones."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import models

from attnlab.attention.observe import Call, observe
from attnlab.errors import AttnlabError, unknown
from attnlab.models.built import REFUSALS, BuiltNetwork, without_values
from attnlab.models.published import find_network, library_classifier_weights

# They act only in training.
FREE_OPTIONS = frozenset({"dropout", "stochastic_depth_prob", "drop_rate", "drop_path_rate"})
# Set by arguments of `build_classifier`, or useless in a network that returns logits.
_OWN_ARGUMENTS = frozenset(
    {
        *("self", "cfg", "arch", "weights", "progress", "num_classes", "in_chans", "aux_logits"),
        *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path"),
        *("cache_dir", "features_only", "out_indices"),
    }
)


def build_classifier(
    network: str = "resnet18",
    num_classes: int | None = None,
    network_options: dict[str, Any] | None = None,
    stem_stride: int | None = None,
) -> BuiltNetwork:
    """Build a network with random weights: the library's own module, (B, 3, H, W) -> logits (B, K).

    torchvision's GoogLeNet and Inception v3 have no auxiliary heads, and take images normalised as for all
    other networks (``transform_input`` is on, as for the published weights).

    Args:
        network: A torchvision name, e.g. ``resnet18``, or else a timm name, e.g. ``resnet10t``; or with its
            library, ``torchvision/resnet18`` or ``timm/resnet18``.
        num_classes: Number of classes K; None means the network's default.
        network_options: Further arguments of the network, e.g. ``{"width_mult": 0.5}`` for ``mobilenet_v2``.
        stem_stride: Stride of the stem, see `set_stem_stride`; None keeps the network's own.

    Returns:
        The network; its class layer is the one that outputs the logits.

    Raises:
        AttnlabError: Unknown network or option, a network that is not a CNN (`is_cnn`), or a stem that cannot
            have this stride.
    """
    library, name = find_network(network)
    module = _build(library, name, num_classes, dict(network_options or {}))
    if not is_cnn(module):
        raise AttnlabError(
            f"{library}'s '{name}' is not a CNN: it has few or no convolutional feature maps for attention. "
            "Choose a convolutional network, e.g. resnet18, mobilenet_v2 or convnext_tiny."
        )
    if stem_stride is not None:
        set_stem_stride(module, stem_stride, network)
    return BuiltNetwork(
        module,
        class_layers=(_head(module, num_classes),),
        free_options=FREE_OPTIONS,
        imagenet=partial(library_classifier_weights, f"{library}/{name}"),
    )


def is_cnn(network: nn.Module) -> bool:
    """Whether a network mixes positions mainly by convolution, from its first to its last layers.

    Of the layers with a weight matrix, convolutions with overlapping windows are counted (kernel larger than
    stride, so neither 1x1 nor patch-embedding convolutions). In a CNN

    - they are at least one in eight: Swin and MLP-Mixer have none, MaxViT has few;
    - the last of them stands in the second half: LeViT, or a ViT on a ResNet, has them in front;
    - they are more than twice as many as self-attentions (modules with ``num_heads``): PVT v2 or XCiT has
      depthwise convolutions throughout, but as many attentions. A ResNet with attention in its last stage
      (BoTNet) is a CNN.
    """
    modules = list(network.modules())
    layers = [module for module in modules if _has_matrix(module)]
    mixing = [index for index, module in enumerate(layers) if _overlaps(module)]
    attentions = sum(isinstance(getattr(module, "num_heads", None), int) for module in modules)
    return (
        len(mixing) * 8 >= len(layers) and len(mixing) > 2 * attentions and (mixing[-1] + 1) * 2 > len(layers)
    )


def set_stem_stride(network: nn.Module, stride: int, name: str) -> None:
    """Change the stride of the stem, in place.

    In networks of the ResNet family (with children ``conv1`` and ``maxpool``): 4 is the usual stem; 2 is a
    3x3 convolution of stride 2 without pooling; 1 is a 3x3 convolution of stride 1 without pooling, as is
    usual for images of 32 or 64 pixels. In others the stem is only the first convolution: stride 2 can become
    1, and what follows, such as pooling, stays.

    Args:
        network: The network, without attention.
        stride: Stride of the stem's output.
        name: Name of the network in messages.

    Raises:
        AttnlabError: The stem cannot have this stride.
    """
    if {"conv1", "maxpool"} <= dict(network.named_children()).keys():
        _set_resnet_stem(network, stride, name)
        return
    first = next((call for call in _calls(network) if isinstance(call.module, nn.Conv2d)), None)
    if first is None or first.map_size is None:
        raise AttnlabError(f"{name} has no convolution as its stem: leave --model.stem_stride out.")
    own = round(_side(network) / first.map_size[0])
    if stride == own:
        return
    stem = network.get_submodule(first.name)
    assert isinstance(stem, nn.Conv2d)
    if stride == 1 and own == 2 and stem.stride == (2, 2):
        stem.stride = (1, 1)
        try:
            _calls(network)
        except AttnlabError as error:
            stem.stride = (2, 2)
            raise AttnlabError(
                f"The stem of {name} cannot have stride 1: layers parallel to {first.name} also downsample, "
                "so their maps would no longer fit. Leave --model.stem_stride out."
            ) from error
        return
    takes = "1 or 2" if own == 2 and stem.stride == (2, 2) else str(own)
    height, width = stem.kernel_size
    raise AttnlabError(
        f"The stem of {name} is a {height}x{width} convolution of stride {own} ({first.name}); "
        f"--model.stem_stride must be {takes} or be left out, got {stride}."
    )


def _head(network: nn.Module, num_classes: int | None) -> str:
    """Name of the layer that makes the logits, e.g. ``fc`` or ``classifier.1``.

    It is the last linear layer or convolution with K outputs when a copy of the network runs on one image.
    """
    calls = _calls(network)
    made = calls[0].output
    classes = made[-1] if num_classes is None and isinstance(made, tuple) else num_classes
    if made != (1, classes):
        raise AttnlabError(
            f"{type(network).__name__} outputs {made} for one image, not the logits of {classes} classes."
        )
    for call in reversed(calls):
        if isinstance(call.module, nn.Linear | nn.Conv2d) and isinstance(call.output, tuple):
            channels = call.output[-1] if isinstance(call.module, nn.Linear) else call.output[1]
            if channels == classes:
                return call.name
    raise AttnlabError(
        f"{type(network).__name__} has no linear layer or convolution that outputs its {classes} logits."
    )


def _build(library: str, name: str, num_classes: int | None, options: dict[str, Any]) -> nn.Module:
    """The library's module; the error names options that it rejects or would ignore."""
    build = _constructor(library, name, num_classes)
    if own := [option for option in options if option in _OWN_ARGUMENTS]:
        raise AttnlabError(
            f"'{own[0]}' cannot be an option of {name}: the number of classes comes from the data, weights "
            "from --model.weights, and the output must be one tensor of logits."
        )
    if not options:
        return build()
    named = _named_options(library, build)
    unnamed = [option for option in options if option not in named]
    if unnamed and _swallows(build):
        raise unknown(f"option of {name}", unnamed[0], named)
    try:
        return build(**options)
    except REFUSALS as error:
        refused = [option for option in options if f"'{option}'" in str(error)]
        if isinstance(error, TypeError) and refused and "unexpected keyword" in str(error):
            raise unknown(f"option of {name}", refused[0], named) from error
        raise AttnlabError(f"{library} cannot build {name} with the options {options}: {error}") from error


def _constructor(library: str, name: str, num_classes: int | None) -> Callable[..., nn.Module]:
    """A function that builds a network without weights from the options."""
    classes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if library == "timm":
        import timm

        return partial(timm.create_model, name, pretrained=False, **classes)
    fixed: dict[str, Any] = {"weights": None, **classes}
    if name in ("googlenet", "inception_v3"):
        fixed |= {"aux_logits": False, "transform_input": True, "init_weights": True}
    return partial(models.get_model, name, **fixed)


def _swallows(build: Callable[..., nn.Module]) -> bool:
    """Whether the constructor accepts undefined options."""
    try:
        without_values(lambda: build(no_such_option_anywhere=0))
    except REFUSALS:
        return False
    return True


def _named_options(library: str, build: Callable[..., nn.Module]) -> set[str]:
    """Named arguments of a network's class and of the functions in its file that configure it."""
    cls = type(without_values(build))
    functions: list[Any] = [cls.__init__]
    if library == "torchvision":
        functions += filter(inspect.isfunction, vars(sys.modules[cls.__module__]).values())
    parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named - _OWN_ARGUMENTS


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim >= 2 and next(module.children(), None) is None


def _overlaps(module: nn.Module) -> bool:
    kernel, stride = getattr(module, "kernel_size", None), getattr(module, "stride", 1)
    if not isinstance(kernel, tuple) or len(kernel) != 2:
        return False
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    return any(k > s for k, s in zip(kernel, strides, strict=True))


def _side(network: nn.Module) -> int:
    """Side of the image that a network is observed on, in pixels: a few of timm's accept only one size."""
    config = getattr(network, "pretrained_cfg", None) or {}
    return int(config["input_size"][-1]) if config.get("fixed_input_size") else 224


def _calls(network: nn.Module) -> list[Call]:
    side = _side(network)
    example = torch.zeros(1, 3, side, side)
    observation = observe(network, example)
    if observation.error is not None:
        observation = observe(network, example, for_real=True)
    if observation.error is not None:
        raise AttnlabError(
            f"{type(network).__name__} does not run on one {side} x {side} image: {observation.error}"
        ) from observation.error
    return observation.calls


def _set_resnet_stem(network: nn.Module, stride: int, name: str) -> None:
    if stride == 4:
        return
    path, first = next(
        (path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d)
    )
    if stride not in (1, 2) or not path.startswith("conv1"):
        raise AttnlabError(
            f"The stem of {name} is a convolution of stride 2 ({path}) and a pooling of stride 2; "
            f"--model.stem_stride must be 1, 2 or 4 or be left out, got {stride}."
        )
    if max(first.kernel_size) > 3:
        smaller = nn.Conv2d(
            first.in_channels, first.out_channels, 3, padding=1, bias=first.bias is not None,
            device=first.weight.device, dtype=first.weight.dtype,
        )  # fmt: skip
        # As both libraries start the convolutions of a ResNet.
        nn.init.kaiming_normal_(smaller.weight, mode="fan_out", nonlinearity="relu")
        parent, _, child = path.rpartition(".")
        setattr(network.get_submodule(parent), child, smaller)
        first = smaller
    first.stride = (stride, stride)
    network.add_module("maxpool", nn.Identity())
