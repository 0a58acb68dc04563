"""Strip means, strip gates and their gradients as Triton kernels.

Four operations on a map x (B,C,H,W), with gates g_h (B,C,H) and g_w (B,C,W):

    means            z_h = mean of x over the width, z_w = mean of x over the height
    gate             y = x · g_h · g_w
    gate_gradients   ∂g_h = Σ_w ∂y · x · g_w,  ∂g_w = Σ_h ∂y · x · g_h
    input_gradient   ∂x = ∂y · g_h · g_w + ∂z_h / W + ∂z_w / H

``means`` and ``gate_gradients`` make both of their results in one pass, with the same kernel: a mean is a sum
of x with gates of 1. ``gate`` and ``input_gradient`` share the other kernel. In units of the map's size the
traffic is 1 read; 1 read and 1 write; 2 reads; 1 read and 1 write. Arithmetic is in float32, for float64 maps
in float64.

Each kernel exists once for NCHW and once for NHWC memory. Maps of any other strides are copied first. A strip
is laid out as its map: (B,C,L) in memory for NCHW, (B,L,C) for NHWC, so that loads of strips and maps agree.

No sum goes through atomics: where several programs share a sum, each writes its part, and the parts are
added in a fixed order. The tile, and with it the order of the additions, is the fastest of a stated set,
timed at the first call for a kind of map. Under ``torch.use_deterministic_algorithms(True)`` it is the first
of the set instead, so that two runs agree in every bit.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W.
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
# Programs wanted at least, four for each of the 132 multiprocessors of an H100. Fewer maps than that are cut
# into bands of rows, none below MIN_BAND rows.
PROGRAMS = 512
MIN_BAND = 8


def means(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of every row and of every column, in one pass.

    Args:
        x: Map (B,C,H,W).

    Returns:
        Means over the width (B,C,H) and over the height (B,C,W), in float32 (float64 for float64), laid out
        in memory as ``x`` is.
    """
    return _sums(x, None, None, None)


def gate(x: Tensor, gate_h: Tensor, gate_w: Tensor) -> Tensor:
    """Scale every row and every column.

    Args:
        x: Map (B,C,H,W).
        gate_h: Gates of the rows (B,C,H), of any float dtype.
        gate_w: Gates of the columns (B,C,W), likewise.

    Returns:
        ``x · gate_h · gate_w`` in the dtype and the memory format of ``x``.
    """
    return _scale(x, gate_h, gate_w, None, None)


def gate_gradients(dy: Tensor, x: Tensor, gate_h: Tensor, gate_w: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both gates, in one pass.

    Args:
        dy: Gradient of the gated map (B,C,H,W).
        x: The map (B,C,H,W).
        gate_h: Gates of the rows (B,C,H).
        gate_w: Gates of the columns (B,C,W).

    Returns:
        Gradients (B,C,H) and (B,C,W), in float32 (float64 for float64), laid out in memory as ``x`` is.
    """
    return _sums(x, dy, gate_h, gate_w)


def input_gradient(dy: Tensor, gate_h: Tensor, gate_w: Tensor, dmean_h: Tensor, dmean_w: Tensor) -> Tensor:
    """The gradient of the map, through the gating and through its strip means.

    Args:
        dy: Gradient of the gated map (B,C,H,W).
        gate_h: Gates of the rows (B,C,H).
        gate_w: Gates of the columns (B,C,W).
        dmean_h: Gradient of the means over the width (B,C,H).
        dmean_w: Gradient of the means over the height (B,C,W).

    Returns:
        ``dy · gate_h · gate_w + dmean_h / W + dmean_w / H`` in the dtype and the memory format of ``dy``.
    """
    return _scale(dy, gate_h, gate_w, dmean_h, dmean_w)


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
def _sum_blocks(shape: torch.Size, pixels: bool, tile: Tile) -> tuple[int, dict[str, int]]:
    """The number of programs, and the sizes of their blocks."""
    batch, channels, _, width = shape
    columns, row_parts, band, column_parts = _split(shape, pixels)
    rows = triton.next_power_of_2(band)
    if pixels:
        across = min(triton.next_power_of_2(channels), max(tile.channels, tile.size // (columns * rows)))
        blocks = {"BLOCK_C": across, "STAGES": tile.stages, "ALIGN": math.gcd(channels, 16)}
        programs = batch * triton.cdiv(channels, across)
        down = min(rows, max(1, tile.size // (columns * across)))
    else:
        down = min(rows, max(1, tile.size // columns))
        across = max(1, tile.size // (columns * down))
        blocks = {"BLOCK_P": across, "ALIGN": math.gcd(width, 16)}
        programs = triton.cdiv(batch * channels, across)
    return programs * row_parts * column_parts, {**blocks, "BLOCK_H": down, "BLOCK_W": columns}


@lru_cache(maxsize=4096)
def _scale_blocks(shape: torch.Size, pixels: bool, tile: Tile) -> tuple[int, dict[str, int]]:
    """The number of programs, and the sizes of their blocks."""
    batch, channels, height, width = shape
    rows, columns = triton.next_power_of_2(height), triton.next_power_of_2(width)
    if pixels:
        columns = min(columns, 32)
        across = min(triton.next_power_of_2(channels), max(tile.channels, tile.size // (columns * rows)))
        down = min(rows, max(1, tile.size // (columns * across)))
        blocks = {"BLOCK_C": across, "ALIGN": math.gcd(channels, 16)}
        programs = batch * triton.cdiv(channels, across)
    else:
        columns = min(columns, tile.size)
        down = min(rows, tile.size // columns)
        across = tile.size // (columns * down)
        blocks = {"BLOCK_P": across, "ALIGN": math.gcd(width, 16)}
        programs = triton.cdiv(batch * channels, across)
    programs *= triton.cdiv(height, down) * triton.cdiv(width, columns)
    return programs, {**blocks, "BLOCK_H": down, "BLOCK_W": columns}


def _sums(
    x: Tensor, dy: Tensor | None, gate_h: Tensor | None, gate_w: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums of ``dy · x`` over rows and columns, weighted by the gates; without them, means of ``x``."""
    x, pixels = _dense(x)
    batch, channels, height, width = shape = x.shape
    _, row_parts, band, column_parts = _split(shape, pixels)
    double = x.dtype == torch.float64

    def part(parts: int, length: int) -> Tensor:
        size = (batch, parts, length, channels) if pixels else (batch, channels, parts, length)
        return torch.empty(size, dtype=torch.float64 if double else torch.float32, device=x.device)

    def whole(parts: Tensor) -> Tensor:
        at = 1 if pixels else 2
        strip = parts.squeeze(at) if parts.shape[at] == 1 else parts.sum(at)
        return strip.transpose(1, 2) if pixels else strip

    weighted = dy is not None
    sum_h, sum_w = part(row_parts, height), part(column_parts, width)
    gates = (_strip(gate_h, pixels), _strip(gate_w, pixels))
    arguments = (
        *(x, None if dy is None else _dense(dy, pixels)[0], *gates, sum_h, sum_w),
        *(channels if pixels else batch * channels, height, width, band),
    )
    kernel = _pixel_sums if pixels else _plane_sums

    def launch(tile: Tile) -> None:
        programs, blocks = _sum_blocks(shape, pixels, tile)
        kernel[programs,](
            *arguments,
            WEIGHTED=weighted,
            ACC=tl.float64 if double else tl.float32,
            **blocks,
            num_warps=tile.warps,
        )

    _run_fastest(
        launch, PIXEL_SUM_TILES if pixels else PLANE_SUM_TILES, ("sums", weighted, *_kind(x, pixels)), x
    )
    return whole(sum_h), whole(sum_w)


def _scale(x: Tensor, gate_h: Tensor, gate_w: Tensor, add_h: Tensor | None, add_w: Tensor | None) -> Tensor:
    """``x · gate_h · gate_w``, and if given ``+ add_h / W + add_w / H``."""
    x, pixels = _dense(x)
    batch, channels, height, width = shape = x.shape
    adds = add_h is not None
    y = torch.empty_like(x)
    strips = (_strip(strip, pixels) for strip in (gate_h, gate_w, add_h, add_w))
    arguments = (x, *strips, y, channels if pixels else batch * channels, height, width)
    kernel = _pixel_scale if pixels else _plane_scale

    def launch(tile: Tile) -> None:
        programs, blocks = _scale_blocks(shape, pixels, tile)
        kernel[programs,](
            *arguments,
            ADDS=adds,
            ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
            **blocks,
            num_warps=tile.warps,
        )

    _run_fastest(launch, SCALE_TILES, ("scale", adds, *_kind(x, pixels)), x)
    return y


_fastest: dict[Hashable, Tile] = {}


def _kind(x: Tensor, pixels: bool) -> tuple[Hashable, ...]:
    """What the choice of a tile depends on: never the batch, and sizes only up to the next power of two."""
    _, channels, height, width = x.shape
    sizes = (channels, height, width) if pixels else (height, width)
    return (x.device, x.dtype, pixels, math.gcd(sizes[0 if pixels else 1], 16), *map(int.bit_length, sizes))


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


def _strip(strip: Tensor | None, pixels: bool) -> Tensor | None:
    """A strip (B,C,L) without gaps in memory: in the order (B,L,C) if ``pixels``, else (B,C,L)."""
    if strip is None:
        return None
    return strip.transpose(1, 2).contiguous() if pixels else strip.contiguous()


# The rest are the kernels. All sizes of blocks are powers of two. ALIGN is a power of two that divides the
# length of the fastest dimension: written as a product it shows, and several values are loaded at once.
# Offsets of a program are 64 bits wide, those inside of a tile 32.


@triton.jit
def _plane_sums(
    x_ptr: tl.tensor,
    dy_ptr: tl.tensor,
    gate_h_ptr: tl.tensor,
    gate_w_ptr: tl.tensor,
    sum_h_ptr: tl.tensor,
    sum_w_ptr: tl.tensor,
    planes: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    band: tl.tensor,
    WEIGHTED: tl.constexpr,
    ACC: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_P: tl.constexpr,
) -> None:
    """NCHW: a program goes down a band of rows of some planes, a tile (planes, rows, columns) at a time."""
    column_tiles = tl.cdiv(width, BLOCK_W)
    bands = tl.cdiv(height, band)
    program = tl.program_id(0)
    column_tile = program % column_tiles
    index = (program // column_tiles) % bands
    first = (program // (column_tiles * bands)).to(tl.int64) * BLOCK_P
    stop = tl.minimum(index * band + band, height)
    stride = width // ALIGN * ALIGN

    plane = tl.arange(0, BLOCK_P)
    column = column_tile * BLOCK_W + tl.arange(0, BLOCK_W)
    is_plane = first + plane < planes
    is_column = is_plane[:, None] & (column < stride)[None, :]
    inner = plane[:, None, None] * (height * stride) + column[None, None, :]
    if WEIGHTED:
        weight_w = tl.load(
            gate_w_ptr + first * stride + (plane[:, None] * stride + column[None, :]),
            mask=is_column,
            other=0.0,
        ).to(ACC)
    total = tl.zeros((BLOCK_P, BLOCK_H, BLOCK_W), dtype=ACC)
    for start in range(index * band, stop, BLOCK_H):
        row = start + tl.arange(0, BLOCK_H)
        is_row = is_plane[:, None] & (row < stop)[None, :]
        inside = is_row[:, :, None] & (column < stride)[None, None, :]
        base = (first * height + start) * stride
        offset = inner + tl.arange(0, BLOCK_H)[None, :, None] * stride
        value = tl.load(x_ptr + base + offset, mask=inside, other=0.0).to(ACC)
        if WEIGHTED:
            value *= tl.load(dy_ptr + base + offset, mask=inside, other=0.0).to(ACC)
            weight_h = tl.load(
                gate_h_ptr + first * height + (plane[:, None] * height + row[None, :]), mask=is_row, other=0.0
            ).to(ACC)
            total += value * weight_h[:, :, None]
            sum_h = tl.sum(value * weight_w[:, None, :], axis=2)
        else:
            total += value
            sum_h = tl.sum(value, axis=2) / width
        part = (plane[:, None] * column_tiles + column_tile) * height + row[None, :]
        tl.store(sum_h_ptr + first * (column_tiles * height) + part, sum_h, mask=is_row)
    sum_w = tl.sum(total, axis=1)
    if not WEIGHTED:
        sum_w = sum_w / height
    part = (plane[:, None] * bands + index) * width + column[None, :]
    tl.store(sum_w_ptr + first * (bands * width) + part, sum_w, mask=is_column)


@triton.jit
def _pixel_sums(
    x_ptr: tl.tensor,
    dy_ptr: tl.tensor,
    gate_h_ptr: tl.tensor,
    gate_w_ptr: tl.tensor,
    sum_h_ptr: tl.tensor,
    sum_w_ptr: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    band: tl.tensor,
    WEIGHTED: tl.constexpr,
    ACC: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_W: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
) -> None:
    """NHWC: a program goes down a band of rows of one image, a tile (columns, rows, channels) at a time.

    Columns come first: neighbouring threads then take channels and rows, so that the sum over the columns,
    due in every step, is made mostly inside a thread.
    """
    channel_tiles = tl.cdiv(channels, BLOCK_C)
    column_tiles = tl.cdiv(width, BLOCK_W)
    bands = tl.cdiv(height, band)
    program = tl.program_id(0)
    channel_tile = program % channel_tiles
    column_tile = (program // channel_tiles) % column_tiles
    index = (program // (channel_tiles * column_tiles)) % bands
    image = (program // (channel_tiles * column_tiles * bands)).to(tl.int64)
    stop = tl.minimum(index * band + band, height)
    depth = channels // ALIGN * ALIGN
    stride = width * depth

    channel = channel_tile * BLOCK_C + tl.arange(0, BLOCK_C)
    column = column_tile * BLOCK_W + tl.arange(0, BLOCK_W)
    is_channel = channel < depth
    is_column = (column < width)[:, None] & is_channel[None, :]
    strip_w = column[:, None] * depth + channel[None, :]
    inner = column[:, None, None] * depth + channel[None, None, :]
    if WEIGHTED:
        weight_w = tl.load(gate_w_ptr + image * stride + strip_w, mask=is_column, other=0.0).to(ACC)
    total = tl.zeros((BLOCK_W, BLOCK_H, BLOCK_C), dtype=ACC)
    for start in tl.range(index * band, stop, BLOCK_H, num_stages=STAGES):
        row = start + tl.arange(0, BLOCK_H)
        is_row = (row < stop)[:, None] & is_channel[None, :]
        inside = is_row[None, :, :] & (column < width)[:, None, None]
        base = (image * height + start) * stride
        offset = inner + tl.arange(0, BLOCK_H)[None, :, None] * stride
        strip_h = tl.arange(0, BLOCK_H)[:, None] * depth + channel[None, :]
        value = tl.load(x_ptr + base + offset, mask=inside, other=0.0).to(ACC)
        if WEIGHTED:
            value *= tl.load(dy_ptr + base + offset, mask=inside, other=0.0).to(ACC)
            weight_h = tl.load(
                gate_h_ptr + (image * height + start) * depth + strip_h, mask=is_row, other=0.0
            ).to(ACC)
            total += value * weight_h[None, :, :]
            sum_h = tl.sum(value * weight_w[:, None, :], axis=0)
        else:
            total += value
            sum_h = tl.sum(value, axis=0) / width
        part = ((image * column_tiles + column_tile) * height + start) * depth
        tl.store(sum_h_ptr + part + strip_h, sum_h, mask=is_row)
    sum_w = tl.sum(total, axis=1)
    if not WEIGHTED:
        sum_w = sum_w / height
    tl.store(sum_w_ptr + (image * bands + index) * stride + strip_w, sum_w, mask=is_column)


@triton.jit
def _plane_scale(
    x_ptr: tl.tensor,
    gate_h_ptr: tl.tensor,
    gate_w_ptr: tl.tensor,
    add_h_ptr: tl.tensor,
    add_w_ptr: tl.tensor,
    y_ptr: tl.tensor,
    planes: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    ADDS: tl.constexpr,
    ACC: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_P: tl.constexpr,
) -> None:
    """NCHW: a program scales one tile (planes, rows, columns)."""
    column_tiles = tl.cdiv(width, BLOCK_W)
    row_tiles = tl.cdiv(height, BLOCK_H)
    # Backwards: what the sums read last may still be in the cache.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    column = (program % column_tiles) * BLOCK_W + tl.arange(0, BLOCK_W)
    start = (program // column_tiles) % row_tiles * BLOCK_H
    first = (program // (column_tiles * row_tiles)).to(tl.int64) * BLOCK_P
    stride = width // ALIGN * ALIGN

    row = tl.arange(0, BLOCK_H)
    plane = tl.arange(0, BLOCK_P)
    is_plane = first + plane < planes
    is_row = is_plane[:, None] & (start + row < height)[None, :]
    is_column = is_plane[:, None] & (column < stride)[None, :]
    inside = is_row[:, :, None] & (column < stride)[None, None, :]
    strip_h = first * height + start
    strip_h_offset = plane[:, None] * height + row[None, :]
    strip_w = first * stride
    strip_w_offset = plane[:, None] * stride + column[None, :]
    base = (first * height + start) * stride
    offset = plane[:, None, None] * (height * stride) + row[None, :, None] * stride + column[None, None, :]

    value = tl.load(x_ptr + base + offset, mask=inside, other=0.0, eviction_policy="evict_first").to(ACC)
    gate_h = tl.load(gate_h_ptr + strip_h + strip_h_offset, mask=is_row, other=0.0).to(ACC)
    gate_w = tl.load(gate_w_ptr + strip_w + strip_w_offset, mask=is_column, other=0.0).to(ACC)
    value = value * gate_h[:, :, None] * gate_w[:, None, :]
    if ADDS:
        add_h = tl.load(add_h_ptr + strip_h + strip_h_offset, mask=is_row, other=0.0).to(ACC) / width
        add_w = tl.load(add_w_ptr + strip_w + strip_w_offset, mask=is_column, other=0.0).to(ACC) / height
        value = value + add_h[:, :, None] + add_w[:, None, :]
    tl.store(
        y_ptr + base + offset, value.to(y_ptr.dtype.element_ty), mask=inside, eviction_policy="evict_first"
    )


@triton.jit
def _pixel_scale(
    x_ptr: tl.tensor,
    gate_h_ptr: tl.tensor,
    gate_w_ptr: tl.tensor,
    add_h_ptr: tl.tensor,
    add_w_ptr: tl.tensor,
    y_ptr: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    ADDS: tl.constexpr,
    ACC: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_H: tl.constexpr,
) -> None:
    """NHWC: a program scales one tile (rows, columns, channels)."""
    channel_tiles = tl.cdiv(channels, BLOCK_C)
    column_tiles = tl.cdiv(width, BLOCK_W)
    row_tiles = tl.cdiv(height, BLOCK_H)
    # Backwards: what the sums read last may still be in the cache.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    channel = (program % channel_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    column = (program // channel_tiles) % column_tiles * BLOCK_W + tl.arange(0, BLOCK_W)
    start = (program // (channel_tiles * column_tiles)) % row_tiles * BLOCK_H
    image = (program // (channel_tiles * column_tiles * row_tiles)).to(tl.int64)
    depth = channels // ALIGN * ALIGN
    stride = width * depth

    row = tl.arange(0, BLOCK_H)
    is_channel = channel < depth
    is_row = (start + row < height)[:, None] & is_channel[None, :]
    is_column = (column < width)[:, None] & is_channel[None, :]
    inside = is_row[:, None, :] & (column < width)[None, :, None]
    strip_h = (image * height + start) * depth
    strip_h_offset = row[:, None] * depth + channel[None, :]
    strip_w = image * stride
    strip_w_offset = column[:, None] * depth + channel[None, :]
    base = (image * height + start) * stride
    offset = row[:, None, None] * stride + column[None, :, None] * depth + channel[None, None, :]

    value = tl.load(x_ptr + base + offset, mask=inside, other=0.0, eviction_policy="evict_first").to(ACC)
    gate_h = tl.load(gate_h_ptr + strip_h + strip_h_offset, mask=is_row, other=0.0).to(ACC)
    gate_w = tl.load(gate_w_ptr + strip_w + strip_w_offset, mask=is_column, other=0.0).to(ACC)
    value = value * gate_h[:, None, :] * gate_w[None, :, :]
    if ADDS:
        add_h = tl.load(add_h_ptr + strip_h + strip_h_offset, mask=is_row, other=0.0).to(ACC) / width
        add_w = tl.load(add_w_ptr + strip_w + strip_w_offset, mask=is_column, other=0.0).to(ACC) / height
        value = value + add_h[:, None, :] + add_w[None, :, :]
    tl.store(
        y_ptr + base + offset, value.to(y_ptr.dtype.element_ty), mask=inside, eviction_policy="evict_first"
    )


_INTERPRETED = not isinstance(_plane_sums, triton.JITFunction)
