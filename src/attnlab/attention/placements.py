"""Named placements: where in a network of some family an attention module goes.

A placement looks at a network's modules, and at one run of it, and names targets. Families are known by their
attribute names and not by their classes, so that torchvision's, timm's and other networks of one family share
a placement, and this package imports none of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from attnlab.attention.observe import Call, Observation


@dataclass(frozen=True)
class Target:
    """A place in a network.

    Attributes:
        name: Name of the module, as in the state dict.
        before: The place is the module's first input, not its output.
        shared: The placement gives all its targets of the same channels one module, unless asked otherwise.
    """

    name: str
    before: bool = False
    shared: bool = field(default=False, compare=False)


Placement = Callable[[Observation], list[Target]]

_placements: dict[str, Placement] = {}

AUTO = ("resnet.block", "mobilenetv2.depthwise", "yolox.neck", "stage")
"""What ``auto`` tries, in this order."""

NUMBERED_STAGE = re.compile(r"(^|\.)(layer[1-9]|s[1-9]|stages?[._]?\d|block[1-9])$")
"""How networks name their stages; ``layer0`` is the stem where there is one."""


def register_placement(name: str) -> Callable[[Placement], Placement]:
    """Decorator that gives a placement function a name for ``at``.

    Args:
        name: The name, e.g. ``"yolox.neck"``. The first line of the function's docstring is its description.

    Returns:
        The decorator; it returns the function unchanged.
    """

    def register(placement: Placement) -> Placement:
        _placements[name] = placement
        return placement

    return register


def list_placements() -> dict[str, str]:
    """The named placements and what each means."""
    return {
        name: (placement.__doc__ or "No description.").strip().splitlines()[0]
        for name, placement in _placements.items()
    }


def find_targets(name: str, observation: Observation) -> list[Target]:
    """The targets of a named placement that the observed run called; empty if the network has none.

    Args:
        name: A key of `list_placements`.
        observation: A run of the network.

    Returns:
        The targets. Where the run ended early, uncalled ones are kept: they may have come later.
    """
    called = {call.name for call in observation.calls}
    targets = _placements[name](observation)
    return [target for target in targets if observation.error is not None or target.name in called]


@register_placement("auto")
def auto(observation: Observation) -> list[Target]:
    """The usual one for a network: resnet.block, mobilenetv2.depthwise, yolox.neck or else stage."""
    return next((targets for name in AUTO if (targets := find_targets(name, observation))), [])


@register_placement("resnet.block")
def resnet_block(observation: Observation) -> list[Target]:
    """After the last normalisation of each residual block, before the addition.

    A residual block is a module with ``conv1`` and ``downsample``; its last normalisation is ``bn3``, else
    ``bn2``. A squeeze-and-excitation of the network itself (SENet) follows the new attention.
    """
    return [
        Target(f"{name}.bn{last}")
        for name, module in observation.modules.items()
        if hasattr(module, "downsample") and _has(module, "conv1")
        for last in [max((n for n in (1, 2, 3) if _has(module, f"bn{n}")), default=0)]
        if last > 1
    ]


@register_placement("resnet.conv2")
def resnet_conv2(observation: Observation) -> list[Target]:
    """In each bottleneck block, after the 3x3 convolution, its normalisation and its activation.

    torchvision calls one ReLU three times per block, so the site is the input of ``conv3``.
    """
    return [
        Target(f"{name}.conv3", before=True)
        for name, module in observation.modules.items()
        if hasattr(module, "downsample") and _has(module, "conv1", "conv3")
    ]


@register_placement("mobilenetv2.depthwise")
def mobilenetv2_depthwise(observation: Observation) -> list[Target]:
    """After the depthwise convolution's activation in each inverted residual block that expands its channels.

    Blocks that already have attention (MobileNetV3, EfficientNet) are excluded.
    """
    blocks = observation.modules.items()
    if any(_has(block, "conv_dw", "se") and not isinstance(block.se, nn.Identity) for _, block in blocks):
        return []
    return [
        Target(f"{name}.{place}")
        for name, block in blocks
        if (place := _torchvision_depthwise(block) or _timm_depthwise(block))
    ]


def _torchvision_depthwise(block: nn.Module) -> str:
    """``conv.1`` of [expand, depthwise, project, normalise]; blocks that do not expand have three steps."""
    steps = getattr(block, "conv", None)
    if isinstance(steps, nn.Sequential) and len(steps) == 4:
        convolution = next((module for module in steps[1].modules() if isinstance(module, nn.Conv2d)), None)
        if convolution is not None and convolution.groups == convolution.out_channels > 1:
            return "conv.1"
    return ""


def _timm_depthwise(block: nn.Module) -> str:
    """``bn2``, which has the activation in it; blocks that do not expand have no ``conv_pwl``."""
    return "bn2" if _has(block, "conv_pw", "conv_dw", "bn2", "conv_pwl") else ""


@register_placement("stage")
def stage(observation: Observation) -> list[Target]:
    """The output of each stage of the backbone, from stride 4 on.

    The backbone is ``encoder``, ``backbone.body`` or ``backbone`` of a task's network, else the network. Its
    trunk is the modules it calls directly, up to where maps grow again (a neck, a decoder); containers (lists
    of maps, modules with several resolutions) are opened. Modules with a stage's name (``layer1``, ``s1``,
    ``stages.0``) are the stages, even if dilation gives several the same resolution. Otherwise a stage is
    everything at one resolution, up to the last module with a convolution larger than 1x1, or on maps
    (B,H,W,C) with several linear layers, which leaves out the head of a MobileNet. What a head puts out is no
    stage, and neither is the patch embedding of a network that goes on with tokens.
    """
    backbone = _backbone(observation)
    if backbone is None or backbone.input is None:
        return []
    height = backbone.input[2]
    downward = _downward(observation.within(backbone), height)
    by_size: dict[tuple[int, int], list[Call]] = {}
    for call in _trunk(observation, downward):
        if (size := _wide(call)) and not call.predicts and height // size[0] >= 4:
            by_size.setdefault(size, []).append(call)
    numbered = [call for calls in by_size.values() for call in calls if NUMBERED_STAGE.search(call.name)]
    if len(numbered) > 1:
        return [Target(call.name) for call in numbered]
    stages = [Target(last.name) for calls in by_size.values() if (last := _last_of_stage(calls))]
    goes_on_with_tokens = any(isinstance(call.output, tuple) and len(call.output) == 3 for call in downward)
    return [] if goes_on_with_tokens and len(stages) < 2 else stages


def _downward(calls: list[Call], height: int) -> list[Call]:
    """The calls before the first whose map is larger than that of the call before it, from stride 4 on."""
    smallest = height
    for index, call in enumerate(calls):
        size = _wide(call)
        if size and size[0] > smallest and height // smallest >= 4:
            return calls[:index]
        if size:
            smallest = size[0]
        elif call.map_size is None:
            smallest = height  # several maps: the next call may take any
    return calls


def _wide(call: Call) -> tuple[int, int] | None:
    """Height and width of the output, if it is a map of more than one position."""
    return None if call.map_size == (1, 1) else call.map_size


def _backbone(observation: Observation) -> Call | None:
    """The backbone's finished call, also inside modules that only wrap another."""
    call = observation.calls[0] if observation.calls else None
    while call is not None:
        for child in ("encoder", "backbone.body", "backbone"):
            name = f"{call.name}.{child}".removeprefix(".")
            found = next((other for other in observation.of(name) if other.output is not None), None)
            if found is not None:
                return found
        children = observation.within(call)
        if len(children) != 1:
            break
        call = children[0]
    return call if call is not None and call.output is not None else None


def _trunk(observation: Observation, calls: list[Call]) -> list[Call]:
    """The calls in order, containers replaced by their own calls."""
    trunk: list[Call] = []
    for call in calls:
        children = observation.within(call)
        sizes = {_wide(child) for child in children} - {None}
        # A block may halve the map once; a plain sequence that does so contains two stages.
        many = 1 if isinstance(call.module, nn.Sequential) else 2
        is_container = call.map_size is None or len(sizes) > many
        trunk += _trunk(observation, children) if is_container else [call]
    return trunk


def _last_of_stage(calls: list[Call]) -> Call | None:
    """The last call that mixes positions, with its normalisation and activation."""
    last, bare = None, False
    for call in calls:
        kernels = [max(m.kernel_size) for m in call.module.modules() if isinstance(m, nn.Conv2d)]
        linear = sum(isinstance(module, nn.Linear) for module in call.module.modules())
        if max(kernels, default=0) > 1 or (call.output_axis == 3 and linear > 1):
            last, bare = call, isinstance(call.module, nn.Conv2d)
        elif kernels:
            bare = False
        elif last is not None and bare:
            last = call
    return last


@register_placement("aspp")
def aspp(observation: Observation) -> list[Target]:
    """After the atrous spatial pyramid pooling of DeepLab heads: each module of a class named ASPP."""
    return [Target(name) for name, module in observation.modules.items() if type(module).__name__ == "ASPP"]


@register_placement("decoder")
def decoder(observation: Observation) -> list[Target]:
    """The output of ``decoder`` in networks that also have a ``segmentation_head``."""
    return [
        Target(f"{name}.decoder".removeprefix("."))
        for name, module in observation.modules.items()
        if _has(module, "decoder", "segmentation_head")
    ]


@register_placement("fpn")
def fpn(observation: Observation) -> list[Target]:
    """Each map from a feature pyramid to the heads: torchvision's FPN, or YOLOX's PAFPN.

    The extra, coarser maps of torchvision's detectors are left out.
    """
    return [
        Target(f"{name}.{maps}.{level}".removeprefix("."))
        for name, module in observation.modules.items()
        for maps, sibling in (("layer_blocks", "inner_blocks"), ("outputs", "merge"))
        if _has(module, maps, sibling)
        for level, _ in getattr(module, maps).named_children()
    ]


@register_placement("yolox.neck")
def yolox_neck(observation: Observation) -> list[Target]:
    """YOLOX's neck: on the three backbone maps and after each concatenation; one module per channel count.

    The placement of ELA's authors (their YOLOX code): the finest map has its own module; the other two
    channel counts each share one between the backbone map and two concatenations.
    """
    return [
        Target(f"{name}.{part}.{place}".removeprefix("."), shared=True)
        for name, module in observation.modules.items()
        if _has(module, "inputs", "merge")
        for part in ("inputs", "merge")
        for place, _ in getattr(module, part).named_children()
    ]


@register_placement("yolof.projector")
def yolof_projector(observation: Observation) -> list[Target]:
    """YOLOF's encoder: before its projector, and after it. ELA's authors use mode residual there."""
    return [
        target
        for name, module in observation.modules.items()
        if _has(module, "projector.lateral", "projector.output_norm", "blocks")
        for target in (
            Target(f"{name}.projector.lateral".removeprefix("."), before=True),
            Target(f"{name}.projector.output_norm".removeprefix(".")),
        )
    ]


def _has(module: nn.Module, *names: str) -> bool:
    """Whether the module has these children, or grandchildren by a dotted name."""
    return all(isinstance(_child(module, name), nn.Module) for name in names)


def _child(module: nn.Module, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
