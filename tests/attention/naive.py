"""Layers written as their definitions: sums over taps and groups. Oracles are made of these."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def sigmoid(value: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-value))


def relu(value: Tensor) -> Tensor:
    return (value + value.abs()) / 2


def gelu(value: Tensor) -> Tensor:
    """x · Φ(x), with the normal distribution's Φ."""
    return value * (1 + torch.erf(value / math.sqrt(2))) / 2


def hard_sigmoid(value: Tensor) -> Tensor:
    return (value + 3).clamp(0, 6) / 6


def softmax(value: Tensor, dim: int) -> Tensor:
    powers = torch.exp(value - value.max(dim=dim, keepdim=True).values)
    return powers / powers.sum(dim=dim, keepdim=True)


def conv(x: Tensor, layer: nn.Conv1d | nn.Conv2d) -> Tensor:
    """A convolution of (B,C,L) or (B,C,H,W): the sum over taps of shifted maps; zeros outside."""
    assert not isinstance(layer.padding, str)
    if x.dim() == 3:
        padding, dilation, stride = (0, *layer.padding), (1, *layer.dilation), (1, *layer.stride)
        y = _conv2d(
            x[:, :, None], layer.weight[:, :, None], layer.bias, padding, dilation, stride, layer.groups
        )
        return y[:, :, 0]
    return _conv2d(x, layer.weight, layer.bias, layer.padding, layer.dilation, layer.stride, layer.groups)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    dilation: Sequence[int],
    stride: Sequence[int],
    groups: int,
) -> Tensor:
    batch, channels, height, width = x.shape
    padded = x.new_zeros(batch, channels, height + 2 * padding[0], width + 2 * padding[1])
    padded[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
    taps_h, taps_w = weight.shape[2:]
    out_h = (padded.shape[2] - dilation[0] * (taps_h - 1) - 1) // stride[0] + 1
    out_w = (padded.shape[3] - dilation[1] * (taps_w - 1) - 1) // stride[1] + 1
    grouped_weight = weight.unflatten(0, (groups, -1))  # (G,O,I,kh,kw)
    y = x.new_zeros(batch, groups, grouped_weight.shape[1], out_h, out_w)
    for i in range(taps_h):
        for j in range(taps_w):
            top, left = i * dilation[0], j * dilation[1]
            shifted = padded[:, :, top :: stride[0], left :: stride[1]][:, :, :out_h, :out_w]
            y += torch.einsum(
                "bgihw,goi->bgohw", shifted.unflatten(1, (groups, -1)), grouped_weight[..., i, j]
            )
    y = y.flatten(1, 2)
    return y if bias is None else y + bias[:, None, None]


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Group normalisation of (B,C,*): each group of each image by its own mean and (biased) variance."""
    grouped = x.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(dim=2, keepdim=True)
    normal = centred / (centred.square().mean(dim=2, keepdim=True) + eps).sqrt()
    shape = (1, -1, *[1] * (x.dim() - 2))
    return normal.reshape(x.shape) * weight.reshape(shape) + bias.reshape(shape)


def batch_norm(x: Tensor, layer: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    """Batch normalisation of (B,C,*) in evaluation, by the running statistics."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    mean, variance = layer.running_mean.reshape(shape), layer.running_var.reshape(shape)
    normal = (x - mean) / (variance + layer.eps).sqrt()
    return normal * layer.weight.reshape(shape) + layer.bias.reshape(shape)


def parameters_of(*layers: tuple[int, ...]) -> int:
    """The sum of the products: numbers of weights from their shapes."""
    return sum(math.prod(shape) for shape in layers)
