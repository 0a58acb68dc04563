from __future__ import annotations

import math
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.frequency import FREQUENCIES, FrequencyChannelAttention
from attnlab.attention.modules.squeeze_excite import SqueezeExcite
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive

# Pairs (u, v) of the authors' get_freq_indices, "top", written out.
TOP16 = [(0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0)]
TOP16 += [(5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2)]
LOW4 = [(0, 0), (0, 1), (1, 0), (1, 1)]


def pooled(x: Tensor, size: int) -> Tensor:
    """Cell i of n has the positions from floor(i H / n) to ceil((i + 1) H / n)."""
    cells = x.new_empty(*x.shape[:2], size, size)
    for i in range(size):
        for j in range(size):
            (top, bottom), (left, right) = (
                (k * length // size, -(-(k + 1) * length // size))
                for k, length in ((i, x.shape[2]), (j, x.shape[3]))
            )
            cells[:, :, i, j] = x[:, :, top:bottom, left:right].mean(dim=(2, 3))
    return cells


def cosine(frequency: int, place: int, size: int) -> float:
    value = math.cos(math.pi * frequency * (place + 0.5) / size) / math.sqrt(size)
    return value * math.sqrt(2) if frequency else value


def formula_of(pairs: list[tuple[int, int]], size: int = 7):  # type: ignore[no-untyped-def]
    def formula(fca: FrequencyChannelAttention, x: Tensor) -> Tensor:
        cells, channels = pooled(x, size), x.shape[1]
        spectrum = []
        for channel in range(channels):
            u, v = (f * (size // 7) for f in pairs[channel * len(pairs) // channels])
            waves = [[cosine(u, i, size) * cosine(v, j, size) for j in range(size)] for i in range(size)]
            basis = torch.tensor(waves, dtype=torch.float64).float().double()  # the module keeps float32
            spectrum.append((cells[:, channel] * basis).sum(dim=(1, 2)))
        hidden = naive.relu(torch.stack(spectrum, dim=1) @ fca.reduce.weight.T)
        return torch.einsum("bchw,bc->bchw", x, naive.sigmoid(hidden @ fca.expand.weight.T))

    return formula


class TestFCA(AttentionProof):
    name = "fca"
    formula = staticmethod(formula_of(TOP16))
    count = staticmethod(lambda channels: 2 * channels * (channels // 16))


class TestLow4(TestFCA):
    options = MappingProxyType({"frequencies": 4, "choice": "low", "size": 14, "reduction": 2})
    formula = staticmethod(formula_of(LOW4, size=14))
    count = staticmethod(lambda channels: 2 * channels * (channels // 2))
    symmetries = ("flip_height", "flip_width")  # of a side of 14, all frequencies are doubled: even waves


class TestTop2(TestFCA):
    options = MappingProxyType({"frequencies": 2, "reduction": 4})
    formula = staticmethod(formula_of(TOP16[:2]))
    count = staticmethod(lambda channels: 2 * channels * (channels // 4))
    symmetries = ("flip_height",)  # (0, 0) and (0, 1): nothing varies along the height


class TestTop1(TestFCA):
    options = MappingProxyType({"frequencies": 1, "reduction": 4})
    formula = staticmethod(formula_of(TOP16[:1]))
    count = staticmethod(lambda channels: 2 * channels * (channels // 4))
    # Any order of the positions only where 7 divides the sides; the test's map has 6 x 6.
    symmetries = ("flip_height", "flip_width", "transpose")


@pytest.mark.parametrize("size", [(7, 7), (14, 28), (1, 1), (1, 7)], ids=str)
def test_with_one_frequency_is_se_of_seven_times_the_mean(size: tuple[int, int]) -> None:
    fca, se = FrequencyChannelAttention(64, frequencies=1), SqueezeExcite(64, bias=False)
    with torch.no_grad():
        se.reduce.weight.copy_(7 * fca.reduce.weight[:, :, None, None])
        se.expand.weight.copy_(fca.expand.weight[:, :, None, None])
    x = torch.randn(2, 64, *size)
    torch.testing.assert_close(fca(x), se(x))


def test_on_a_constant_map_only_the_channels_of_the_mean_count() -> None:
    fca = FrequencyChannelAttention(32)
    x = torch.randn(1, 32, 1, 1).expand(1, 32, 9, 12)
    other = x.clone()
    other[:, 2:] += 1  # the first two of 32 channels have the frequency (0, 0) of 16
    torch.testing.assert_close(fca(other) / other, fca(x) / x)


@pytest.mark.parametrize("choice", FREQUENCIES)
@pytest.mark.parametrize("size", [7, 14])
def test_the_basis_is_orthonormal(choice: str, size: int) -> None:
    fca = FrequencyChannelAttention(32, frequencies=32, choice=choice, size=size)  # type: ignore[arg-type]
    rows = fca.basis.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(32), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("channels", "parts"), [(8, 8), (72, 12), (200, 10), (17, 1), (64, 16)])
def test_parts_are_the_largest_divisor_of_the_channels(channels: int, parts: int) -> None:
    assert len(FrequencyChannelAttention(channels).basis.unique(dim=0)) == parts


def test_the_state_dict_holds_the_weights_alone_and_half_keeps_working() -> None:
    fca = FrequencyChannelAttention(64)
    assert sorted(fca.state_dict()) == ["expand.weight", "reduce.weight"]
    x = torch.randn(2, 64, 9, 5)
    nn.init.normal_(fca.expand.weight)
    expected = fca(x)
    torch.testing.assert_close(fca.half()(x.half()).float(), expected, rtol=0.02, atol=0.02)


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(AttnlabError, match="frequencies must be 1 to 32"):
        FrequencyChannelAttention(64, frequencies=64)
    with pytest.raises(AttnlabError, match="size at least 7"):
        FrequencyChannelAttention(64, size=4)
    with pytest.raises(AttnlabError, match="choice must be one of top, low, bot, got 'high'"):
        FrequencyChannelAttention(64, choice="high")  # type: ignore[arg-type]
