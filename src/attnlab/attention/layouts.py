"""Which axis of a map is its channels: (B,C,H,W), or (B,H,W,C) as in Swin.

A shape does not say it. What does: the module (a convolution has its channels first, a linear layer last),
and how the shape changes with the image. A taller image makes one axis of a map longer, a wider one another;
the axis that stays is the channels. In tokens and in matrices of similarities, one axis changes with both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from torch import nn

from attnlab.attention.observe import Call, Observation, Shape, is_map
from attnlab.attention.wrapper import Attended

CHANNELS_FIRST, CHANNELS_LAST = 1, 3

STRETCHES = (Fraction(3, 2), Fraction(2))
"""How much taller and wider: a detector may cap a longer side; a U-Net may not take a shorter one."""

Axes = tuple[int, ...]

_BY_CHANGE: dict[tuple[Axes, Axes], int] = {
    ((2,), (3,)): CHANNELS_FIRST,
    ((3,), (2,)): CHANNELS_FIRST,
    ((2,), ()): CHANNELS_FIRST,
    ((), (3,)): CHANNELS_FIRST,
    ((1,), (2,)): CHANNELS_LAST,
    ((2,), (1,)): CHANNELS_LAST,
    ((1,), ()): CHANNELS_LAST,
}
"""By the axes that change with the image's height, and those that change with its width."""
_SILENT = {((), ()), ((), (2,)), ((3,), ())}
"""Changes that fit both, as those of maps of a fixed size."""

_FIRST = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d, nn.GroupNorm),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.Dropout2d),
)


def find_layouts(observation: Observation, stretched: Callable[[Fraction, Fraction], Observation]) -> None:
    """Write down, for each call of a run, which axis of its map is the channels.

    Args:
        observation: The run; its calls get ``input_axis`` and ``output_axis``, None where there is no map or
            nothing tells.
        stretched: Runs the network on an image that many times as tall and as wide. Asked only where the
            modules leave something open; a network of one size may fail.
    """
    votes = _votes(observation.calls)
    taller: Sequence[Call] = ()
    wider: Sequence[Call] = ()
    if any(votes.get(shape) != {CHANNELS_FIRST} for call in observation.calls for shape in _maps(call)):
        same = Fraction(1)
        taller = _calls_of(observation, lambda by: stretched(by, same))
        wider = _calls_of(observation, lambda by: stretched(same, by))
    for index, call in enumerate(observation.calls):
        kind, tall, wide = _kind(call.module), taller[index : index + 1], wider[index : index + 1]
        call.input_axis = _axis(kind, call.input, [c.input for c in (*tall, *wide)], votes)
        call.output_axis = _axis(kind, call.output, [c.output for c in (*tall, *wide)], votes)


def _calls_of(observation: Observation, run: Callable[[Fraction], Observation]) -> Sequence[Call]:
    """The same calls on a larger image, by the first stretch that the network takes; empty if by none.

    A detector may shrink a long image, so that both sides of its maps change: then sizes tell nothing. That
    shows at the first map whose layout the module says.
    """
    names = [call.name for call in observation.calls]
    known = (i for i, call in enumerate(observation.calls) if _kind(call.module) and is_map(call.output))
    first = next(known, None)
    for by in STRETCHES:
        calls = run(by).calls
        if [call.name for call in calls] == names and (first is None or _follows(observation, calls, first)):
            return calls
    return []


def _follows(observation: Observation, calls: Sequence[Call], index: int) -> bool:
    """Whether at most one side of this call's map is another on the larger image."""
    shape, other = observation.calls[index].output, calls[index].output
    return is_map(shape) and is_map(other) and len(_changes(shape, other)) <= 1


def _axis(
    kind: int | None, shape: Shape | str | None, others: Sequence[Any], votes: Mapping[Shape, set[int]]
) -> int | None:
    """The axis of channels, by a module's kind, the shapes on a taller and a wider image, and the votes."""
    if not is_map(shape):
        return None
    if kind == CHANNELS_FIRST:
        return kind
    if len(others) == 2 and all(map(is_map, others)):
        taller, wider = others
        changes = _changes(shape, taller), _changes(shape, wider)
        if changes not in _SILENT:
            return _BY_CHANGE.get(changes)
    if kind is not None:
        return kind
    voted = votes.get(shape, set())
    if not voted and shape[1:3] != shape[2:4] and (1, 1) in (shape[1:3], shape[2:4]):
        return CHANNELS_LAST if shape[1:3] == (1, 1) else CHANNELS_FIRST
    return next(iter(voted)) if len(voted) == 1 else None


def _changes(shape: Shape, other: Shape) -> Axes:
    return tuple(axis for axis in range(4) if shape[axis] != other[axis])


def _votes(calls: Sequence[Call]) -> dict[Shape, set[int]]:
    """What the modules that take or give a shape say of it."""
    votes: dict[Shape, set[int]] = {}
    for call in calls:
        kind = _kind(call.module)
        if kind is not None:
            for shape in _maps(call):
                votes.setdefault(shape, set()).add(kind)
    return votes


def _kind(module: nn.Module) -> int | None:
    """The axis of channels of the maps that a module takes and gives, if its class says it."""
    if isinstance(module, Attended):
        module = module.site
    if isinstance(module, _FIRST):
        return CHANNELS_FIRST
    # Subclasses of LayerNorm are there to have the channels first.
    is_norm = type(module) is nn.LayerNorm and len(module.normalized_shape) == 1
    return CHANNELS_LAST if is_norm or type(module) is nn.Linear else None


def _maps(call: Call) -> Iterator[Shape]:
    yield from (shape for shape in (call.input, call.output) if is_map(shape))
