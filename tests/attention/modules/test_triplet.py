from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.triplet import TripletAttention
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(triplet: TripletAttention, x: Tensor) -> Tensor:
    """The paper's way: rotate the map, gate it, rotate it back."""

    def gated(rotated: Tensor, gate: nn.Sequential) -> Tensor:
        conv, norm = gate[0], gate[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        pooled = torch.stack([rotated.max(dim=1).values, rotated.mean(dim=1)], dim=1)
        return rotated * naive.sigmoid(naive.batch_norm(naive.conv(pooled, conv), norm))

    branches = [
        gated(x.permute(0, 2, 1, 3), triplet.gate_cw).permute(0, 2, 1, 3),  # (B,H,C,W)
        gated(x.permute(0, 3, 1, 2), triplet.gate_ch).permute(0, 2, 3, 1),  # (B,W,C,H)
    ]
    if triplet.gate_hw is not None:
        branches.append(gated(x, triplet.gate_hw))
    return torch.stack(branches).mean(dim=0)


class TestTriplet(AttentionProof):
    name = "triplet"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 3 * (2 * 7 * 7 + 2))  # the paper's 6k², and the norms


class TestWithoutTheSpatialBranch(TestTriplet):
    options = MappingProxyType({"spatial": False, "kernel_size": 3})
    count = staticmethod(lambda channels: 2 * (2 * 3 * 3 + 2))


def test_turning_the_map_turns_the_output_if_the_branches_trade_places() -> None:
    triplet, turned = TripletAttention(16).eval(), TripletAttention(16).eval()
    turned.gate_cw.load_state_dict(triplet.gate_ch.state_dict())
    turned.gate_ch.load_state_dict(triplet.gate_cw.state_dict())
    assert triplet.gate_hw is not None
    assert turned.gate_hw is not None
    turned.gate_hw.load_state_dict(triplet.gate_hw.state_dict())
    with torch.no_grad():
        turned.gate_hw[0].weight.copy_(triplet.gate_hw[0].weight.transpose(2, 3))
    x = torch.randn(2, 16, 6, 5)
    torch.testing.assert_close(turned(x.transpose(2, 3)), triplet(x).transpose(2, 3))


@pytest.mark.parametrize("spatial", [True, False])
def test_without_weights_every_gate_is_a_half(spatial: bool) -> None:
    triplet, x = TripletAttention(16, spatial=spatial).eval(), torch.randn(2, 16, 6, 5)
    for parameter in triplet.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(triplet(x), x / 2)


def test_refuses_an_even_kernel() -> None:
    with pytest.raises(AttnlabError, match="kernel_size must be odd"):
        TripletAttention(16, kernel_size=4)
