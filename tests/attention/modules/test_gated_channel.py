from __future__ import annotations

import math
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.gated_channel import GatedChannelTransformation
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError


def formula(gct: GatedChannelTransformation, x: Tensor) -> Tensor:
    (batch, channels), y = x.shape[:2], torch.empty_like(x)
    alpha, gamma, beta = (weight.flatten() for weight in (gct.alpha, gct.gamma, gct.beta))
    for image in range(batch):
        if gct.norm == "l2":
            context = alpha * torch.stack([(plane * plane).sum() + 1e-5 for plane in x[image]]) ** 0.5
            normal = math.sqrt(channels) * context / (sum(s * s for s in context) + 1e-5) ** 0.5
        else:
            context = alpha * torch.stack([plane.abs().sum() for plane in x[image]])
            normal = channels * context / (sum(s.abs() for s in context) + 1e-5)
        powers = torch.exp(-2 * (gamma * normal + beta))
        gate = 1 + (1 - powers) / (1 + powers)
        y[image] = x[image] * gate[:, None, None]
    return y


class TestGCT(AttentionProof):
    name = "gct"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 3 * channels)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestL1(TestGCT):
    options = MappingProxyType({"norm": "l1"})


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_starts_as_the_identity(norm: str) -> None:
    x = torch.randn(2, 24, 6, 5)
    assert torch.equal(GatedChannelTransformation(24, norm=norm)(x), x)  # type: ignore[arg-type]


def test_channels_of_one_size_share_one_gate_whatever_that_size() -> None:
    gct = GatedChannelTransformation(8).double()
    nn.init.constant_(gct.gamma, 0.5)
    x = torch.randn(1, 1, 5, 4, dtype=torch.float64).expand(1, 8, 5, 4)
    for scale in (1.0, 7.0, 1e4):  # every s is the same, so n = 1
        torch.testing.assert_close(gct(x * scale), x * scale * (1 + math.tanh(0.5)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [-1, 1])
def test_negative_gamma_lets_channels_compete_and_positive_gamma_lets_them_cooperate(sign: int) -> None:
    gct = GatedChannelTransformation(8)
    nn.init.constant_(gct.gamma, 0.5 * sign)
    x = torch.arange(1.0, 9.0).reshape(1, 8, 1, 1).expand(1, 8, 4, 4)
    gates = (gct(x) / x)[0, :, 0, 0]
    assert (gates.diff() * sign > 0).all()  # the strong channels gain under cooperation, and lose otherwise


def test_squares_do_not_overflow_in_float16() -> None:
    gct, x = GatedChannelTransformation(8).half(), torch.full((1, 8, 56, 56), 100.0, dtype=torch.float16)
    nn.init.constant_(gct.gamma, 0.5)
    torch.testing.assert_close(gct(x), x * (1 + math.tanh(0.5)), rtol=2e-3, atol=0)


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(AttnlabError, match="norm must be l1 or l2, got 'max'"):
        GatedChannelTransformation(8, norm="max")  # type: ignore[arg-type]
    with pytest.raises(AttnlabError, match="eps must be above 0"):
        GatedChannelTransformation(8, eps=0)
