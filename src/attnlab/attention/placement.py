"""``attach``: put an attention module into any network, without touching its code or its state-dict keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from attnlab.attention.layouts import find_layouts
from attnlab.attention.observe import Observation, Shape, is_map, observe
from attnlab.attention.placements import Target, find_targets, list_placements
from attnlab.attention.registry import get_attention, merged_options
from attnlab.attention.wrapper import MODES, Attended, Mode, public_modules
from attnlab.errors import AttnlabError, known_name, unknown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """A module that got attention.

    Attributes:
        name: Name of the module in the state dict.
        channels: Channels of its map.
        parameters: Parameters added; 0 if it shares the attention of an earlier site.
        before: Whether attention is on the module's input instead of its output.
        axis: Axis of the map's channels: 1, or 3 for maps (B,H,W,C), as those of Swin.
    """

    name: str
    channels: int
    parameters: int
    before: bool = False
    axis: int = 1


def attach(
    network: nn.Module,
    attention: str | Callable[[int], nn.Module],
    at: str | Sequence[str] = "auto",
    mode: Mode = "replace",
    *,
    options: Mapping[str, Any] | None = None,
    shared: bool | None = None,
    example: Any = None,
    **more_options: Any,
) -> list[Site]:
    """Put attention into a network, in place.

    Each site is replaced, in its parent, by an `Attended` that calls the site and then the attention.
    Channels are found by running the network on the ``meta`` device, on one size of image or, where modules
    leave open which axis they are, on three. Attach before ``torch.compile`` and distributed wrappers;
    weights can be loaded before or after. After an error the network is unchanged.

    Args:
        network: The network.
        attention: A registered name, an import path, or a function that builds a module for a number of
            channels. ``none`` inserts nothing.
        at: A named placement (`list_placements`); or a module's name, in which ``*``
            stands for any text, dots included; or ``re:`` and a regular expression for whole names; or a list
            of these.
        mode: ``replace``: y = A(x). ``residual``: y = x + A(x). ``rezero``: y = x + a(A(x) - x) with a
            learned from 0, so that outputs are unchanged at first.
        options: Options of the attention; can also be given as keywords, as in `build_attention`.
        shared: One attention for all sites with the same channels (true), or one per site (false). None: as
            the placement defines; only ``yolox.neck`` shares.
        example: The network's input, if not one 224 x 224 image: a tensor, or a tuple of arguments.
        **more_options: Further options of the attention; checked by name and type.

    Returns:
        The sites, in the order of the placement.

    Raises:
        AttnlabError: Nothing matches; a site is called with different channels, does not output a (B,C,H,W)
            or (B,H,W,C) map, is never called or already has attention; a name or option is unknown; or the
            network fails.

    Examples:
        >>> attach(torchvision.models.resnet18(), "ela_b", at="resnet.block", mode="rezero")
    """
    mode = cast(Mode, known_name(mode, MODES))
    if mode not in MODES:
        raise unknown("attention mode", mode, MODES)
    build = _builder(attention, merged_options(options, more_options))
    if isinstance(attention, str) and known_name(attention, ["none"]) == "none":
        return []
    modules = dict(public_modules(network))
    built: dict[int, nn.Module] = {}
    wrappers: dict[nn.Module, Attended] = {}
    sites: list[Site] = []
    found = _find(network, [at] if isinstance(at, str) else at, example)
    for target, (channels, axis) in found.items():
        old = modules[target.name]
        shares = target.shared if shared is None else shared
        is_new = not (shares and channels in built)
        module = _like(old, network, build(channels)) if is_new else built[channels]
        if shares:
            built[channels] = module
        wrapper = wrappers[old] = Attended(old, module, mode, target.before, axis)
        wrapper.training = old.training
        added = sum(parameter.numel() for parameter in wrapper.new_parameters())
        if not is_new:
            added -= sum(parameter.numel() for parameter in wrapper.attention.parameters())
        sites.append(Site(target.name, channels, added, target.before, axis))
    _replace(network, wrappers)
    count = f"{len(sites)} site{'s' if len(sites) > 1 else ''}"
    log.info("%s at %s of %s:\n%s", attention, count, type(network).__name__, describe(sites))
    return sites


def describe(sites: Sequence[Site]) -> str:
    """The sites, one per line: name, channels, parameters."""
    width = max((len(site.name) for site in sites), default=0)
    return "\n".join(
        f"  {site.name:{width}}  {site.channels:5d} channels  {site.parameters:8,d} parameters"
        + ("  (input)" if site.before else "")
        + ("  (B,H,W,C)" if site.axis == 3 else "")
        for site in sites
    )


def _builder(
    attention: str | Callable[..., nn.Module], options: Mapping[str, Any]
) -> Callable[[int], nn.Module]:
    """The function that builds the attention for a number of channels; options are checked first."""
    if not isinstance(attention, str):
        return lambda channels: attention(channels, **options)
    spec = get_attention(attention)
    spec.check(options)
    return lambda channels: spec.build(channels, **options)


def _find(network: nn.Module, patterns: Sequence[str], example: Any) -> dict[Target, tuple[int, int]]:
    """The sites and what they are, from a run on ``meta`` or, if that fails too early, a real one."""
    observation = _observe(network, example, for_real=False)
    if observation.error is not None:
        try:
            return _maps(observation, patterns)
        except AttnlabError:
            observation = _observe(network, example, for_real=True)
        if observation.error is not None:
            raise AttnlabError(
                f"{type(network).__name__} must run once to find its feature maps, but fails on "
                f"{'one 224 x 224 image' if example is None else 'the example given'}: {observation.error} "
                "Pass a valid input: attach(..., example=...)."
            ) from observation.error
    return _maps(observation, patterns)


def _observe(network: nn.Module, example: Any, for_real: bool) -> Observation:
    """A run, with the layout of each map."""
    observation = observe(network, example, for_real=for_real)
    find_layouts(observation, lambda *stretch: observe(network, example, for_real=for_real, stretch=stretch))
    return observation


def _maps(observation: Observation, patterns: Sequence[str]) -> dict[Target, tuple[int, int]]:
    targets = list(dict.fromkeys(target for pattern in patterns for target in _targets(observation, pattern)))
    names = [target.name for target in targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AttnlabError(f"'at' selects both input and output of {', '.join(twice)}; choose one.")
    if not targets:
        raise AttnlabError("'at' is empty: name a placement or a module.")
    return {target: _map_at(observation, target) for target in targets}


def _targets(observation: Observation, pattern: str) -> list[Target]:
    """The targets of one placement, name or pattern; not empty."""
    placements, names = list_placements(), [name for name in observation.modules if name]
    if pattern not in names:
        pattern = known_name(pattern, placements)
    if pattern in placements:
        targets = find_targets(pattern, observation)
        if not targets:
            other = [name for name in placements if name != "auto" and find_targets(name, observation)]
            raise AttnlabError(
                f"The placement '{pattern}' finds nothing in {_class(observation)}. It means: "
                f"{placements[pattern]} Placements that match: {', '.join(other) or 'none'}. "
                f"{_tokens(observation)}"
                f"Modules: {', '.join(names[:40])}{', …' if len(names) > 40 else ''}."
            )
        return targets
    if pattern.startswith("re:"):
        try:
            matches = re.compile(pattern.removeprefix("re:")).fullmatch
        except re.error as error:
            raise AttnlabError(f"'{pattern}' is not a valid regular expression: {error}.") from error
        found = [name for name in names if matches(name)]
    else:
        found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        hint = (
            f"Named placements: {', '.join(placements)}. Or a pattern over module names: *.bn2, re:.*bn[12]."
        )
        raise unknown(f"placement or module of {_class(observation)}", pattern, [*placements, *names], hint)
    return [Target(name) for name in found]


def _map_at(observation: Observation, target: Target) -> tuple[int, int]:
    """The channels of the target's map, and their axis."""
    module, calls = observation.modules[target.name], observation.of(target.name)
    site = f"The site '{target.name}' ({type(module).__name__})"
    if isinstance(module, Attended):
        raise AttnlabError(f"{site} already has attention: {type(module.attention).__name__}.")
    if not calls:
        raise AttnlabError(
            f"{site} is never called by {_class(observation)}, so attention there would have no effect."
        )
    maps = [
        (call.input, call.input_axis) if target.before else (call.output, call.output_axis) for call in calls
    ]
    axes, channels = set(), set()
    for shape, axis in maps:
        if not is_map(shape) or axis is None:
            verb = "takes" if target.before else "gives"
            raise AttnlabError(
                f"{site} {verb} {_in_words(shape)}; attention needs one feature map (B, C, H, W) or "
                f"(B, H, W, C). {_modules_with_maps(observation)}"
            )
        axes.add(axis)
        channels.add(shape[axis])
    if len(axes) > 1:
        raise AttnlabError(
            f"{site} is called with maps (B, C, H, W) and with maps (B, H, W, C): choose modules with one."
        )
    if len(channels) > 1:
        raise AttnlabError(
            f"{site} is called with maps of {', '.join(map(str, sorted(channels)))} channels; an attention "
            "module needs a fixed number. Choose modules with one."
        )
    if any(call.predicts for call in calls) and not target.before:
        log.warning(
            "%s gives what the network puts out: attention there changes the scores themselves.", site
        )
    return channels.pop(), axes.pop()


def _in_words(shape: Shape | str | None) -> str:
    """What a module takes or gives, where attention cannot go."""
    if not isinstance(shape, tuple):
        return shape or "nothing"
    words = f"a tensor of shape {shape}"
    if len(shape) == 3:
        return f"{words}, as the tokens (B, N, C) of a transformer"
    if len(shape) == 4:
        return f"{words}, whose axes do not follow the image's height and width as those of a map do"
    return words


def _tokens(observation: Observation) -> str:
    """A sentence for transformers; empty for others."""
    axes = [len(call.output) for call in observation.calls if isinstance(call.output, tuple)]
    if axes.count(3) <= axes.count(4):
        return ""
    return f"It works on tokens (B, N, C), which are no maps. {_modules_with_maps(observation)} "


def _modules_with_maps(observation: Observation) -> str:
    """A sentence that names some: the outer ones first."""
    names = dict.fromkeys(
        call.name for call in observation.calls if call.name and call.map_size not in (None, (1, 1))
    )
    first = sorted(names, key=lambda name: name.count("."))[:8]
    more = ", …" if len(names) > len(first) else ""
    return f"Modules with maps: {', '.join(first) or 'none'}{more}."


def _class(observation: Observation) -> str:
    return type(observation.modules[""]).__name__


def _like(site: nn.Module, network: nn.Module, attention: nn.Module) -> nn.Module:
    """The attention on the site's device, in its dtype and in its training or evaluation."""
    for module in (site, network):
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                return attention.to(tensor.device, tensor.dtype).train(site.training)
    return attention.train(site.training)


def _replace(network: nn.Module, wrappers: Mapping[nn.Module, nn.Module]) -> None:
    """Put each wrapper wherever its site is found, also where one module has several names."""
    places = [
        (parent, name, wrappers[child])
        for parent in network.modules()
        for name, child in parent._modules.items()
        if child is not None and child in wrappers
    ]
    for parent, name, wrapper in places:
        setattr(parent, name, wrapper)
