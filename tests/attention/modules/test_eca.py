from __future__ import annotations

import math
from types import MappingProxyType

import pytest
import torch
from timm.layers import EcaModule
from torch import Tensor

from attnlab.attention.modules.eca import ECA
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(eca: ECA, x: Tensor) -> Tensor:
    (weight,), channels = eca.conv.weight[0], x.shape[1]
    means, y = x.mean(dim=(2, 3)), torch.empty_like(x)
    for channel in range(channels):
        total = torch.zeros_like(means[:, 0])
        for tap in range(len(weight)):
            neighbour = channel + tap - len(weight) // 2
            if 0 <= neighbour < channels:
                total = total + weight[tap] * means[:, neighbour]
        y[:, channel] = x[:, channel] * naive.sigmoid(total)[:, None, None]
    return y


class TestECA(AttentionProof):
    name = "eca"
    formula = staticmethod(formula)
    count = staticmethod(
        {16: 3, 64: 3, 200: 5}.__getitem__
    )  # |(log2 C + 1) / 2|, the odd number: equation 12
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestWithKernel(TestECA):
    options = MappingProxyType({"kernel_size": 5})
    count = staticmethod(lambda channels: 5)


@pytest.mark.parametrize(
    ("channels", "kernel_size"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_the_kernel_grows_with_the_width(channels: int, kernel_size: int) -> None:
    exact = (math.log2(channels) + 1) / 2
    assert int(exact) <= kernel_size <= int(exact) + 1
    assert ECA(channels).conv.kernel_size == (kernel_size,)


def test_is_timms() -> None:
    ours, theirs = ECA(64), EcaModule(64)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))
