"""One run of a network without data, to see what each of its modules makes.

The run is on the ``meta`` device, where tensors have shapes and no values: it costs milliseconds and no
memory. A network that makes tensors of its own on another device, or whose shapes depend on values, cannot
finish there; `attnlab.attention.placement` then runs it once for real, on zeros.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from attnlab.attention.flow import Flow, maker_of, mark, origins_of
from attnlab.attention.wrapper import public_modules

Shape = tuple[int, ...]


def is_map(shape: Shape | str | None) -> TypeGuard[Shape]:
    """Whether it is the shape of a tensor with four axes."""
    return isinstance(shape, tuple) and len(shape) == 4


@dataclass
class Call:
    """One call of a module.

    Attributes:
        name: The module's name in the state dict's language; ``""`` for the network.
        module: The module.
        parent: Index of the call within which it happened, None for the network's own.
        input: Shape of the first input; None if that is no tensor.
        output: Shape of the output; words for what it is if that is no tensor; None if it did not return.
        input_axis: Axis of the channels of the first input, 1 or 3; None if it is no map, or nothing tells.
            Is 1 until `attnlab.attention.layouts` has looked.
        output_axis: That of the output.
        predicts: A convolution made the output, and it ends in the network's output with none after it: the
            scores of a head, and no features.
    """

    name: str
    module: nn.Module
    parent: int | None
    input: Shape | None
    output: Shape | str | None = None
    input_axis: int | None = 1
    output_axis: int | None = 1
    predicts: bool = False

    @property
    def map_size(self) -> tuple[int, int] | None:
        """Height and width of the output; None unless it is one (B,C,H,W) or (B,H,W,C) map."""
        if not is_map(self.output) or self.output_axis is None:
            return None
        height, width = (self.output[axis] for axis in (1, 2, 3) if axis != self.output_axis)
        return height, width


@dataclass
class Observation:
    """All calls of one run, in the order in which they began.

    Attributes:
        modules: The modules, by name, of the copy that ran.
        calls: The calls.
        error: What ended the run early, if anything did.
    """

    modules: dict[str, nn.Module]
    calls: list[Call] = field(default_factory=list)
    error: Exception | None = None

    def of(self, name: str) -> list[Call]:
        """The calls of one module."""
        return [call for call in self.calls if call.name == name]

    def within(self, call: Call) -> list[Call]:
        """The calls that another call made itself."""
        index = next(index for index, other in enumerate(self.calls) if other is call)
        return [other for other in self.calls if other.parent == index]


def observe(
    network: nn.Module,
    example: Any = None,
    *,
    for_real: bool = False,
    stretch: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1)),
) -> Observation:
    """Run a network once in eval mode, without gradients, and write down its calls.

    What runs is a copy (without values, unless for real), so that the network is left as it was.

    Args:
        network: The network.
        example: What it takes: a tensor, or a tuple of positional arguments. None stands for one image of
            224 x 224, with as many channels as the network's ``in_channels`` says, or else as the first
            convolution takes.
        for_real: Run on the network's own device and values instead of ``meta``.
        stretch: How many times as tall and as wide the images are, by repetition.

    Returns:
        The calls; those up to the error, if there is one.
    """
    twin = _twin(network, for_real).eval()
    observation = Observation(dict(public_modules(twin)))
    arguments = example if isinstance(example, tuple) else (_image(network) if example is None else example,)
    device = next((tensor.device for tensor in _tensors(twin)), torch.device("cpu"))
    with torch.no_grad(), _watching(observation), Flow():
        try:
            twin(*_to(_stretched(arguments, *stretch), device))
        except Exception as error:  # any network's own error; the caller decides whether it matters
            observation.error = error
    return observation


def _twin(network: nn.Module, for_real: bool) -> nn.Module:
    """A copy to run: a network may keep tensors of its last run (anchors), and must not keep this one's."""
    if for_real:
        return copy.deepcopy(network)
    memo: dict[int, Any] = {}  # deepcopy takes what it finds here for copied, so no value is copied
    for tensor in _tensors(network):
        shape = tensor.detach().to("meta")
        memo[id(tensor)] = (
            nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape
        )
    return copy.deepcopy(network, memo)


@contextmanager
def _watching(observation: Observation) -> Iterator[None]:
    """Hook every module so that its calls are written into the observation."""
    calls = observation.calls
    open_calls: list[int] = []
    names = {module: name for name, module in observation.modules.items()}
    bare: dict[int, list[Call]] = {}  # by the index of a convolution, the calls that give its output as it is

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        parent = open_calls[-1] if open_calls else None
        first = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else None
        open_calls.append(len(calls))
        calls.append(Call(names[module], module, parent, first))

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        index = open_calls.pop()
        call = calls[index]
        call.output = tuple(output.shape) if isinstance(output, Tensor) else _in_words(output)
        if isinstance(module, nn.Conv2d):
            mark(output, index)
        if isinstance(output, Tensor) and (maker := maker_of(output)) is not None:
            bare.setdefault(maker, []).append(call)
        if not open_calls:
            for origin in origins_of(output):
                for each in bare[origin]:
                    each.predicts = True

    handles = [module.register_forward_pre_hook(enter) for module in names]
    handles += [module.register_forward_hook(leave) for module in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stretched(value: Any, rows: Fraction, columns: Fraction, is_image: bool = False) -> Any:
    """The images of some arguments, (B,C,H,W) or in a list (C,H,W), as many times as tall and as wide."""
    if isinstance(value, Tensor):
        if value.ndim < 4 - is_image or rows == columns == 1:
            return value
        height, width = math.ceil(value.shape[-2] * rows), math.ceil(value.shape[-1] * columns)
        again = (*[1] * (value.ndim - 2), math.ceil(rows), math.ceil(columns))
        return value.repeat(again)[..., :height, :width]
    if isinstance(value, list | tuple):
        is_images = isinstance(value, list)
        return type(value)(_stretched(item, rows, columns, is_images) for item in value)
    return value


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _image(network: nn.Module) -> Tensor:
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return torch.zeros(1, 3, 224, 224)
    channels = getattr(network, "in_channels", first.in_channels)
    return torch.zeros(1, channels, 224, 224, dtype=first.weight.dtype)


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(_to(item, device) for item in value)
    return {key: _to(item, device) for key, item in value.items()} if isinstance(value, dict) else value


def _in_words(value: Any) -> str:
    return (
        f"a {type(value).__name__} of {len(value)}"
        if hasattr(value, "__len__")
        else f"a {type(value).__name__}"
    )
