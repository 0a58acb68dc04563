"""Multiply-accumulates (MACs), counted from shapes.

Convolutions and matrix products count; additions, products and means of maps, activations, normalisation and
pooling count as zero, as is usual for CNNs. One MAC is two FLOPs.

The counts are those of PyTorch's FLOP counter. That one sees every operation below Python, and loads the
compiler to do so, which takes several times as long as counting all modules of this package; so it is asked
only for functions that are not known here.
"""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import attnlab.attention.kernels  # noqa: F401  (registers torch.ops.attnlab.ela)

# Modules whose work is counted.
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def _of_convolution(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * math.prod(weight.shape[1:])


def _of_transposed(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return x.numel() * math.prod(weight.shape[1:])


def _of_product(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int | None:
    return None if 1 in (a.ndim, b.ndim) else out.numel() * a.shape[-1]


def _of_sum_and_product(out: Tensor, _: Tensor, a: Tensor, *__: Any, **___: Any) -> int:
    return out.numel() * a.shape[-1]


def _of_attention(out: Tensor, query: Tensor, key: Tensor, *_: Any, **__: Any) -> int:
    return (query.numel() + out.numel()) * key.shape[-2]


def _of_einsum(out: Tensor, equation: str, *operands: Any, **_: Any) -> int | None:
    """Of two operands whose indices are all in the other or in the result, and some of them summed over."""
    terms = [set(term.strip()) for term in equation.partition("->")[0].split(",")]
    result = set(equation.partition("->")[2].strip())
    if len(operands) != 2 or "->" not in equation or "." in equation:
        return None
    first, second = terms
    if (first ^ second) - result or not (first & second) - result:
        return None
    sizes: dict[str, int] = {}
    for term, operand in zip(equation.partition("->")[0].split(","), operands, strict=True):
        sizes |= zip(term.strip(), operand.shape, strict=True)
    return math.prod(sizes.values())


def _of_ela(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    batch, height, width = x.shape[0], *x.shape[2:]
    return batch * (height + width) * weight.numel()


# What a function comes to, from its result and arguments; None where the library is to be asked.
_COUNTED: dict[Any, Callable[..., int | None]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _of_convolution),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _of_transposed),
    **dict.fromkeys((F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__), _of_product),
    **dict.fromkeys((torch.mm, Tensor.mm, torch.bmm, Tensor.bmm), _of_product),
    **dict.fromkeys((torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm), _of_sum_and_product),
    F.scaled_dot_product_attention: _of_attention,
    torch.einsum: _of_einsum,
    torch.ops.attnlab.ela: _of_ela,
}
# Builtins that multiply in another way, and functions in Python that multiply nowhere.
_OTHER_PRODUCTS = {
    getattr(home, name)
    for home in (torch, Tensor)
    for name in (
        *("mv", "dot", "vdot", "inner", "ger", "outer", "addmv", "addbmm", "addr", "kron", "bilinear"),
        *(
            "chain_matmul",
            "lstm",
            "gru",
            "rnn_tanh",
            "rnn_relu",
            "lstm_cell",
            "gru_cell",
            "conv_tbc",
            "cdist",
        ),
    )
    if hasattr(home, name)
}
_FREE_IN_PYTHON = {
    getattr(home, name)
    for home, names in (
        (F, "batch_norm layer_norm group_norm instance_norm normalize relu relu6 leaky_relu elu silu mish"),
        (F, "gelu hardswish hardsigmoid hardtanh sigmoid softmax log_softmax softplus dropout dropout2d pad"),
        (F, "interpolate upsample adaptive_avg_pool2d adaptive_max_pool2d max_pool2d unfold"),
        (torch, "split stack meshgrid norm unique"),
        (Tensor, "split unflatten norm unique __rsub__ __rdiv__ __rpow__ __len__ __iter__"),
    )
    for name in names.split()
    if hasattr(home, name)
}
_BUILTIN = (
    *(types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType),
    types.MethodWrapperType,
)


class _Counter(TorchFunctionMode):
    """Adds up the MACs of what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func not in _COUNTED:
            known = (isinstance(func, _BUILTIN) and func not in _OTHER_PRODUCTS) or func in _FREE_IN_PYTHON
            return func(*args, **given) if known else self._by_library(func, args, given)
        if len(args) < 2:  # operands by name, which the formulas do not know
            return self._by_library(func, args, given)
        out = func(*args, **given)
        macs = _COUNTED[func](out, *args, **given)
        if macs is None:
            return self._by_library(func, args, given)
        self.macs += macs
        return out

    def _by_library(self, func: Any, args: Any, given: dict[str, Any]) -> Any:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            out = func(*args, **given)
        self.macs += counter.get_total_flops() // 2
        return out


def count_macs(module: nn.Module, *shape: int, device: str = "meta") -> int:
    """MACs of one call in evaluation with a tensor of a shape, e.g. ``1, 64, 56, 56``; see `macs_within`."""
    return macs_within(module, (), *shape, device=device)[0]


def macs_within(
    network: nn.Module, parts: Iterable[nn.Module], *shape: int, device: str = "meta"
) -> tuple[int, int]:
    """MACs of one call in evaluation, and those of them that are done in some of the network's modules.

    A copy runs on the ``meta`` device, without computing; where it stops there before all its weights were
    used, since a second stage looks at what depends on values, a copy runs on the CPU.

    Args:
        network: Takes one tensor. Not changed.
        parts: The modules in it.
        *shape: Shape of the tensor, e.g. ``1, 3, 224, 224``.
        device: Where to try first; ``cpu`` spares small maps what PyTorch loads for ``meta``.

    Returns:
        The two counts. It raises what the network does, if it cannot run.
    """
    inside = {id(module) for module in parts}
    names = [name for name, module in network.named_modules() if id(module) in inside]
    try:
        return _count(network, names, shape, device)
    except (NotImplementedError, RuntimeError):
        if device == "cpu" or any(parameter.is_meta for parameter in network.parameters()):
            raise
        return _count(network, names, shape, "cpu")


def _count(network: nn.Module, names: list[str], shape: tuple[int, ...], device: str) -> tuple[int, int]:
    # On meta the weights are not copied, only what is known of them.
    known = [*network.parameters(), *network.buffers()] if device == "meta" else []
    probe = copy.deepcopy(network, {id(tensor): tensor.detach().to("meta") for tensor in known})
    probe.to(device, torch.float32).eval()
    spent = 0

    # The counter's own per-module table goes by names that a wrapper repeats, so the share is taken from
    # the running total before and after each part.
    counter = _Counter()
    before: list[int] = []

    def enter(module: nn.Module, args: object) -> None:
        before.append(counter.macs)

    def leave(module: nn.Module, args: object, output: object) -> None:
        nonlocal spent
        spent += counter.macs - before.pop()

    for name in names:
        module = probe.get_submodule(name)
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    # Attention may use its weights without calling the modules that hold them.
    inside = {part for name in names for part in probe.get_submodule(name).modules()}
    unused = {module for module in probe.modules() if isinstance(module, _WEIGHTED)} - inside
    for module in unused:
        module.register_forward_hook(lambda module, args, output: unused.discard(module))
    with torch.no_grad(), counter:
        try:
            probe(torch.zeros(shape, device=device))
        except (NotImplementedError, RuntimeError):
            # A detector of one stage is through with its weights when it sorts out its boxes.
            if unused or not any(isinstance(module, _WEIGHTED) for module in probe.modules()):
                raise
    return counter.macs, spent
