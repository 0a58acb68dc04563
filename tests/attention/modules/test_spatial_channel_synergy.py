from __future__ import annotations

import math
import warnings
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.spatial_channel_synergy import SpatialChannelSynergy
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive
from tests.attention.exporting import free_pooling


def formula(scsa: SpatialChannelSynergy, x: Tensor) -> Tensor:
    def gate(strip: Tensor, norm: nn.GroupNorm) -> Tensor:
        part = strip.shape[1] // len(scsa.convs)
        convolved = [
            naive.conv(strip[:, n * part : (n + 1) * part], conv) for n, conv in enumerate(scsa.convs)
        ]
        return naive.sigmoid(
            naive.group_norm(torch.cat(convolved, 1), len(scsa.convs), norm.weight, norm.bias)
        )

    gate_h, gate_w = gate(x.mean(dim=3), scsa.norm_h), gate(x.mean(dim=2), scsa.norm_w)
    z = torch.einsum("bchw,bch,bcw->bchw", x, gate_h, gate_w)

    side = scsa.window
    means = [
        z[:, :, i : i + side, j : j + side].flatten(2).mean(dim=2)
        for i in range(0, x.shape[2], side)
        for j in range(0, x.shape[3], side)
    ]
    pooled = naive.group_norm(torch.stack(means, dim=2), 1, scsa.norm.weight, scsa.norm.bias)
    query, key, value = (
        torch.einsum("bcn,c->bcn", pooled, layer.weight[:, 0, 0])
        for layer in (scsa.query, scsa.key, scsa.value)
    )
    depth = x.shape[1] // scsa.heads
    attended = torch.zeros_like(pooled)
    for first in range(0, x.shape[1], depth):
        head = slice(first, first + depth)
        likeness = torch.einsum("bcn,bdn->bcd", query[:, head], key[:, head]) / math.sqrt(depth)
        weights = naive.softmax(likeness, dim=2)
        attended[:, head] = torch.einsum("bcd,bdn->bcn", weights, value[:, head])
    return torch.einsum("bchw,bc->bchw", z, naive.sigmoid(attended.mean(dim=2)))


class TestSCSA(AttentionProof):
    name = "scsa"
    formula = staticmethod(formula)
    # Convolutions with biases, three normalisations, and query, key and value.
    count = staticmethod(lambda channels: channels // 4 * (3 + 5 + 7 + 9) + channels * (1 + 3 * 2 + 3))

    @free_pooling
    def test_exports(self) -> None:
        # torch.export takes every size to be always or never 1, and a map that is not larger than a window
        # is averaged to one position. Larger ones share one program.
        module = self.build().eval()
        window = module.window
        size = {2: torch.export.Dim("height", min=window + 1), 3: torch.export.Dim("width", min=window + 1)}
        x = torch.randn(2, 16, 2 * window + 2, window + 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own future
            exported = torch.export.export(module, (x,), dynamic_shapes=(size,)).module()
        for other in (x, torch.randn(2, 16, window + 1, 3 * window)):
            torch.testing.assert_close(exported(other), module(other))


class TestOtherSizes(TestSCSA):
    options = MappingProxyType({"kernel_sizes": (3, 7), "window": 2, "heads": 3})
    count = staticmethod(lambda channels: channels // 2 * (3 + 7) + channels * (1 + 3 * 2 + 3))


@pytest.mark.parametrize(("channels", "kernels"), [(12, 4), (6, 3), (10, 2), (7, 1)])
def test_channels_that_four_does_not_divide_have_fewer_sub_features(channels: int, kernels: int) -> None:
    scsa = SpatialChannelSynergy(channels)
    assert [conv.kernel_size for conv in scsa.convs] == [(3,), (5,), (7,), (9,)][:kernels]
    assert scsa.norm_h.num_groups == scsa.norm_w.num_groups == kernels
    x = torch.randn(2, channels, 9, 8)
    torch.testing.assert_close(scsa(x), formula(scsa, x))


def test_windows_that_fill_the_map_are_those_of_the_authors() -> None:
    scsa, z = SpatialChannelSynergy(8), torch.randn(2, 8, 14, 21)
    pooled = scsa.norm(nn.functional.avg_pool2d(z, kernel_size=7, stride=7).flatten(2))
    query, key, value = scsa.query(pooled), scsa.key(pooled), scsa.value(pooled)
    attended = (query @ key.mT / math.sqrt(8)).softmax(dim=2) @ value
    torch.testing.assert_close(scsa.channel_gate(z)[..., 0], attended.mean(dim=2, keepdim=True).sigmoid())


def test_without_scales_and_values_every_gate_is_a_half() -> None:
    scsa, x = SpatialChannelSynergy(8), torch.randn(2, 8, 6, 5)
    for parameter in (scsa.norm_h.weight, scsa.norm_w.weight, scsa.value.weight):
        nn.init.zeros_(parameter)
    torch.testing.assert_close(scsa(x), x / 8)


def test_wrong_options_are_errors() -> None:
    with pytest.raises(AttnlabError, match=r"got \(\) and 7"):
        SpatialChannelSynergy(8, kernel_sizes=())
    with pytest.raises(AttnlabError, match=r"window of at least 1 .*got .* and 0"):
        SpatialChannelSynergy(8, window=0)
    with pytest.raises(AttnlabError, match="kernel_size must be odd"):
        SpatialChannelSynergy(8, kernel_sizes=(4,))
