from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from attnlab.attention.modules.double_attention import DoubleAttention
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(a2: DoubleAttention, x: Tensor) -> Tensor:
    points = x.flatten(2)
    values = torch.einsum("bcp,mc->bmp", points, a2.embed.weight[..., 0])
    maps = naive.softmax(naive.conv(x, a2.gather).flatten(2), dim=2)
    vectors = naive.softmax(naive.conv(x, a2.distribute).flatten(2), dim=1)
    z = torch.zeros_like(values)
    for n in range(maps.shape[1]):
        descriptor = (values * maps[:, [n]]).sum(dim=2, keepdim=True)  # (B,c_m,1)
        z = z + descriptor * vectors[:, [n]]
    return x + torch.einsum("bmp,cm->bcp", z, a2.expand.weight[..., 0]).reshape(x.shape)


class TestA2(AttentionProof):
    name = "a2"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 4 * channels * (channels // 4))
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestWithWidths(TestA2):
    options = MappingProxyType({"c_m": 6, "c_n": 3})
    count = staticmethod(lambda channels: 2 * channels * 6 + 2 * channels * 3)


def test_one_descriptor_is_a_global_mean_for_every_position() -> None:
    module, x = DoubleAttention(16, c_n=1), torch.randn(2, 16, 6, 5)
    torch.nn.init.zeros_(module.gather.weight)
    added = module(x) - x
    expected = module.expand(module.embed(x.mean(dim=(2, 3)).unsqueeze(2))).unsqueeze(3)
    torch.testing.assert_close(added, expected.expand_as(x))


@pytest.mark.parametrize("options", [{"c_m": 0}, {"c_n": 0}])
def test_widths_start_at_one(options: dict[str, int]) -> None:
    with pytest.raises(AttnlabError, match="at least 1, got"):
        DoubleAttention(16, **options)
