"""ELA as one operation that keeps its input and four strips for the backward pass.

Written layer by layer, ELA reads and writes the full map about nine times. Here it is two reads and one write
forward (strip means; gating), and three reads and one write beyond them backward:

    forward    z_h, z_w = strip means of x              g = σ(G(F(z)))          y = x · g_h · g_w
    backward   ∂g_h = Σ_w ∂y·x·g_w, ∂g_w = Σ_h ∂y·x·g_h       ∂z from ∂g through the small layers
               ∂x = ∂y · g_h · g_w + ∂z_h / W + ∂z_w / H

Strips are float32 for half-precision maps, float64 for float64. The operation is a ``torch.library`` one, so
that ``torch.compile``, export, fake tensors, hooks on saved tensors and the FLOP counter see through it or
past it as they would with any of torch's own. Gradients of gradients come from the formula in ordinary
operations, which costs what the formula costs. The transforms of ``torch.func`` (``grad``, ``jvp``) take no
operation of this kind: for them there is the module's ``implementation="formula"``.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attnlab.attention.kernels import strips
from attnlab.attention.kernels.choice import backend_for
from attnlab.attention.kernels.strips import Layers


def ela(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    norm_groups: int,
    eps: float = 1e-5,
    implementation: str = "auto",
) -> Tensor:
    """Gate every row and every column by its own strip mean, seen in its neighbourhood.

    Args:
        x: Map (B,C,H,W).
        weight: The strip convolution's weight (C, C / groups, k), k odd.
        norm_weight: Scale of the group normalisation (C).
        norm_bias: Shift of the group normalisation (C).
        norm_groups: Groups of the normalisation; they divide C.
        eps: What the normalisation adds to the variance.
        implementation: ``auto``, ``fused`` or ``triton``, see `attnlab.attention.kernels.choice`.

    Returns:
        The gated map (B,C,H,W), in the dtype and the memory format of ``x``.
    """
    return _ela(x, weight, norm_weight, norm_bias, norm_groups, eps, implementation)


def exporting() -> bool:
    """Whether the call is written down for another program, which has no operation of attnlab's."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def _ela(x: Tensor, *rest: Any) -> Tensor:
    *layers, implementation = rest
    if implementation == "auto" and exporting():
        return ela_formula(x, *layers)
    gated: Tensor = torch.ops.attnlab.ela(x, *rest)[0]
    return gated


torch.fx.wrap("_ela")  # a leaf: a graph of torch.fx may itself be exported


def ela_formula(
    x: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, norm_groups: int, eps: float = 1e-5
) -> Tensor:
    """What `ela` computes, in ordinary differentiable operations."""
    dtype = strips.sum_dtype(x.dtype)
    taps, scale, shift = (each.to(dtype) for each in (weight, norm_weight, norm_bias))
    # A kernel has one size; of one that a tracer holds open, torch's convolution makes no padding.
    groups, padding = taps.shape[0] // taps.shape[1], int(taps.shape[2]) // 2

    def gate(strip: Tensor) -> Tensor:
        convolved = functional.conv1d(strip, taps, padding=padding, groups=groups)
        return torch.group_norm(convolved, norm_groups, scale, shift, eps).sigmoid()

    wide = x.to(dtype)
    gate_h, gate_w = gate(wide.mean(dim=3)), gate(wide.mean(dim=2))
    return (wide * gate_h.unsqueeze(3) * gate_w.unsqueeze(2)).to(x.dtype)


# Defined so, and not by torch.library.custom_op, which at the first call imports torch's compiler: seconds.
_PARAMETERS = "Tensor weight, Tensor norm_weight, Tensor norm_bias"
_LAYERS = f"{_PARAMETERS}, int norm_groups, float eps, str implementation"
_STRIPS = "Tensor mean_h, Tensor mean_w, Tensor gate_h, Tensor gate_w"
_TAGS = torch.Tag.pt2_compliant_tag
torch.library.define(
    "attnlab::ela", f"(Tensor x, {_LAYERS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)", tags=_TAGS
)
torch.library.define(
    "attnlab::ela_backward",
    f"(Tensor dy, Tensor x, {_STRIPS}, {_LAYERS}) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=_TAGS,
)


def _forward(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """The gated map, then what backward needs: the strip means and the gates of both directions."""
    *layers, implementation = rest
    backend = backend_for(implementation, x.device)
    means = backend.means(x)
    with torch.autocast(x.device.type, enabled=False):
        gates = backend.strip_gates(means, Layers(*layers))
    return backend.gate(x, gates), *means, *gates


def _forward_shapes(x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return strips.empty_map(x), *strips.empty_strips(x), *strips.empty_strips(x)


def _backward(
    dy: Tensor, x: Tensor, mean_h: Tensor, mean_w: Tensor, gate_h: Tensor, gate_w: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    """The gradients of the map, of the convolution's weight, and of the normalisation's scale and shift."""
    *options, implementation = rest
    layers, backend, gates = Layers(*options), backend_for(implementation, x.device), (gate_h, gate_w)
    # One layout for both passes over it: a product of two layouts costs more than this copy.
    innermost = strips.channels_innermost(x)
    dy = dy.contiguous(memory_format=torch.channels_last if innermost else torch.contiguous_format)
    dgates = backend.gate_gradients(dy, x, gates)
    with torch.autocast(x.device.type, enabled=False):
        dmeans, dparameters = backend.strip_gates_gradients(dgates, gates, (mean_h, mean_w), layers)
    dx = backend.input_gradient(dy, gates, dmeans)
    # Compilers take the strides that the fake promises at its word. Where a map has a single position, two
    # layouts are one and the same, and `dy` may be taken for the other.
    if dx.stride() != strips.map_strides(x):
        dx = strips.empty_map(x).copy_(dx)
    # Sums come in any strides; and the results of an operation may not share memory, as slices of one sum do.
    pairs = zip(layers[:3], dparameters, strict=True)
    return dx, *(torch.empty_like(parameter).copy_(gradient) for parameter, gradient in pairs)


def _backward_shapes(dy: Tensor, x: Tensor, *saved: Any) -> tuple[Tensor, ...]:
    return strips.empty_map(x), *(torch.empty_like(parameter) for parameter in saved[4:7])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, norm_weight, norm_bias, *options = inputs
    _, *small = output
    ctx.mark_non_differentiable(*small)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, *small, weight, norm_weight, norm_bias)
    ctx.options = options


def _gradients(ctx: Any, dy: Tensor | None, *of_small: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 7
    dx, *dparameters = torch.ops.attnlab.ela_backward(dy, *ctx.saved_tensors, *ctx.options)
    return dx, *dparameters, None, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    dy, x, _, _, _, _, weight, norm_weight, norm_bias, norm_groups, eps, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(dy, x, weight, norm_weight, norm_bias)
    ctx.options = (norm_groups, eps)


def _second_gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of the gradients, by the formula in ordinary operations."""
    given = [(index, tangent) for index, tangent in enumerate(cotangents) if tangent is not None]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: where these are leaves that share a graph with others, only this graph is walked.
        dy, *inputs = (tensor.view_as(tensor).requires_grad_() for tensor in ctx.saved_tensors)
        y = ela_formula(*inputs, *ctx.options)
        first = torch.autograd.grad(y, inputs, dy, create_graph=True)
        second = torch.autograd.grad(
            [first[index] for index, _ in given],
            [dy, *inputs],
            [tangent for _, tangent in given],
            create_graph=again,
            allow_unused=True,
        )
    ddy, dx, *dparameters = second
    return ddy, dx, None, None, None, None, *dparameters, None, None, None


for _name, _compute, _shapes, _differentiate, _save in (
    ("attnlab::ela", _forward, _forward_shapes, _gradients, _keep),
    ("attnlab::ela_backward", _backward, _backward_shapes, _second_gradients, _keep_for_second),
):
    torch.library.impl(_name, "default", _compute)
    torch.library.register_fake(_name, _shapes)
    torch.library.register_autograd(_name, _differentiate, setup_context=_save)


@cache
def register_flops() -> None:
    """Tell torch's FLOP counter what the operations cost: two a multiply-accumulate of the convolutions.

    Called when a module is built, and not when this file is imported: the counter imports Triton.
    """
    from torch.utils.flop_counter import register_flop_formula

    def forward(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        batch, height, width = x[0], *x[2:]
        return 2 * batch * (height + width) * math.prod(weight)

    def backward(dy: Sequence[int], *rest: Any, **_: Any) -> int:
        """The convolution once more, and the gradients of its input and of its weight."""
        return 3 * forward(dy, rest[5])

    register_flop_formula(torch.ops.attnlab.ela)(forward)
    register_flop_formula(torch.ops.attnlab.ela_backward)(backward)
