"""The kernels on strips which `attnlab.attention.kernels.triton_backend` launches: means to gates, and back.

For both directions with the same parameters: depthwise convolution of k taps w along the strip, group
normalisation over the channels of a group and all positions, sigmoid:

    v[b,c,l] = Σ_t w[c,t] · z[b,c,l+t-k//2]          (zero outside of the strip)
    u        = (v - mean of v) / sqrt(var of v + ε)   over a group's channels and positions
    g        = σ(γ[c] · u + β[c])

As torch operations these are some ten launches forward and more backward on tensors of a few hundred
kilobytes, which take longer than a pass over the map. Here a program takes one group of one image in one
direction, and reads its means as often as it needs to: they stay in the cache.

The backward kernel keeps nothing from the forward one but the gates; it convolves and normalises again. With
∂n = ∂g · g · (1 - g), ∂u = ∂n · γ and sums and means over the group:

    ∂γ = Σ ∂n · u,  ∂β = Σ ∂n
    ∂v = (∂u - mean of ∂u - u · mean of (∂u · u)) / sqrt(var of v + ε)
    ∂z[l] = Σ_t w[t] · ∂v[l-t+k//2],  ∂w[t] = Σ_l ∂v[l-t+k//2] · z[l]

The gradients of the parameters are written for each image and direction, and added in a fixed order.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W, in memory as (B,C,L) or as
(B,L,C). Everything is in float32, for float64 means in float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

# A program's group is the channels first .. stop of one image, a tile some of these channels by some
# positions. Odd programs take the columns, even ones the rows.


@triton.jit
def _own_part(
    channels: tl.tensor, group: tl.tensor, height: tl.tensor, width: tl.tensor
) -> tuple[tl.tensor, ...]:
    """Whether a program takes the columns, the image, the channels first .. stop, and the strips' length."""
    program = tl.program_id(0)
    groups = channels // group
    first = (program // 2) % groups * group
    stop = first + group
    image = (program // (2 * groups)).to(tl.int64)
    columns = program % 2 == 1
    length = tl.where(columns, width, height)
    return columns, image, first, stop, length


@triton.jit
def _offsets(
    channel: tl.tensor, position: tl.tensor, channels: tl.tensor, length: tl.tensor, PIXELS: tl.constexpr
) -> tl.tensor:
    """Where the values of a tile lie in the strip of their image."""
    if PIXELS:
        offsets = position[None, :] * channels + channel[:, None]
    else:
        offsets = channel[:, None] * length + position[None, :]
    return offsets


@triton.jit
def _load(
    strip_ptr: tl.tensor,
    channel: tl.tensor,
    position: tl.tensor,
    stop: tl.tensor,
    channels: tl.tensor,
    length: tl.tensor,
    PIXELS: tl.constexpr,
) -> tl.tensor:
    """A tile of a strip, 0 outside of the group and of the strip."""
    inside = (channel < stop)[:, None] & ((position >= 0) & (position < length))[None, :]
    return tl.load(strip_ptr + _offsets(channel, position, channels, length, PIXELS), mask=inside, other=0.0)


@triton.jit
def _convolved(
    strip_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    channel: tl.tensor,
    position: tl.tensor,
    stop: tl.tensor,
    channels: tl.tensor,
    length: tl.tensor,
    PIXELS: tl.constexpr,
    TAPS: tl.constexpr,
    TURNED: tl.constexpr,
) -> tl.tensor:
    """A tile of a strip convolved with the taps, or with the taps turned round, as gradients are.

    Outside of the group and of the strip it means nothing.
    """
    total = tl.zeros((channel.shape[0], position.shape[0]), dtype=strip_ptr.dtype.element_ty)
    for tap in range(TAPS):
        weight = tl.load(weight_ptr + channel * TAPS + tap, mask=channel < stop, other=0.0)
        shift = tap - TAPS // 2
        shifted = position - shift if TURNED else position + shift
        value = _load(strip_ptr, channel, shifted, stop, channels, length, PIXELS)
        total += weight.to(total.dtype)[:, None] * value
    return total


@triton.jit
def _statistics(
    mean_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    keep_ptr: tl.tensor | None,
    first: tl.tensor,
    stop: tl.tensor,
    channels: tl.tensor,
    length: tl.tensor,
    EPS: tl.constexpr,
    PIXELS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Mean and 1 / standard deviation of v in a group: exact in a tile, merged from tile to tile (Chan).

    Where there is memory to keep it, v is also stored; it may be read after a barrier.
    """
    count = tl.full((), 0.0, mean_ptr.dtype.element_ty)
    average = tl.full((), 0.0, mean_ptr.dtype.element_ty)
    squares = tl.full((), 0.0, mean_ptr.dtype.element_ty)
    for start in range(first, stop, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        for left in range(0, length, BLOCK_L):
            position = left + tl.arange(0, BLOCK_L)
            inside = (channel < stop)[:, None] & (position < length)[None, :]
            value = _convolved(
                mean_ptr, weight_ptr, channel, position, stop, channels, length, PIXELS, TAPS, False
            )
            if keep_ptr is not None:
                tl.store(keep_ptr + _offsets(channel, position, channels, length, PIXELS), value, mask=inside)
            number = (tl.minimum(stop - start, BLOCK_C) * tl.minimum(length - left, BLOCK_L)).to(count.dtype)
            tile_average = tl.sum(tl.where(inside, value, 0.0)) / number
            deviation = tl.where(inside, value - tile_average, 0.0)
            step = tile_average - average
            squares += tl.sum(deviation * deviation) + step * step * (count * number / (count + number))
            average += step * (number / (count + number))
            count += number
    return average, 1.0 / tl.sqrt(squares / count + EPS)


@triton.jit
def gates_kernel(
    mean_h_ptr: tl.tensor,
    mean_w_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    norm_weight_ptr: tl.tensor,
    norm_bias_ptr: tl.tensor,
    gate_h_ptr: tl.tensor,
    gate_w_ptr: tl.tensor,
    channels: tl.tensor,
    group: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    EPS: tl.constexpr,
    PIXELS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> None:
    """A program reads the means twice: for the statistics of its group, then for its gates."""
    columns, image, first, stop, length = _own_part(channels, group, height, width)
    base = image * channels * length
    mean_ptr = tl.where(columns, mean_w_ptr, mean_h_ptr) + base
    gate_ptr = tl.where(columns, gate_w_ptr, gate_h_ptr) + base

    average, scale = _statistics(
        mean_ptr, weight_ptr, None, first, stop, channels, length, EPS, PIXELS, TAPS, BLOCK_C, BLOCK_L
    )
    for start in range(first, stop, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        gamma = tl.load(norm_weight_ptr + channel, mask=channel < stop, other=0.0).to(average.dtype)
        beta = tl.load(norm_bias_ptr + channel, mask=channel < stop, other=0.0).to(average.dtype)
        for left in range(0, length, BLOCK_L):
            position = left + tl.arange(0, BLOCK_L)
            inside = (channel < stop)[:, None] & (position < length)[None, :]
            value = _convolved(
                mean_ptr, weight_ptr, channel, position, stop, channels, length, PIXELS, TAPS, False
            )
            logit = (value - average) * scale * gamma[:, None] + beta[:, None]
            offsets = _offsets(channel, position, channels, length, PIXELS)
            tl.store(gate_ptr + offsets, 1.0 / (1.0 + tl.exp(-logit)), mask=inside)


@triton.jit
def gates_gradients_kernel(
    mean_h_ptr: tl.tensor,
    mean_w_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    norm_weight_ptr: tl.tensor,
    gate_h_ptr: tl.tensor,
    gate_w_ptr: tl.tensor,
    dgate_h_ptr: tl.tensor,
    dgate_w_ptr: tl.tensor,
    scratch_h_ptr: tl.tensor,
    scratch_w_ptr: tl.tensor,
    dmean_h_ptr: tl.tensor,
    dmean_w_ptr: tl.tensor,
    parts_ptr: tl.tensor,
    channels: tl.tensor,
    group: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    EPS: tl.constexpr,
    PIXELS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> None:
    """A program works through memory that no other touches: v lies in dmean until dmean is known."""
    columns, image, first, stop, length = _own_part(channels, group, height, width)
    base = image * channels * length
    mean_ptr = tl.where(columns, mean_w_ptr, mean_h_ptr) + base
    gate_ptr = tl.where(columns, gate_w_ptr, gate_h_ptr) + base
    dgate_ptr = tl.where(columns, dgate_w_ptr, dgate_h_ptr) + base
    scratch_ptr = tl.where(columns, scratch_w_ptr, scratch_h_ptr) + base
    dmean_ptr = tl.where(columns, dmean_w_ptr, dmean_h_ptr) + base
    part_ptr = parts_ptr + (2 * image + tl.program_id(0) % 2) * (channels * (TAPS + 2))

    average, scale = _statistics(
        mean_ptr, weight_ptr, dmean_ptr, first, stop, channels, length, EPS, PIXELS, TAPS, BLOCK_C, BLOCK_L
    )
    tl.debug_barrier()

    # dγ and dβ, and from them the sums over the group: that of du is the sum of γ · dβ over its channels,
    # that of du · u the sum of γ · dγ.
    sum_du = tl.full((), 0.0, average.dtype)
    sum_duu = tl.full((), 0.0, average.dtype)
    for start in range(first, stop, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        gamma = tl.load(norm_weight_ptr + channel, mask=channel < stop, other=0.0).to(average.dtype)
        dgamma = tl.zeros((BLOCK_C,), dtype=average.dtype)
        dbeta = tl.zeros((BLOCK_C,), dtype=average.dtype)
        for left in range(0, length, BLOCK_L):
            position = left + tl.arange(0, BLOCK_L)
            value = _load(dmean_ptr, channel, position, stop, channels, length, PIXELS)
            gate = _load(gate_ptr, channel, position, stop, channels, length, PIXELS)
            dgate = _load(dgate_ptr, channel, position, stop, channels, length, PIXELS)
            dlogit = dgate * gate * (1.0 - gate)  # 0 outside
            dgamma += tl.sum(dlogit * ((value - average) * scale), axis=1)
            dbeta += tl.sum(dlogit, axis=1)
        tl.store(part_ptr + channels * TAPS + channel, dgamma, mask=channel < stop)
        tl.store(part_ptr + channels * (TAPS + 1) + channel, dbeta, mask=channel < stop)
        sum_du += tl.sum(gamma * dbeta)
        sum_duu += tl.sum(gamma * dgamma)
    number = ((stop - first) * length).to(average.dtype)
    mean_du = sum_du / number
    mean_duu = sum_duu / number

    # dv, through memory: the convolution back needs it at the neighbours, which other threads hold.
    for start in range(first, stop, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        gamma = tl.load(norm_weight_ptr + channel, mask=channel < stop, other=0.0).to(average.dtype)
        for left in range(0, length, BLOCK_L):
            position = left + tl.arange(0, BLOCK_L)
            inside = (channel < stop)[:, None] & (position < length)[None, :]
            value = _load(dmean_ptr, channel, position, stop, channels, length, PIXELS)
            gate = _load(gate_ptr, channel, position, stop, channels, length, PIXELS)
            dgate = _load(dgate_ptr, channel, position, stop, channels, length, PIXELS)
            du = dgate * gate * (1.0 - gate) * gamma[:, None]
            dv = (du - mean_du - (value - average) * scale * mean_duu) * scale
            tl.store(scratch_ptr + _offsets(channel, position, channels, length, PIXELS), dv, mask=inside)
    tl.debug_barrier()

    for start in range(first, stop, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        for tap in range(TAPS):
            dweight = tl.zeros((BLOCK_C,), dtype=average.dtype)
            for left in range(0, length, BLOCK_L):
                position = left + tl.arange(0, BLOCK_L)
                shifted = position - (tap - TAPS // 2)
                mean = _load(mean_ptr, channel, position, stop, channels, length, PIXELS)
                dv = _load(scratch_ptr, channel, shifted, stop, channels, length, PIXELS)
                dweight += tl.sum(mean * dv, axis=1)
            tl.store(part_ptr + channel * TAPS + tap, dweight, mask=channel < stop)
        for left in range(0, length, BLOCK_L):
            position = left + tl.arange(0, BLOCK_L)
            inside = (channel < stop)[:, None] & (position < length)[None, :]
            dmean = _convolved(
                scratch_ptr, weight_ptr, channel, position, stop, channels, length, PIXELS, TAPS, True
            )
            tl.store(dmean_ptr + _offsets(channel, position, channels, length, PIXELS), dmean, mask=inside)
