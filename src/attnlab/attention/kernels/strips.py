"""Strip means of a map, and gates that scale its rows and columns, in ordinary differentiable operations.

A channels_last map is taken as (B,H,W,C), and its strips and gates as (B,L,C) in memory: strips laid out
(B,C,L) would be read and written with a stride at every step. The layouts of `attnlab.attention.kernels` are
said here.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

Strips = tuple[Tensor, Tensor]
"""A strip of the rows (B,C,H) and one of the columns (B,C,W)."""


class Layers(NamedTuple):
    """What lies between strip means and gates, the same for both directions.

    Attributes:
        weight: The convolution's weight (C, C / groups, k), k odd.
        norm_weight: Scale of the group normalisation (C).
        norm_bias: Shift of the group normalisation (C).
        norm_groups: Groups of the normalisation; they divide C.
        eps: What the normalisation adds to the variance.
    """

    weight: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    norm_groups: int
    eps: float


def strip_means(x: Tensor) -> Strips:
    """The mean of every row and of every column of a map.

    Args:
        x: Map (B,C,H,W).

    Returns:
        The mean over the width (B,C,H) and the mean over the height (B,C,W).
    """
    return _strip_means(x)


def gate_strips(x: Tensor, gate_h: Tensor, gate_w: Tensor) -> Tensor:
    """Scale every row and every column of a map: ``y[b,c,i,j] = x[b,c,i,j] · gate_h[b,c,i] · gate_w[b,c,j]``.

    Args:
        x: Map (B,C,H,W).
        gate_h: Gates of the rows (B,C,H); they are taken in the dtype of the map.
        gate_w: Gates of the columns (B,C,W), likewise.

    Returns:
        The gated map, in the dtype and the memory format of ``x``.
    """
    return _gate_strips(x, gate_h, gate_w)


def lay_out_like(y: Tensor, x: Tensor) -> Tensor:
    """The values of a map (B,C,*,*) in the memory format of another, channels_last or contiguous.

    Args:
        y: The map; it is not copied where it has that format.
        x: The map whose format is taken.

    Returns:
        The map.
    """
    return _lay_out_like(y, x)


def _strip_means(x: Tensor) -> Strips:
    if channels_innermost(x):
        of_map = x.permute(0, 2, 3, 1)
        return of_map.mean(dim=2).transpose(1, 2), of_map.mean(dim=1).transpose(1, 2)
    return x.mean(dim=3), x.mean(dim=2)


def _gate_strips(x: Tensor, gate_h: Tensor, gate_w: Tensor) -> Tensor:
    gate_h, gate_w = gate_h.to(x.dtype), gate_w.to(x.dtype)
    if channels_innermost(x):
        # Gates as (B,L,C), and views whose order is that of the memory: the sums of the backward pass too.
        of_h, of_w = gate_h.transpose(1, 2).contiguous(), gate_w.transpose(1, 2).contiguous()
        return (x.permute(0, 2, 3, 1) * of_h.unsqueeze(2) * of_w.unsqueeze(1)).permute(0, 3, 1, 2)
    return x * gate_h.unsqueeze(3) * gate_w.unsqueeze(2)


def _lay_out_like(y: Tensor, x: Tensor) -> Tensor:
    innermost = x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last if innermost else torch.contiguous_format)


# For torch.fx these are leaves: they ask for the strides of the map, which a tracer does not know.
torch.fx.wrap("_strip_means")
torch.fx.wrap("_gate_strips")
torch.fx.wrap("_lay_out_like")


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums over a map are taken in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def channels_innermost(x: Tensor) -> bool:
    """Whether neighbours in memory are channels of one position, as in channels_last."""
    return x.shape[1] > 1 and x.stride(1) == 1


def empty_map(x: Tensor) -> Tensor:
    """A new map of the shape, the dtype and the kind of layout of a map, without gaps.

    It is no view of another tensor: networks change what they get in place.
    """
    return x.new_empty_strided(x.shape, map_strides(x))


def map_strides(x: Tensor) -> tuple[int, ...]:
    """The strides that `empty_map` gives."""
    _, channels, height, width = x.shape
    if channels_innermost(x):
        return height * width * channels, 1, width * channels, channels
    return channels * height * width, height * width, width, 1


def empty_strips(x: Tensor) -> Strips:
    """New strips of a map in `sum_dtype`, (B,L,C) in memory where it has its channels innermost."""
    batch, channels, *lengths = x.shape
    dtype, innermost = sum_dtype(x.dtype), channels_innermost(x)

    def empty(length: int) -> Tensor:
        strides = (length * channels, 1, channels) if innermost else (channels * length, length, 1)
        return x.new_empty_strided((batch, channels, length), strides, dtype=dtype)

    strip_h, strip_w = map(empty, lengths)
    return strip_h, strip_w
