from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from attnlab.attention.modules.da_channel import ChannelAttention
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(cam: ChannelAttention, x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for j in range(x.shape[1]):
        energy = (x * x[:, [j]]).sum(dim=(2, 3))  # (B,C)
        if cam.unlike:
            energy = energy.max(dim=1, keepdim=True).values - energy
        weights = naive.softmax(energy, dim=1)
        y[:, j] = cam.beta * (weights[..., None, None] * x).sum(dim=1) + x[:, j]
    return y


class TestChannelAttention(AttentionProof):
    name = "da_channel"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 1)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places", "permute_channels")


class TestUnlike(TestChannelAttention):
    options = MappingProxyType({"unlike": True})


def test_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 6, 5)
    torch.testing.assert_close(ChannelAttention(16)(x), x)


def test_a_channel_far_from_the_others_sees_itself() -> None:
    x = 30 * torch.eye(16).reshape(1, 16, 4, 4)  # channels of length 30 at right angles
    module = ChannelAttention(16)
    torch.nn.init.ones_(module.beta)
    torch.testing.assert_close(module(x), 2 * x)


def test_half_precision_is_finite_where_energies_overflow_it() -> None:
    x = torch.randn(1, 16, 40, 40) * 30  # energies of a million
    for unlike in (False, True):
        module = ChannelAttention(16, unlike=unlike)
        torch.nn.init.ones_(module.beta)
        assert module.half()(x.half()).isfinite().all()
        with torch.autocast("cpu", dtype=torch.float16):
            assert module(x.half()).isfinite().all()
