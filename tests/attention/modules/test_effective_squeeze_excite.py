from __future__ import annotations

from types import MappingProxyType

import torch
from timm.layers.squeeze_excite import EffectiveSEModule
from torch import Tensor, nn

from attnlab.attention.modules.effective_squeeze_excite import EffectiveSqueezeExcite
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(ese: EffectiveSqueezeExcite, x: Tensor) -> Tensor:
    means = x.sum(dim=(2, 3)) / x.shape[2:].numel()
    logits = torch.einsum("bc,oc->bo", means, ese.fc.weight[:, :, 0, 0]) + ese.fc.bias
    return torch.einsum("bchw,bc->bchw", x, naive.hard_sigmoid(logits))


def sigmoid_formula(ese: EffectiveSqueezeExcite, x: Tensor) -> Tensor:
    logits = torch.einsum("bchw,oc->bo", x, ese.fc.weight[:, :, 0, 0]) / x.shape[2:].numel() + ese.fc.bias
    return torch.einsum("bchw,bc->bchw", x, naive.sigmoid(logits))


class TestESE(AttentionProof):
    name = "ese"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: channels * channels + channels)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestWithTheSigmoidOfThePaper(TestESE):
    options = MappingProxyType({"gate": "sigmoid"})
    formula = staticmethod(sigmoid_formula)


def test_its_gates_close_and_open_fully() -> None:
    ese = EffectiveSqueezeExcite(2)
    nn.init.zeros_(ese.fc.weight)
    ese.fc.bias.data = torch.tensor([-3.0, 3.0])
    x = torch.randn(1, 2, 4, 5)
    assert torch.equal(ese(x), torch.stack([torch.zeros(1, 4, 5), x[:, 1]], dim=1))


def test_is_timms() -> None:
    ours, theirs = EffectiveSqueezeExcite(64), EffectiveSEModule(64)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))
