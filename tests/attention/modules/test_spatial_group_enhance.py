from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from attnlab.attention.modules.spatial_group_enhance import SpatialGroupEnhance
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(sge: SpatialGroupEnhance, x: Tensor) -> Tensor:
    groups = len(sge.weight)
    width, y = x.shape[1] // groups, torch.empty_like(x)
    for image in range(len(x)):
        for group in range(groups):
            channels = slice(group * width, (group + 1) * width)
            vectors = x[image, channels]  # (D,H,W)
            whole = vectors.sum(dim=(1, 2)) / vectors[0].numel()
            likeness = torch.einsum("dhw,d->hw", vectors, whole)
            mean = likeness.sum() / likeness.numel()
            variance = (likeness - mean).square().sum() / likeness.numel()
            # A slope of 0 where the variance is 0, as that of the module.
            std = torch.where(variance > 0, variance, 1.0).sqrt() * (variance > 0)
            normal = (likeness - mean) / (std + 1e-5)
            y[image, channels] = vectors * naive.sigmoid(sge.weight[group, 0] * normal + sge.bias[group, 0])
    return y


class TestSGE(AttentionProof):
    name = "sge"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 2 * {16: 16, 64: 64, 200: 50}[channels])
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestWithGroupsOfFour(TestSGE):
    options = MappingProxyType({"groups": 4})
    count = staticmethod(lambda channels: 2 * 4)


def test_every_gate_starts_at_the_sigmoid_of_one() -> None:
    x = torch.randn(2, 128, 4, 5)
    torch.testing.assert_close(SpatialGroupEnhance(128)(x), x * torch.sigmoid(torch.tensor(1.0)))


def test_where_all_positions_are_alike_the_bias_alone_gates() -> None:
    sge = SpatialGroupEnhance(8, groups=4).double()
    torch.nn.init.normal_(sge.weight)
    torch.nn.init.normal_(sge.bias)
    gate = sge.bias.sigmoid().repeat_interleave(2, dim=0)[:, 0]
    for size in [(1, 1), (4, 4)]:
        x = torch.randn(2, 8, 1, 1, dtype=torch.float64).expand(2, 8, *size)
        torch.testing.assert_close(sge(x), x * gate)


def test_the_position_most_like_the_whole_gets_the_most() -> None:
    sge = SpatialGroupEnhance(4, groups=1)
    torch.nn.init.ones_(sge.weight)
    torch.nn.init.zeros_(sge.bias)
    x = torch.ones(1, 4, 3, 3)
    x[:, :, 1, 1] = 3.0
    # One of nine differs: its distance from the mean is sqrt(8) deviations, that of the others 1 / sqrt(8).
    normal = torch.full((3, 3), -(8**-0.5))
    normal[1, 1] = 8**0.5
    torch.testing.assert_close(sge(x), x * normal.sigmoid())
