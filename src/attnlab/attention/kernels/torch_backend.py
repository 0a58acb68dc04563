"""The operations of `attnlab.attention.kernels.choice.Backend` on plain torch.

Where the time goes, and what is done about it:

* **New memory.** A new full-size tensor costs more than the arithmetic that fills it, so that nothing of the
  map's size is made but the result. Work on the CPU goes block by block, each small enough for the cache.
* **Accuracy.** Sums over half-precision maps are taken in float32, and so is every product on the way.
* **Small layers.** A depthwise convolution's own backward pass takes most of the time of the strips, so it is
  written out: the gradient of its input is a convolution with the taps turned round, that of its taps k
  products of shifted strips. A strip goes through the layers as a map of height 1, for which torch has good
  loops in both layouts; on short strips only those of channels_last are good, and contiguous ones are laid
  out so on the way.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W. Inside, a map is
(N,H,W,D) with strips (N,H,1,D) and (N,1,W,D): N = B, D = C for channels_last, N = B·C, D = 1 otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from attnlab.attention.kernels.strips import (
    Layers,
    Strips,
    channels_innermost,
    empty_map,
    empty_strips,
    sum_dtype,
)

# Bytes of one block of a map, for each thread: about a core's second-level cache. Half costs a tenth.
BLOCK_BYTES = 2**20
# Strips of at most this length go through a depthwise convolution with their channels innermost. On a CPU,
# backward of 32 strips of 960 x 5 takes 2 ms so, and 9 ms contiguous; at a length of 56 they are level.
SHORT = 32


def means(x: Tensor) -> Strips:
    """The mean of every row and of every column."""
    mean_h, mean_w = empty_strips(x)
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


def gate(x: Tensor, gates: Strips) -> Tensor:
    """Scale every row and every column."""
    y = empty_map(x)
    of_x, of_y = _map(x, x), _map(y, x)
    of_h, of_w = _factors(gates, x)
    for images, rows in _blocks(of_x):
        block = of_y[images, rows]
        # The gates first: a loop that repeats a factor is slower than one over two tensors of the same shape.
        product = _product(of_h[images, rows], of_w[images], block).mul_(of_x[images, rows])
        if product is not block:
            block.copy_(product)
    return y


def gate_gradients(dy: Tensor, x: Tensor, gates: Strips) -> Strips:
    """The gradients of both gates."""
    grad_h, grad_w = empty_strips(x)
    of_x, of_dy, of_grad_h, of_grad_w = _map(x, x), _map(dy, x), _strip(grad_h, x), _strip(grad_w, x)
    of_h, of_w = _factors(gates, x)
    of_grad_w.zero_()
    for images, rows in _blocks(of_x):
        product = _product(of_x[images, rows], of_dy[images, rows].to(grad_h.dtype))
        of_grad_h[images, rows] = (product * of_w[images]).sum(2)
        of_grad_w[images] += product.mul_(of_h[images, rows]).sum(1)
    return grad_h, grad_w


def input_gradient(dy: Tensor, gates: Strips, dmeans: Strips) -> Tensor:
    """The gradient of the map, through the gating and through its strip means."""
    height, width = dy.shape[2:]
    dx = empty_map(dy)
    of_dy, of_dx = _map(dy, dy), _map(dx, dy)
    of_h, of_w = _factors(gates, dy)
    add_h, add_w = _factors(dmeans, dy)
    add_h, add_w = add_h / width, add_w / height
    for images, rows in _blocks(of_dy):
        block = of_dx[images, rows]
        product = _product(of_dy[images, rows], of_w[images], block)
        torch.addcmul(add_w[images], product, of_h[images, rows], out=product).add_(add_h[images, rows])
        if product is not block:
            block.copy_(product)
    return dx


def strip_gates(means: Strips, layers: Layers) -> Strips:
    """Convolution along the strip, group normalisation over a group's channels and all positions, sigmoid."""
    taps, scale, shift = (each.to(means[0].dtype) for each in layers[:3])

    def gates(strip: Tensor) -> Tensor:
        if strip.numel() == 0:
            return torch.empty_like(strip)
        normal = torch.group_norm(_convolve(strip, taps), layers.norm_groups, scale, shift, layers.eps)
        return normal.sigmoid_()

    if means[0].shape == means[1].shape:
        both = gates(_as_map(taps, *means)).squeeze(2).chunk(2)
    else:
        both = tuple(gates(_as_map(taps, mean)).squeeze(2) for mean in means)
    # Laid out as the means; and two tensors, since an operation's results may not be views of one.
    gate_h, gate_w = (torch.empty_like(mean).copy_(gate) for mean, gate in zip(means, both, strict=True))
    return gate_h, gate_w


def strip_gates_gradients(
    dgates: Strips, gates: Strips, means: Strips, layers: Layers
) -> tuple[Strips, list[Tensor]]:
    """The gradients of everything that `strip_gates` took; the gates stand for the shift."""
    taps, scale = layers.weight.to(means[0].dtype), layers.norm_weight.to(means[0].dtype)

    def gradients(dgate: Tensor, gate: Tensor, strip: Tensor) -> tuple[Tensor, ...]:
        if strip.numel() == 0:
            zeros = torch.zeros_like(scale)
            return torch.empty_like(strip), torch.zeros_like(taps), zeros, zeros
        dnormal = torch.ops.aten.sigmoid_backward(dgate, gate)
        convolved = _convolve(strip, taps)
        batch, channels, _, length = convolved.shape
        sizes = (batch, channels, length, layers.norm_groups)
        _, mean, deviation = torch.native_group_norm(convolved, None, None, *sizes, layers.eps)
        dconvolved, dscale, dshift = torch.ops.aten.native_group_norm_backward(
            dnormal, convolved, mean, deviation, scale, *sizes, [True, True, True]
        )
        dstrip = _convolve(dconvolved, _turned(taps))
        return dstrip, _taps_gradient(strip, dconvolved, taps), dscale, dshift

    if means[0].shape == means[1].shape:
        both = (_as_map(taps, *strips) for strips in (dgates, gates, means))
        dstrips, *dparameters = gradients(*both)
        dmean_h, dmean_w = dstrips.squeeze(2).chunk(2)
    else:
        one_by_one = zip(dgates, gates, means, strict=True)
        of_h, of_w = (gradients(*(_as_map(taps, strip) for strip in strips)) for strips in one_by_one)
        dmean_h, dmean_w = of_h[0].squeeze(2), of_w[0].squeeze(2)
        dparameters = [one + other for one, other in zip(of_h[1:], of_w[1:], strict=True)]
    return (dmean_h, dmean_w), dparameters


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


def _factors(strips: Strips, like: Tensor) -> Strips:
    """Strips of both directions as (N,H,1,D) and (N,1,W,D), in the layout and the sums' dtype of a map."""
    of_h, of_w = (_strip(strip.to(sum_dtype(like.dtype)), like).contiguous() for strip in strips)
    return of_h.unsqueeze(2), of_w.unsqueeze(1)


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


def _as_map(taps: Tensor, *strips: Tensor) -> Tensor:
    """Strips (B,C,L), one after the other -> (n·B,C,1,L), contiguous or channels_last."""
    batch, channels, length = strips[0].shape
    innermost = strips[0].stride(1) == 1 and channels > 1
    if innermost or not (strips[0].is_cpu and taps.shape[1] == 1 and length <= SHORT):
        return torch.cat([strip.unsqueeze(2) for strip in strips])  # of maps, cat keeps the layout
    shape = (len(strips), batch, length, channels)
    laid_out = strips[0].new_empty(shape)
    for part, strip in zip(laid_out, strips, strict=True):
        part.copy_(strip.transpose(1, 2))
    return laid_out.flatten(0, 1).unsqueeze(1).permute(0, 3, 1, 2)


def _convolve(strip: Tensor, taps: Tensor) -> Tensor:
    """(B,C,1,L) by (C, C / groups, k) -> (B,C,1,L)."""
    groups, padding = taps.shape[0] // taps.shape[1], taps.shape[2] // 2
    return functional.conv2d(strip, taps.unsqueeze(2), padding=(0, padding), groups=groups)


def _turned(taps: Tensor) -> Tensor:
    """The taps of the transposed convolution: inputs and outputs of a group, and the order, turn round."""
    channels, width, length = taps.shape
    turned = taps.view(-1, width, width, length).transpose(1, 2).flip(3).reshape(channels, width, length)
    # In its strides, where a size is 1, torch sees a layout, and converts the strip to it.
    return turned.clone(memory_format=torch.contiguous_format)


def _taps_gradient(strip: Tensor, dconvolved: Tensor, taps: Tensor) -> Tensor:
    channels, width, length = taps.shape
    if width > 1:
        return torch.ops.aten.convolution_backward(
            *(dconvolved, strip, taps.unsqueeze(2), None, [1, 1], [0, length // 2], [1, 1], False, [0, 0]),
            *(channels // width, [False, True, False]),
        )[1].squeeze(2)
    gradient = taps.new_zeros(length, channels)
    positions = strip.shape[3]
    for tap, shift in enumerate(range(-(length // 2), length // 2 + 1)):
        first, end = max(0, -shift), min(positions, positions - shift)  # where the shifted strip has values
        if first < end:
            shifted, of_tap = strip[..., first + shift : end + shift], dconvolved[..., first:end]
            gradient[tap] = (shifted * of_tap).sum((0, 2, 3))
    return gradient.t().unsqueeze(1)
