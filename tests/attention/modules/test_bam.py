from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.bam import BAM
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(bam: BAM, x: Tensor) -> Tensor:
    def branch(value: Tensor, layers: nn.Sequential) -> Tensor:
        convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
        hidden = len(norms) > 1 or norms[0].num_features == convs[0].out_channels != convs[-1].out_channels
        for index, conv in enumerate(convs[:-1]):
            value = naive.conv(value, conv)
            value = naive.relu(naive.batch_norm(value, norms[index]) if hidden else value)
        value = naive.conv(value, convs[-1])
        return value if hidden else naive.batch_norm(value, norms[0])

    by_channel = branch(x.mean(dim=(2, 3))[:, :, None, None], bam.channel)[:, :, 0, 0]
    by_place = branch(x, bam.spatial)[:, 0]
    y = torch.empty_like(x)
    for channel in range(x.shape[1]):
        a, b = by_channel[:, channel, None, None], by_place
        gate = naive.sigmoid(a * b if bam.combine == "product" else a + b)
        y[:, channel] = x[:, channel] + x[:, channel] * gate
    return y


def count(channels: int, reduced: int) -> int:
    dense = naive.parameters_of((channels, reduced), (reduced, channels), (channels, reduced))
    return dense + 2 * 9 * reduced**2 + reduced + (reduced + channels) + 3 * reduced + 1


class TestBAM(AttentionProof):
    name = "bam"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: count(channels, channels // 16) + 2 * channels + 2)

    def test_gradients_reach_the_input_and_every_parameter(self) -> None:
        # In evaluation: batch statistics take every bias that comes right before a normalisation away again.
        module, x = self.build(64).eval(), torch.randn(2, 64, 6, 5, requires_grad=True)
        module(x).square().sum().backward()
        tensors = {"input": x, **dict(module.named_parameters())}
        assert not [name for name, tensor in tensors.items() if tensor.grad is None or not tensor.grad.any()]


class TestOfTheCode(TestBAM):
    options = MappingProxyType({"reduction": 4, "dilation": 2, "combine": "product", "norm": "hidden"})
    count = staticmethod(lambda channels: count(channels, channels // 4) + 4 * 2 * (channels // 4))


def test_adds_what_the_paper_reports_to_a_resnet_50() -> None:
    # 25.56 M without, 25.92 M with one module behind each of the first three stages.
    added = sum(parameter.numel() for width in (256, 512, 1024) for parameter in BAM(width).parameters())
    assert round((25_557_032 + added) / 1e6, 2) == 25.92


def test_a_position_sees_two_dilated_convolutions_far() -> None:
    torch.manual_seed(0)
    bam, x = BAM(64, norm="hidden").eval(), torch.randn(1, 64, 21, 21)
    nn.init.zeros_(bam.channel[-1].weight)  # type: ignore[arg-type]
    other = x.clone()
    other[:, :, 10, 10] += 10
    change = (bam(other) / other - bam(x) / x).abs().amax(dim=(0, 1))
    assert [row for row in range(21) if change[row].max() > 1e-4] == [2, 6, 10, 14, 18]


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_closed_and_open_gates_give_the_map_once_and_twice(value: float) -> None:
    bam, x = BAM(32).eval(), torch.randn(2, 32, 6, 5)
    for branch in (bam.channel, bam.spatial):
        norm = branch[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, 1e3 * (value - 1))
    torch.testing.assert_close(bam(x), x * max(value, 1.0))


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(AttnlabError, match="dilation must be at least 1, got 0"):
        BAM(16, dilation=0)
    with pytest.raises(AttnlabError, match="combine must be sum or product"):
        BAM(16, combine="maximum")  # type: ignore[arg-type]
    with pytest.raises(AttnlabError, match="norm output or hidden"):
        BAM(16, norm="none")  # type: ignore[arg-type]
