from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.strip_pooling import StripPooling
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(spm: StripPooling, x: Tensor) -> Tensor:
    strip_h, strip_w = naive.conv(x.mean(dim=3), spm.conv_h), naive.conv(x.mean(dim=2), spm.conv_w)
    if spm.norm_h is not None and spm.norm_w is not None:
        strip_h, strip_w = naive.batch_norm(strip_h, spm.norm_h), naive.batch_norm(strip_w, spm.norm_w)
    y = torch.empty_like(x)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            both = strip_h[:, :, i] + strip_w[:, :, j]
            if spm.norm_h is not None:
                both = naive.relu(both)
            logits = torch.einsum("bc,oc->bo", both, spm.fuse.weight[:, :, 0, 0]) + spm.fuse.bias
            y[:, :, i, j] = x[:, :, i, j] * naive.sigmoid(logits)
    return y


class TestSPM(AttentionProof):
    name = "spm"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 2 * (3 * channels**2 + channels) + channels**2 + channels)


class TestOfTheCode(TestSPM):
    options = MappingProxyType({"norm": "bn"})
    count = staticmethod(lambda channels: 7 * channels**2 + 3 * channels + 4 * channels)

    def test_gradients_reach_the_input_and_every_parameter(self) -> None:
        # In evaluation: batch statistics take every bias that comes right before a normalisation away again.
        module, x = self.build(64).eval(), torch.randn(2, 64, 6, 5, requires_grad=True)
        module(x).square().sum().backward()
        tensors = {"input": x, **dict(module.named_parameters())}
        assert not [name for name, tensor in tensors.items() if tensor.grad is None or not tensor.grad.any()]


def test_each_strip_reaches_its_neighbours_only() -> None:
    spm, x = StripPooling(8), torch.randn(1, 8, 9, 9)
    nn.init.zeros_(spm.conv_w.weight)  # rows alone
    other = x.clone()
    other[:, :, 4] += 1
    rows = (spm(x) / x - spm(other) / other).abs().amax(dim=(0, 1, 3))
    assert [row for row in range(9) if rows[row] > 1e-5] == [3, 4, 5]


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_without_weights_every_gate_is_a_half(norm: str) -> None:
    spm, x = StripPooling(16, norm=norm).eval(), torch.randn(2, 16, 6, 5)  # type: ignore[arg-type]
    for parameter in spm.fuse.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(spm(x), x / 2)


def test_turning_the_map_turns_the_output_if_the_convolutions_trade_places() -> None:
    spm, turned, x = StripPooling(16), StripPooling(16), torch.randn(2, 16, 6, 5)
    for mine, other in (("conv_h", "conv_w"), ("conv_w", "conv_h"), ("fuse", "fuse")):
        getattr(turned, other).load_state_dict(getattr(spm, mine).state_dict())
    torch.testing.assert_close(turned(x.transpose(2, 3)), spm(x).transpose(2, 3))


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(AttnlabError, match="norm must be none or bn, got 'gn'"):
        StripPooling(16, norm="gn")  # type: ignore[arg-type]
