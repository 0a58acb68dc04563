"""The operations of `attnlab.attention.kernels.choice.Backend` as launches of Triton kernels.

``means`` and ``gate_gradients`` make both of their results in one pass, with the same kernel: a mean is a sum
of x with gates of 1. ``gate`` and ``input_gradient`` share another (`attnlab.attention.kernels.map_kernels`).
In units of the map's size the traffic is 1 read; 2 reads; 1 read and 1 write; 1 read and 1 write. The small
layers between are a launch forward and one backward (`attnlab.attention.kernels.gate_kernels`).

The kernels take NCHW and NHWC memory. Maps of any other strides are copied first. A strip is laid out as its
map: (B,C,L) in memory for NCHW, (B,L,C) for NHWC, so that loads of strips and maps agree.

No sum goes through atomics: where several programs share a sum, each writes its part, and the parts are
added in a fixed order. The tile, and with it the order of the additions, is the fastest of a stated set,
timed at the first call for a kind of map. Under ``torch.use_deterministic_algorithms(True)`` it is the first
of the set instead, so that two runs agree in every bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnlab.attention.kernels import torch_backend
from attnlab.attention.kernels.gate_kernels import gates_gradients_kernel, gates_kernel
from attnlab.attention.kernels.map_kernels import scale_kernel, sums_kernel
from attnlab.attention.kernels.strips import Layers, Strips, sum_dtype


class Tile(NamedTuple):
    """What one program holds at a time.

    Attributes:
        size: Values of the map, a power of two.
        warps: Warps of 32 threads that share them.
        channels: NHWC only: channels among these values (more where the map is small).
        stages: NHWC sums only: tiles under way at once; above 1 they are loaded ahead into shared memory.
    """

    size: int
    warps: int
    channels: int = 64
    stages: int = 1


# The sets that are timed; the first of each is the one to take untimed. Below 2048 values a program does not
# make up for its own start; above 32 a thread the sums take so many registers that few programs fit beside
# each other. Maps of odd widths, which load value by value, need the most registers: hence 8 warps.
PLANE_SUM_TILES = [Tile(4096, warps=4), Tile(2048, warps=4), Tile(4096, warps=8)]
# In NHWC every row is summed across threads, which stalls them: loading ahead may pay. 32 channels of
# bfloat16 are two sectors of memory, 64 a full line; the fewer channels, the more programs.
PIXEL_SUM_TILES = [
    Tile(4096, warps=8, channels=32),
    Tile(4096, warps=4, channels=32, stages=3),
    Tile(2048, warps=4, channels=32, stages=4),
    Tile(8192, warps=8, channels=64, stages=3),
]
# Nothing is summed here: a tile is as large as it takes to read the gates seldom.
SCALE_TILES = [Tile(2048, warps=4), Tile(4096, warps=4), Tile(4096, warps=8)]

# Columns that one program sums, at most. Programs share longer rows, at the cost of partial sums that are
# 1/1024 (NCHW) and 1/64 (NHWC, where a tile spans channels too) of the map.
PLANE_COLUMNS = 1024
PIXEL_COLUMNS = 64
# Columns that one program scales, at most: in NCHW what a tile holds.
PLANE_SCALE_COLUMNS = 4096
PIXEL_SCALE_COLUMNS = 32
# Programs wanted at least, four for each of the 132 multiprocessors of an H100. Fewer maps than that are cut
# into bands of rows, none below MIN_BAND rows.
PROGRAMS = 512
MIN_BAND = 8
# Values of a strip that a program holds at a time: 16 a thread, of which the backward kernel keeps several
# tensors in registers. What is larger is taken in turns, channels first.
GATE_TILE = 2048
GATE_POSITIONS = 256


def means(x: Tensor) -> Strips:
    """The mean of every row and of every column, in one pass."""
    return _sums(x, None, None)


def gate(x: Tensor, gates: Strips) -> Tensor:
    """Scale every row and every column."""
    return _scale(x, gates, None)


def gate_gradients(dy: Tensor, x: Tensor, gates: Strips) -> Strips:
    """The gradients of both gates, in one pass."""
    return _sums(x, dy, gates)


def input_gradient(dy: Tensor, gates: Strips, dmeans: Strips) -> Tensor:
    """The gradient of the map, through the gating and through its strip means."""
    return _scale(dy, gates, dmeans)


def strip_gates(means: Strips, layers: Layers) -> Strips:
    """The gates of both directions, in one launch; those of a convolution across channels by plain torch."""
    if layers.weight.shape[1] > 1:
        return torch_backend.strip_gates(means, layers)
    pixels = _pixels(means)
    of_means = _strips(means, pixels)
    gates = [torch.empty_like(mean) for mean in of_means]
    parameters = [parameter.contiguous() for parameter in layers[:3]]
    _launch_gates(gates_kernel, of_means, [*parameters, *gates], layers, pixels)
    return _logical(gates, pixels)


def strip_gates_gradients(
    dgates: Strips, gates: Strips, means: Strips, layers: Layers
) -> tuple[Strips, list[Tensor]]:
    """The gradients of everything that `strip_gates` took, in one launch and one sum."""
    weight, norm_weight = layers[:2]
    if weight.shape[1] > 1:
        return torch_backend.strip_gates_gradients(dgates, gates, means, layers)
    pixels = _pixels(means)
    of_means = _strips(means, pixels)
    batch, channels = means[0].shape[:2]
    taps = weight.numel()
    dmeans, scratch = ([torch.empty_like(mean) for mean in of_means] for _ in range(2))
    parts = of_means[0].new_empty(2 * batch, taps + 2 * channels)  # a row for each image and direction
    strips = (*_strips(gates, pixels), *_strips(dgates, pixels), *scratch, *dmeans)
    tensors = [weight.contiguous(), norm_weight.contiguous(), *strips, parts]
    _launch_gates(gates_gradients_kernel, of_means, tensors, layers, pixels)
    dweight, dscale, dshift = parts.sum(0).split([taps, channels, channels])
    return _logical(dmeans, pixels), [dweight.view(weight.shape), dscale, dshift]


def _sums(x: Tensor, dy: Tensor | None, gates: Strips | None) -> Strips:
    """Sums of ``dy · x`` over rows and columns, weighted by the gates; without them, means of ``x``."""
    x, pixels = _dense(x)
    batch, channels, height, width = shape = x.shape
    columns, row_parts, band, column_parts = _split(shape, pixels)
    dtype = sum_dtype(x.dtype)

    def part(parts: int, length: int) -> Tensor:
        size = (batch, parts, length, channels) if pixels else (batch, channels, parts, length)
        return torch.empty(size, dtype=dtype, device=x.device)

    def whole(parts: Tensor) -> Tensor:
        at = 1 if pixels else 2
        strip = parts.squeeze(at) if parts.shape[at] == 1 else parts.sum(at)
        return strip.transpose(1, 2) if pixels else strip

    sum_h, sum_w = part(row_parts, height), part(column_parts, width)
    dense_dy = None if dy is None else _dense(dy, pixels)[0]
    weights = _strips(gates, pixels) if gates else (None, None)
    others = (dense_dy, *weights, sum_h, sum_w)
    tiles = PIXEL_SUM_TILES if pixels else PLANE_SUM_TILES
    _launch(sums_kernel, x, others, pixels, tiles, columns, band, WEIGHTED=dy is not None)
    return whole(sum_h), whole(sum_w)


def _scale(x: Tensor, gates: Strips, adds: Strips | None) -> Tensor:
    """``x · gate_h · gate_w``, and if given ``+ add_h / W + add_w / H``."""
    x, pixels = _dense(x)
    y = torch.empty_like(x)
    strips = (*_strips(gates, pixels), *(_strips(adds, pixels) if adds else (None, None)))
    columns = PIXEL_SCALE_COLUMNS if pixels else PLANE_SCALE_COLUMNS
    _launch(scale_kernel, x, (*strips, y), pixels, SCALE_TILES, columns, None, ADDS=adds is not None)
    return y


class _Split(NamedTuple):
    """How programs share the sums: columns a program, shares of a row, rows a program, shares of a column."""

    columns: int
    row_parts: int
    band: int
    column_parts: int


@lru_cache(maxsize=4096)
def _split(shape: torch.Size, pixels: bool) -> _Split:
    batch, channels, height, width = shape
    columns = min(triton.next_power_of_2(width), PIXEL_COLUMNS if pixels else PLANE_COLUMNS)
    row_parts = triton.cdiv(width, columns)
    slices = triton.cdiv(channels, PIXEL_SUM_TILES[0].channels) if pixels else channels
    programs = max(1, batch * slices * row_parts)
    bands = min(triton.cdiv(height, MIN_BAND), triton.cdiv(PROGRAMS, programs))
    band = triton.cdiv(height, bands)
    return _Split(columns, row_parts, band, triton.cdiv(height, band))


@lru_cache(maxsize=4096)
def _plan(
    shape: torch.Size, pixels: bool, tile: Tile, columns: int, band: int | None
) -> tuple[int, dict[str, int | None]]:
    """The number of programs, and the constants of their blocks.

    A program takes at most that many columns, and goes down a band of rows, tile by tile; without a band it
    takes one tile.
    """
    batch, channels, height, width = shape
    rows = triton.next_power_of_2(band or height)
    columns = min(triton.next_power_of_2(width), columns, tile.size)
    if pixels:
        across = min(triton.next_power_of_2(channels), max(tile.channels, tile.size // (columns * rows)))
        down = min(rows, max(1, tile.size // (columns * across)))
        programs = batch * triton.cdiv(channels, across)
    else:
        down = min(rows, tile.size // columns)
        across = tile.size // (columns * down)
        programs = triton.cdiv(batch * channels, across)
    programs *= triton.cdiv(height, band or down) * triton.cdiv(width, columns)
    blocks = {"BLOCK_C": across, "BLOCK_H": down, "BLOCK_W": columns}
    if band:
        blocks["STAGES"] = tile.stages if pixels else None
    return programs, {**blocks, "PIXELS": pixels, "ALIGN": math.gcd(channels if pixels else width, 16)}


def _launch(
    kernel: triton.JITFunction,
    x: Tensor,
    others: Sequence[Tensor | None],
    pixels: bool,
    tiles: Sequence[Tile],
    columns: int,
    band: int | None,
    **constants: bool,
) -> None:
    """Launch a kernel for a map and other tensors, by the `_plan` for the fastest tile."""
    batch, channels, height, width = shape = x.shape
    sizes = (channels if pixels else batch * channels, height, width, *((band,) if band else ()))
    acc = tl.float64 if x.dtype == torch.float64 else tl.float32

    def launch(tile: Tile) -> None:
        programs, blocks = _plan(shape, pixels, tile, columns, band)
        kernel[programs,](x, *others, *sizes, **constants, ACC=acc, **blocks, num_warps=tile.warps)

    kind = (band is None, *constants.values(), x.device, x.dtype, _kind(shape, pixels))
    _run_fastest(launch, tiles, kind, x)


_INTERPRETED = not isinstance(sums_kernel, triton.JITFunction)
_fastest: dict[Hashable, Tile] = {}


@lru_cache(maxsize=4096)
def _kind(shape: torch.Size, pixels: bool) -> tuple[Hashable, ...]:
    """What the choice of a tile depends on: never the batch, and sizes only up to the next power of two."""
    sizes = shape[1:] if pixels else shape[2:]
    return (pixels, math.gcd(sizes[0 if pixels else 1], 16), *map(int.bit_length, sizes))


def _run_fastest(launch: Callable[[Tile], None], tiles: Sequence[Tile], kind: Hashable, x: Tensor) -> None:
    """Launch with the fastest tile for this kind of map; with the first where timing is out of place."""
    with torch.cuda.device_of(x):
        tile = tiles[0]
        if not (_INTERPRETED or torch.are_deterministic_algorithms_enabled()):
            if kind not in _fastest and not torch.cuda.is_current_stream_capturing():
                _fastest[kind] = min(tiles, key=lambda tile: _milliseconds(launch, tile))
            tile = _fastest.get(kind, tile)
        launch(tile)


def _milliseconds(launch: Callable[[Tile], None], tile: Tile) -> float:
    try:
        return triton.testing.do_bench(lambda: launch(tile), warmup=10, rep=50, return_mode="median")
    except triton.OutOfResources:  # a small GPU's shared memory
        return math.inf


def _dense(x: Tensor, pixels: bool | None = None) -> tuple[Tensor, bool]:
    """The map without gaps in memory, and whether its layout is NHWC; asked for, or else its own."""
    if pixels is None:
        pixels = not x.is_contiguous() and (
            x.is_contiguous(memory_format=torch.channels_last) or (x.shape[1] > 1 and x.stride(1) == 1)
        )
    return x.contiguous(memory_format=torch.channels_last if pixels else torch.contiguous_format), pixels


def _strips(strips: Strips, pixels: bool) -> list[Tensor]:
    """Strips (B,C,L) without gaps in memory: in the order (B,L,C) if ``pixels``, else (B,C,L)."""
    return [(strip.transpose(1, 2) if pixels else strip).contiguous() for strip in strips]


def _logical(strips: list[Tensor], pixels: bool) -> Strips:
    strip_h, strip_w = (strip.transpose(1, 2) if pixels else strip for strip in strips)
    return strip_h, strip_w


def _pixels(means: Strips) -> bool:
    """Whether strips lie as (B,L,C) in memory."""
    return any(not mean.is_contiguous() and mean.transpose(1, 2).is_contiguous() for mean in means)


def _launch_gates(
    kernel: triton.JITFunction,
    means: Sequence[Tensor],
    tensors: Sequence[Tensor],
    layers: Layers,
    pixels: bool,
) -> None:
    batch = means[0].shape[0]
    channels = means[0].shape[2 if pixels else 1]
    height, width = (mean.shape[1 if pixels else 2] for mean in means)
    group = channels // layers.norm_groups
    block_l = min(triton.next_power_of_2(max(height, width)), GATE_POSITIONS)
    block_c = min(triton.next_power_of_2(group), GATE_TILE // block_l)
    with torch.cuda.device_of(means[0]):
        kernel[2 * batch * layers.norm_groups,](
            *(*means, *tensors),
            *(channels, group, height, width),
            EPS=layers.eps,
            PIXELS=pixels,
            TAPS=layers.weight.shape[2],
            BLOCK_C=block_c,
            BLOCK_L=block_l,
            num_warps=max(1, min(4, block_c * block_l // 256)),
        )
