"""From strip means to strip gates, and back, on plain torch.

For both directions with the same parameters: convolution of k taps along the strip, group normalisation over
the channels of a group and all positions, sigmoid.

The backward pass is written out, since a depthwise convolution's own takes most of the time of the strips:
the gradient of its input is a convolution with the taps turned round, that of its taps k products of shifted
strips. A strip goes through the layers as a map of height 1, for which torch has good loops in both layouts;
on short strips only those of channels_last are good, and contiguous ones are laid out so on the way.

Shapes: B batch, C channels, H height, W width; a strip is (B,C,L) with L = H or W.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Strips of at most this length go through a depthwise convolution with their channels innermost. On a CPU,
# backward of 32 strips of 960 x 5 takes 2 ms so, and 9 ms contiguous; at a length of 56 they are level.
SHORT = 32


def strip_gates(
    mean_h: Tensor,
    mean_w: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    norm_groups: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The gates of both directions, not differentiable.

    Args:
        mean_h: Means over the width (B,C,H), float32 or float64.
        mean_w: Means over the height (B,C,W), likewise.
        weight: The convolution's weight (C, C / groups, k), k odd.
        norm_weight: Scale of the group normalisation (C).
        norm_bias: Shift of the group normalisation (C).
        norm_groups: Groups of the normalisation; they divide C.
        eps: What the normalisation adds to the variance.

    Returns:
        Gates (B,C,H) and (B,C,W), in the dtype of the means.
    """
    taps, scale, shift = (each.to(mean_h.dtype) for each in (weight, norm_weight, norm_bias))

    def gates(strip: Tensor) -> Tensor:
        if strip.numel() == 0:
            return torch.empty_like(strip)
        return torch.group_norm(_convolve(strip, taps), norm_groups, scale, shift, eps).sigmoid_()

    if mean_h.shape == mean_w.shape:
        gate_h, gate_w = gates(_as_map(weight, mean_h, mean_w)).squeeze(2).chunk(2)
    else:
        gate_h, gate_w = (gates(_as_map(weight, mean)).squeeze(2) for mean in (mean_h, mean_w))
    # Laid out as the means; and two tensors, since an operation's results may not be views of one.
    return torch.empty_like(mean_h).copy_(gate_h), torch.empty_like(mean_w).copy_(gate_w)


def strip_gates_gradients(
    dgate_h: Tensor,
    dgate_w: Tensor,
    gate_h: Tensor,
    gate_w: Tensor,
    mean_h: Tensor,
    mean_w: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    norm_groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of everything that `strip_gates` took.

    Args:
        dgate_h: Gradient of the gates of the rows (B,C,H).
        dgate_w: Gradient of the gates of the columns (B,C,W).
        gate_h: Gates of the rows (B,C,H), as `strip_gates` returned them.
        gate_w: Gates of the columns (B,C,W), likewise.
        mean_h: As given to `strip_gates`; so are the rest.
        mean_w: Means over the height (B,C,W).
        weight: The convolution's weight.
        norm_weight: Scale (C).
        norm_bias: Shift (C); the gates stand for it.
        norm_groups: Groups of the normalisation.
        eps: What it adds to the variance.

    Returns:
        Gradients of ``mean_h``, ``mean_w``, ``weight``, ``norm_weight`` and ``norm_bias``.
    """
    taps, scale = weight.to(mean_h.dtype), norm_weight.to(mean_h.dtype)

    def gradients(dgate: Tensor, gate: Tensor, strip: Tensor) -> tuple[Tensor, ...]:
        if strip.numel() == 0:
            zeros = torch.zeros_like(scale)
            return torch.empty_like(strip), torch.zeros_like(taps), zeros, zeros
        dnormal = torch.ops.aten.sigmoid_backward(dgate, gate)
        convolved = _convolve(strip, taps)
        batch, channels, _, length = convolved.shape
        sizes = (batch, channels, length, norm_groups)
        _, mean, deviation = torch.native_group_norm(convolved, None, None, *sizes, eps)
        dconvolved, dscale, dshift = torch.ops.aten.native_group_norm_backward(
            dnormal, convolved, mean, deviation, scale, *sizes, [True, True, True]
        )
        dstrip = _convolve(dconvolved, _turned(taps))
        return dstrip, _taps_gradient(strip, dconvolved, taps), dscale, dshift

    of_h, of_w = (dgate_h, gate_h, mean_h), (dgate_w, gate_w, mean_w)
    if mean_h.shape == mean_w.shape:
        both = [_as_map(weight, one, other) for one, other in zip(of_h, of_w, strict=True)]
        dstrips, *dparameters = gradients(*both)
        dmean_h, dmean_w = dstrips.squeeze(2).chunk(2)
    else:
        dstrip_h, *parts_h = gradients(*(_as_map(weight, strip) for strip in of_h))
        dstrip_w, *parts_w = gradients(*(_as_map(weight, strip) for strip in of_w))
        dmean_h, dmean_w = dstrip_h.squeeze(2), dstrip_w.squeeze(2)
        dparameters = [one + other for one, other in zip(parts_h, parts_w, strict=True)]
    dweight, dnorm_weight, dnorm_bias = dparameters
    return (
        *(dmean_h, dmean_w, dweight.to(weight.dtype)),
        *(dnorm_weight.to(norm_weight.dtype), dnorm_bias.to(norm_bias.dtype)),
    )


def _as_map(weight: Tensor, *strips: Tensor) -> Tensor:
    """Strips (B,C,L), one after the other -> (n·B,C,1,L), contiguous or channels_last."""
    batch, channels, length = strips[0].shape
    innermost = strips[0].stride(1) == 1 and channels > 1
    if innermost or not (strips[0].is_cpu and weight.shape[1] == 1 and length <= SHORT):
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
