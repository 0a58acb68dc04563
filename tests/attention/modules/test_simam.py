from __future__ import annotations

import math
from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from attnlab.attention.modules.simam import SimAM
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive

HALF_GATE = 1 / (1 + math.exp(-0.5))


def formula(simam: SimAM, x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for image in range(x.shape[0]):
        for channel in range(x.shape[1]):
            t = x[image, channel]
            mean = t.sum() / t.numel()
            variance = sum((value - mean) ** 2 for value in t.flatten()) / max(t.numel() - 1, 1)
            energy = 4 * (variance + simam.e_lambda)
            energy = energy / ((t - mean) ** 2 + 2 * variance + 2 * simam.e_lambda)
            y[image, channel] = t * naive.sigmoid(1 / energy)
    return y


class TestSimAM(AttentionProof):
    name = "simam"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 0)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places", "permute_channels")


class TestWithTheLambdaOfImageNet(TestSimAM):
    options = MappingProxyType({"e_lambda": 0.1})


def test_the_gate_is_the_inverse_of_the_least_energy() -> None:
    torch.manual_seed(0)
    channel = torch.randn(30, 30, dtype=torch.float64)
    gate = SimAM(1)(channel[None, None])[0, 0] / channel
    for place in range(5):
        # Equation 4: a line w·x + b, 1 at t and -1 at the others by least squares, with the penalty λw².
        t, others = channel.flatten()[place], channel.flatten()[channel.numel() - 800 :]
        weight = len(others) ** -0.5
        rows = torch.stack([weight * others, torch.full_like(others, weight)], dim=1)
        rows = torch.cat([rows, torch.tensor([[t, 1.0], [1e-4**0.5, 0.0]], dtype=torch.float64)])
        wanted = torch.cat([torch.full_like(others, -weight), torch.tensor([1.0, 0.0], dtype=torch.float64)])
        line = torch.linalg.lstsq(rows, wanted[:, None]).solution[:, 0]
        energy = (rows @ line - wanted).square().sum()
        torch.testing.assert_close(gate.flatten()[place], naive.sigmoid(1 / energy), atol=0.02, rtol=0)


def test_one_pixel_and_a_constant_map_are_gated_by_a_half() -> None:
    for size in [(1, 1), (4, 3)]:
        x = torch.full((1, 2, *size), 3.0)
        torch.testing.assert_close(SimAM(2)(x), x * HALF_GATE)


def test_gates_do_not_depend_on_scale_and_offset_of_a_channel_if_lambda_is_small() -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    simam, other = SimAM(3, e_lambda=1e-12), 7 * x - 2
    torch.testing.assert_close(simam(other) / other, simam(x) / x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_squares_do_not_overflow_in_half_precision(dtype: torch.dtype) -> None:
    x = 1e4 * torch.randn(2, 3, 6, 5)
    result = SimAM(3)(x.to(dtype))
    assert result.isfinite().all()
    torch.testing.assert_close(result.float(), SimAM(3)(x), atol=20, rtol=0.02)


@pytest.mark.parametrize("e_lambda", [0.0, -1e-4, math.nan])
def test_lambda_must_be_above_zero(e_lambda: float) -> None:
    with pytest.raises(AttnlabError, match="e_lambda must be above 0"):
        SimAM(8, e_lambda=e_lambda)
