"""Which convolutions a network's output comes from with no other after: those that make its scores.

Each tensor of a run carries the numbers of the convolutions that it comes from, through everything that mixes
neither channels nor positions by weights. What a scripted function does, or an assignment to an index, is not
seen: the convolution before it then does not count as one that makes scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_MIXING = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"),
    *("matmul", "__matmul__", "bmm", "mm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention"),
}
"""Functions after which the origins are forgotten."""


class Flow(TorchFunctionMode):
    """While this is on, each function's results have the origins of its arguments."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and hand the origins on."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = list(_tensors_in(result))
        if made:
            mixes = getattr(func, "__name__", "") in _MIXING
            origins = frozenset() if mixes else origins_of((args, kwargs))
            for tensor in made:
                _set(tensor, origins, None)
        return result


def mark(output: Tensor, number: int) -> None:
    """Say that a tensor is the output of the convolution of this number."""
    _set(output, frozenset([number]), number)


def maker_of(tensor: Tensor) -> int | None:
    """The convolution whose very output a tensor is, unchanged."""
    return _get(tensor)[1]


def origins_of(value: Any) -> frozenset[int]:
    """The convolutions that the tensors in a value (tuples, lists and mappings are opened) come from."""
    return frozenset().union(*(_get(tensor)[0] for tensor in _tensors_in(value)))


def _set(tensor: Tensor, origins: frozenset[int], maker: int | None) -> None:
    tensor.attnlab_flow = origins, maker  # type: ignore[attr-defined]  # lives as long as the tensor


def _get(tensor: Tensor) -> tuple[frozenset[int], int | None]:
    return getattr(tensor, "attnlab_flow", (frozenset(), None))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(item)
