from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.gam import GAM
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(gam: GAM, x: Tensor, groups: int = 1) -> Tensor:
    by_place = x.permute(0, 2, 3, 1)  # (B,H,W,C)
    hidden = naive.relu(by_place @ gam.reduce.weight[:, :, 0, 0].T + gam.reduce.bias)
    gate = naive.sigmoid(hidden @ gam.expand.weight[:, :, 0, 0].T + gam.expand.bias)
    x = (by_place * gate).permute(0, 3, 1, 2)
    conv1, norm1, _, conv2, norm2 = gam.spatial
    hidden = naive.relu(naive.batch_norm(naive.conv(x, conv1), norm1))
    gate = naive.sigmoid(naive.batch_norm(naive.conv(hidden, conv2), norm2))
    y, channels = torch.empty_like(x), x.shape[1]
    for channel in range(channels):
        # Shuffled, neighbours come from different groups: 0, C/G, 2C/G ... , then 1, C/G + 1 ...
        source = channel % groups * (channels // groups) + channel // groups
        y[:, channel] = x[:, channel] * gate[:, source]
    return y


def count(channels: int, reduction: int = 4, taps: int = 49, groups: int = 1) -> int:
    reduced = channels // reduction
    mlp = 2 * channels * reduced + reduced + channels
    return mlp + 2 * taps * channels * reduced // groups + 3 * (reduced + channels)


class TestGAM(AttentionProof):
    name = "gam"
    formula = staticmethod(formula)
    count = staticmethod(count)


class TestInGroups(TestGAM):
    options = MappingProxyType({"groups": 4})
    formula = staticmethod(lambda gam, x: formula(gam, x, groups=4))
    # 200 channels have 50 reduced ones, which 4 does not divide: 2 groups.
    count = staticmethod(lambda channels: count(channels, groups=2 if channels == 200 else 4))


class TestWithOtherOptions(TestGAM):
    options = MappingProxyType({"reduction": 2, "kernel_size": 3})
    count = staticmethod(lambda channels: count(channels, reduction=2, taps=9))


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (8, 2), (24, 3), (72, 3), (200, 2), (3, 1)])
def test_groups_divide_both_widths(channels: int, groups: int) -> None:
    gam = GAM(channels, groups=4)
    assert gam.groups == groups
    assert (gam.spatial[0].groups, gam.spatial[3].groups) == (groups, groups)


def test_without_weights_every_value_is_quartered() -> None:
    gam, x = GAM(8).eval(), torch.randn(2, 8, 6, 5)
    for parameter in gam.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(gam(x), x / 4)


def test_channels_are_gated_at_every_position_by_itself() -> None:
    gam, x = GAM(8).eval(), torch.randn(1, 8, 6, 5)
    nn.init.zeros_(gam.spatial[-1].weight)  # all spatial gates 1/2
    other = x.clone()
    other[:, :, 0, 0] += 1
    changed = gam(x) != gam(other)
    assert changed[:, :, 0, 0].any()
    assert changed.sum() == changed[:, :, 0, 0].sum()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("kernel_size", 4, "odd"), ("groups", 0, "at least 1"), ("reduction", 0, "at least 1")],
)
def test_wrong_options_are_errors(option: str, value: int, says: str) -> None:
    with pytest.raises(AttnlabError, match=says):
        GAM(8, **{option: value})
