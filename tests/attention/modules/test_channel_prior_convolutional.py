from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.channel_prior_convolutional import ChannelPriorConvolutionalAttention
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(cpca: ChannelPriorConvolutionalAttention, x: Tensor) -> Tensor:
    x, attention = prior_and_attention(cpca, x, lambda mean, peak: naive.sigmoid(mean + peak))
    return x * attention


def block_formula(cpca: ChannelPriorConvolutionalAttention, x: Tensor) -> Tensor:
    x = naive.gelu(mix(cpca, x))
    x, attention = prior_and_attention(cpca, x, lambda mean, peak: naive.sigmoid(mean) + naive.sigmoid(peak))
    return mix(cpca, x * attention)


def prior_and_attention(cpca, x, gate_of):  # type: ignore[no-untyped-def]
    def mlp(pooled: Tensor) -> Tensor:
        hidden = naive.relu(pooled @ cpca.reduce.weight[:, :, 0, 0].T + cpca.reduce.bias)
        return hidden @ cpca.expand.weight[:, :, 0, 0].T + cpca.expand.bias

    gate = gate_of(mlp(x.flatten(2).mean(dim=2)), mlp(x.flatten(2).max(dim=2).values))
    prior = torch.einsum("bchw,bc->bchw", x, gate)
    local = naive.conv(prior, cpca.local)
    total = local.clone()
    for row, column in cpca.branches:
        total += naive.conv(naive.conv(local, row), column)
    return prior, mix(cpca, total)


def mix(cpca: ChannelPriorConvolutionalAttention, x: Tensor) -> Tensor:
    mixed = torch.einsum("bihw,oi->bohw", x, cpca.mix.weight[:, :, 0, 0])
    return mixed + cpca.mix.bias[:, None, None]


def count(channels: int, reduction: int = 4, kernel_sizes: tuple[int, ...] = (7, 11, 21)) -> int:
    reduced = channels // reduction
    mlp = 2 * channels * reduced + reduced + channels
    depthwise = channels * (5 * 5 + 1 + sum(2 * (size + 1) for size in kernel_sizes))
    return mlp + depthwise + channels * (channels + 1)


class TestCPCA(AttentionProof):
    name = "cpca"
    formula = staticmethod(formula)
    count = staticmethod(count)

    def build(self, channels: int = 16) -> nn.Module:
        # No sigmoid bounds the attention: small parameters keep it about 1, which the tolerances are for.
        module = super().build(channels)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(0.4)
        return module


class TestBlock(TestCPCA):
    options = MappingProxyType({"form": "block"})
    formula = staticmethod(block_formula)


class TestOtherBranches(TestCPCA):
    options = MappingProxyType({"kernel_sizes": (3,), "reduction": 2})
    count = staticmethod(lambda channels: count(channels, 2, (3,)))


def test_attention_sees_25_positions_a_side_in_the_shape_of_its_branches() -> None:
    """The 5 x 5 convolution widens every branch, 21 x 21 at most, by 2 on each side."""
    cpca, x = ChannelPriorConvolutionalAttention(1, reduction=1).double(), torch.ones(1, 1, 41, 41).double()
    for parameter in cpca.parameters():
        nn.init.ones_(parameter)
    nn.init.zeros_(cpca.expand.weight)  # a channel gate that does not see the map
    before = cpca(x)
    x[0, 0, 20, 20] = 2
    changed = cpca(x) != before
    assert changed.sum() == 25 * 25
    assert changed[0, 0, 8:33, 8:33].all()


@pytest.mark.parametrize(("form", "gate"), [("attention", 0.5), ("block", 1.0)])
def test_with_zero_logits_the_channel_gate_is_half_its_range(form: str, gate: float) -> None:
    cpca, x = ChannelPriorConvolutionalAttention(8, form=form), torch.randn(2, 8, 6, 5)
    for parameter in (cpca.expand.weight, cpca.expand.bias, cpca.mix.weight):
        nn.init.zeros_(parameter)
    nn.init.ones_(cpca.mix.bias)  # attention 1, whatever the branches say
    torch.testing.assert_close(cpca.attend(x), gate * x)


def test_wrong_options_are_errors() -> None:
    with pytest.raises(AttnlabError, match="form must be attention or block, got 'code'"):
        ChannelPriorConvolutionalAttention(8, form="code")
    with pytest.raises(AttnlabError, match="kernel_size must be odd"):
        ChannelPriorConvolutionalAttention(8, kernel_sizes=(8,))
