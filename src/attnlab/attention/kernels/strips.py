"""Strip means of a map, and gates that scale its rows and columns, on plain torch.

Two groups of operations share this file. `strip_means` and `gate_strips` are for modules: they
are made of ordinary differentiable operations. `means`, `gate`, `gate_gradients` and
`input_gradient` have no gradients of their own: fused functions are made of them, and other backends
have the same four.

Where the time goes, and what is done about it:

* **Layout.** A channels_last map is taken as (B,H,W,C), and its strips and gates as (B,L,C) in memory. Strips
  laid out (B,C,L) would be read and written with a stride at every step.
* **New memory.** A new full-size tensor costs more than the arithmetic that fills it, so that nothing of the
  map's size is made but the result. Work on the CPU goes block by block, each small enough for the cache.
* **Accuracy.** Sums over half-precision maps are taken in float32, and so is every product on the way.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W. Inside, a map is
(N,H,W,D) with strips (N,H,1,D) and (N,1,W,D): N = B, D = C for channels_last, N = B·C, D = 1 otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Bytes of one block of a map, for each thread: about a core's second-level cache. Half costs a tenth.
BLOCK_BYTES = 2**20


def strip_means(x: Tensor) -> tuple[Tensor, Tensor]:
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


def means(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of every row and of every column, not differentiable.

    Args:
        x: Map (B,C,H,W) of any strides.

    Returns:
        The mean over the width (B,C,H) and over the height (B,C,W), in `sum_dtype` of the map, laid
        out as `empty_strip` has it.
    """
    mean_h, mean_w = empty_strip(x, x.shape[2]), empty_strip(x, x.shape[3])
    of_map, of_h, of_w = _map(x, x), _strip(mean_h, x), _strip(mean_w, x)
    if x.dtype == mean_h.dtype or not x.is_cpu:
        # Without blocks: a sum has no full-size result, and torch's own loops are the better ones.
        torch.mean(of_map, 2, dtype=mean_h.dtype, out=of_h)
        torch.mean(of_map, 1, dtype=mean_h.dtype, out=of_w)
        return mean_h, mean_w
    of_w.zero_()
    for images, rows in _blocks(of_map):
        block = of_map[images, rows].to(mean_h.dtype)
        of_h[images, rows] = block.mean(2)
        of_w[images] += block.sum(1)
    of_w.div_(x.shape[2])
    return mean_h, mean_w


def gate(x: Tensor, gate_h: Tensor, gate_w: Tensor) -> Tensor:
    """Scale every row and every column, not differentiable.

    Args:
        x: Map (B,C,H,W) of any strides.
        gate_h: Gates of the rows (B,C,H), in any dtype.
        gate_w: Gates of the columns (B,C,W), in any dtype.

    Returns:
        (B,C,H,W) in the dtype of ``x``, laid out as `empty_map` has it.
    """
    y = empty_map(x)
    of_x, of_y = _map(x, x), _map(y, x)
    of_h, of_w = _gate(gate_h, x).unsqueeze(2), _gate(gate_w, x).unsqueeze(1)
    for images, rows in _blocks(of_x):
        block = of_y[images, rows]
        # The gates first: a loop that repeats a factor is slower than one over two tensors of the same shape.
        product = _product(of_h[images, rows], of_w[images], block).mul_(of_x[images, rows])
        if product is not block:
            block.copy_(product)
    return y


def gate_gradients(dy: Tensor, x: Tensor, gate_h: Tensor, gate_w: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `gate` with respect to its gates.

    Args:
        dy: Gradient of the gated map (B,C,H,W), of any strides.
        x: Map (B,C,H,W) of any strides.
        gate_h: Gates of the rows (B,C,H).
        gate_w: Gates of the columns (B,C,W).

    Returns:
        The sum of dy·x·gate_w over the width (B,C,H) and that of dy·x·gate_h over the height (B,C,W), in
        `sum_dtype` of the map.
    """
    grad_h, grad_w = empty_strip(x, x.shape[2]), empty_strip(x, x.shape[3])
    of_x, of_dy, of_grad_h, of_grad_w = _map(x, x), _map(dy, x), _strip(grad_h, x), _strip(grad_w, x)
    of_h, of_w = _gate(gate_h, x).unsqueeze(2), _gate(gate_w, x).unsqueeze(1)
    of_grad_w.zero_()
    for images, rows in _blocks(of_x):
        product = _product(of_x[images, rows], of_dy[images, rows].to(grad_h.dtype))
        of_grad_h[images, rows] = (product * of_w[images]).sum(2)
        of_grad_w[images] += product.mul_(of_h[images, rows]).sum(1)
    return grad_h, grad_w


def input_gradient(dy: Tensor, gate_h: Tensor, gate_w: Tensor, dmean_h: Tensor, dmean_w: Tensor) -> Tensor:
    """The gradient of a map that was gated and that gave its strip means.

    Args:
        dy: Gradient of the gated map (B,C,H,W), of any strides.
        gate_h: Gates of the rows (B,C,H).
        gate_w: Gates of the columns (B,C,W).
        dmean_h: Gradient of the mean over the width (B,C,H).
        dmean_w: Gradient of the mean over the height (B,C,W).

    Returns:
        dy·gate_h·gate_w + dmean_h/W + dmean_w/H, (B,C,H,W) in the dtype of ``dy``, laid out as
        `empty_map` has it.
    """
    height, width = dy.shape[2:]
    dx = empty_map(dy)
    of_dy, of_dx = _map(dy, dy), _map(dx, dy)
    of_h, of_w = _gate(gate_h, dy).unsqueeze(2), _gate(gate_w, dy).unsqueeze(1)
    add_h, add_w = (_gate(dmean_h, dy) / width).unsqueeze(2), (_gate(dmean_w, dy) / height).unsqueeze(1)
    for images, rows in _blocks(of_dy):
        block = of_dx[images, rows]
        product = _product(of_dy[images, rows], of_w[images], block)
        torch.addcmul(add_w[images], product, of_h[images, rows], out=product).add_(add_h[images, rows])
        if product is not block:
            block.copy_(product)
    return dx


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


def empty_strip(x: Tensor, length: int) -> Tensor:
    """A new strip (B,C,L) in `sum_dtype`, (B,L,C) in memory where a map has its channels innermost."""
    batch, channels = x.shape[:2]
    dtype = sum_dtype(x.dtype)
    if channels_innermost(x):
        return x.new_empty_strided((batch, channels, length), (length * channels, 1, channels), dtype=dtype)
    return x.new_empty(batch, channels, length, dtype=dtype)


def _strip_means(x: Tensor) -> tuple[Tensor, Tensor]:
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


# For torch.fx these are leaves: they ask for the strides of the map, which a tracer does not know.
torch.fx.wrap("_strip_means")
torch.fx.wrap("_gate_strips")


def _map(x: Tensor, like: Tensor) -> Tensor:
    """(B,C,H,W) -> (N,H,W,D) in the layout of another map; a view unless the strides forbid it."""
    if channels_innermost(like):
        return x.permute(0, 2, 3, 1)
    batch, channels, height, width = x.shape
    return x.reshape(batch * channels, height, width, 1)


def _strip(strip: Tensor, like: Tensor) -> Tensor:
    """(B,C,L) -> (N,L,D) in the layout of a map."""
    if channels_innermost(like):
        return strip.transpose(1, 2)
    return strip.reshape(strip.shape[0] * strip.shape[1], strip.shape[2], 1)


def _gate(gate: Tensor, like: Tensor) -> Tensor:
    return _strip(gate.to(sum_dtype(like.dtype)), like).contiguous()


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a·b in the dtype of b: in ``out`` if that has this dtype, else in a new tensor."""
    return torch.mul(a, b, out=out) if out is not None and out.dtype == b.dtype else a * b


def _blocks(of_map: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and rows, block by block: several images where these are small, else some rows of one image."""
    count, height, width, depth = of_map.shape
    if not of_map.is_cpu:
        yield slice(None), slice(None)
        return
    block = BLOCK_BYTES * torch.get_num_threads()  # threads share the block, and each has its cache
    row = max(1, width * depth * of_map.element_size())
    if row * height <= block:
        step = block // max(1, row * height)
        for first in range(0, count, step):
            yield slice(first, first + step), slice(None)
        return
    step = max(1, block // row)
    for image in range(count):
        for first in range(0, height, step):
            yield slice(image, image + 1), slice(first, first + step)
