"""The kernels on maps which `attnlab.attention.kernels.triton_backend` launches: sums, and scaling.

Both take NHWC memory (``PIXELS``) and NCHW memory, which is B·C planes to them. What differs stands at their
start: the order of a tile's axes, the channels or planes it has, and offsets in map and strips. The rest sees
maps (N,H,W,D) and strips (N,L,D) in memory: N images or planes, D channels or 1.

All sizes of blocks are powers of two. ALIGN is a power of two that divides the length of the fastest
dimension: written as a product it shows, and several values are loaded at once. Offsets of a program are 64
bits wide, those inside of a tile 32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sums_kernel(
    x_ptr: tl.tensor,
    dy_ptr: tl.tensor | None,
    gate_h_ptr: tl.tensor | None,
    gate_w_ptr: tl.tensor | None,
    sum_h_ptr: tl.tensor,
    sum_w_ptr: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    band: tl.tensor,
    WEIGHTED: tl.constexpr,
    STAGES: tl.constexpr,
    PIXELS: tl.constexpr,
    ACC: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
) -> None:
    """A program goes down a band of rows, a tile at a time.

    NHWC tiles are (columns, rows, channels): neighbouring threads then take channels and rows, so that the
    sum over the columns, due in every step, is made mostly inside a thread. NCHW tiles are (planes, rows,
    columns).
    """
    OVER_W: tl.constexpr = 0 if PIXELS else 2  # the axis of the columns
    channel_tiles = tl.cdiv(channels, BLOCK_C) if PIXELS else 1
    column_tiles = tl.cdiv(width, BLOCK_W)
    bands = tl.cdiv(height, band)
    program = tl.program_id(0)
    column_tile = (program // channel_tiles) % column_tiles
    index = (program // (channel_tiles * column_tiles)) % bands
    first = (program // (channel_tiles * column_tiles * bands)).to(tl.int64)
    stop = tl.minimum(index * band + band, height)

    row = tl.arange(0, BLOCK_H)
    column = column_tile * BLOCK_W + tl.arange(0, BLOCK_W)
    if PIXELS:
        depth = channels // ALIGN * ALIGN
        stride = width * depth
        channel = (program % channel_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
        is_channel = channel < depth
        is_column = (column < width)[:, None] & is_channel[None, :]
        strip_h = row[:, None] * depth + channel[None, :]
        strip_w = column[:, None] * depth + channel[None, :]
        part_h = strip_h
        part_w = strip_w
        offset = column[:, None, None] * depth + channel[None, None, :] + row[None, :, None] * stride
        total = tl.zeros((BLOCK_W, BLOCK_H, BLOCK_C), dtype=ACC)
    else:
        depth = 1
        stride = width // ALIGN * ALIGN
        first *= BLOCK_C
        plane = tl.arange(0, BLOCK_C)
        is_plane = first + plane < channels
        is_column = is_plane[:, None] & (column < stride)[None, :]
        strip_h = plane[:, None] * height + row[None, :]
        strip_w = plane[:, None] * stride + column[None, :]
        part_h = plane[:, None] * (column_tiles * height) + row[None, :]
        part_w = plane[:, None] * (bands * width) + column[None, :]
        offset = (
            plane[:, None, None] * (height * stride) + column[None, None, :] + row[None, :, None] * stride
        )
        total = tl.zeros((BLOCK_C, BLOCK_H, BLOCK_W), dtype=ACC)

    if WEIGHTED:
        weight_w = tl.load(gate_w_ptr + first * stride + strip_w, mask=is_column, other=0.0).to(ACC)
    for start in tl.range(index * band, stop, BLOCK_H, num_stages=STAGES):
        if PIXELS:
            is_row = (start + row < stop)[:, None] & is_channel[None, :]
            inside = is_row[None, :, :] & (column < width)[:, None, None]
        else:
            is_row = is_plane[:, None] & (start + row < stop)[None, :]
            inside = is_row[:, :, None] & (column < stride)[None, None, :]
        base = (first * height + start) * stride
        value = tl.load(x_ptr + base + offset, mask=inside, other=0.0).to(ACC)
        if WEIGHTED:
            value *= tl.load(dy_ptr + base + offset, mask=inside, other=0.0).to(ACC)
            base_h = (first * height + start) * depth
            weight_h = tl.load(gate_h_ptr + base_h + strip_h, mask=is_row, other=0.0).to(ACC)
            total += value * tl.expand_dims(weight_h, OVER_W)
            sum_h = tl.sum(value * weight_w[:, None, :], axis=OVER_W)
        else:
            total += value
            sum_h = tl.sum(value, axis=OVER_W) / width
        base_h = ((first * column_tiles + column_tile) * height + start) * depth
        tl.store(sum_h_ptr + base_h + part_h, sum_h, mask=is_row)
    sum_w = tl.sum(total, axis=1)
    if not WEIGHTED:
        sum_w = sum_w / height
    tl.store(sum_w_ptr + (first * bands + index) * stride + part_w, sum_w, mask=is_column)


@triton.jit
def scale_kernel(
    x_ptr: tl.tensor,
    gate_h_ptr: tl.tensor,
    gate_w_ptr: tl.tensor,
    add_h_ptr: tl.tensor | None,
    add_w_ptr: tl.tensor | None,
    y_ptr: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    ADDS: tl.constexpr,
    PIXELS: tl.constexpr,
    ACC: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
) -> None:
    """A program scales one tile: NHWC (rows, columns, channels), NCHW (planes, rows, columns)."""
    OVER_H: tl.constexpr = 0 if PIXELS else 1  # the axis of the rows, and that of the columns
    OVER_W: tl.constexpr = 1 if PIXELS else 2
    channel_tiles = tl.cdiv(channels, BLOCK_C) if PIXELS else 1
    column_tiles = tl.cdiv(width, BLOCK_W)
    row_tiles = tl.cdiv(height, BLOCK_H)
    # Backwards: what the sums read last may still be in the cache.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    column = (program // channel_tiles) % column_tiles * BLOCK_W + tl.arange(0, BLOCK_W)
    start = (program // (channel_tiles * column_tiles)) % row_tiles * BLOCK_H
    first = (program // (channel_tiles * column_tiles * row_tiles)).to(tl.int64)

    row = tl.arange(0, BLOCK_H)
    if PIXELS:
        depth = channels // ALIGN * ALIGN
        stride = width * depth
        channel = (program % channel_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
        is_channel = channel < depth
        is_row = (start + row < height)[:, None] & is_channel[None, :]
        is_column = (column < width)[:, None] & is_channel[None, :]
        inside = is_row[:, None, :] & (column < width)[None, :, None]
        strip_h = row[:, None] * depth + channel[None, :]
        strip_w = column[:, None] * depth + channel[None, :]
        offset = row[:, None, None] * stride + column[None, :, None] * depth + channel[None, None, :]
    else:
        depth = 1
        stride = width // ALIGN * ALIGN
        first *= BLOCK_C
        plane = tl.arange(0, BLOCK_C)
        is_plane = first + plane < channels
        is_row = is_plane[:, None] & (start + row < height)[None, :]
        is_column = is_plane[:, None] & (column < stride)[None, :]
        inside = is_row[:, :, None] & (column < stride)[None, None, :]
        strip_h = plane[:, None] * height + row[None, :]
        strip_w = plane[:, None] * stride + column[None, :]
        offset = (
            plane[:, None, None] * (height * stride) + row[None, :, None] * stride + column[None, None, :]
        )

    base, base_h, base_w = (first * height + start) * stride, (first * height + start) * depth, first * stride
    value = tl.load(x_ptr + base + offset, mask=inside, other=0.0, eviction_policy="evict_first").to(ACC)
    gate_h = tl.load(gate_h_ptr + base_h + strip_h, mask=is_row, other=0.0).to(ACC)
    gate_w = tl.load(gate_w_ptr + base_w + strip_w, mask=is_column, other=0.0).to(ACC)
    value = value * tl.expand_dims(gate_h, OVER_W) * tl.expand_dims(gate_w, OVER_H)
    if ADDS:
        add_h = tl.load(add_h_ptr + base_h + strip_h, mask=is_row, other=0.0).to(ACC) / width
        add_w = tl.load(add_w_ptr + base_w + strip_w, mask=is_column, other=0.0).to(ACC) / height
        value = value + tl.expand_dims(add_h, OVER_W) + tl.expand_dims(add_w, OVER_H)
    value = value.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + base + offset, value, mask=inside, eviction_policy="evict_first")
