from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor
from torchvision.ops import SqueezeExcitation

from attnlab.attention.modules.squeeze_excite import SqueezeExcite
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(se: SqueezeExcite, x: Tensor) -> Tensor:
    means = x.sum(dim=(2, 3)) / x.shape[2:].numel()
    hidden = torch.einsum("bc,rc->br", means, se.reduce.weight[:, :, 0, 0])
    hidden = naive.relu(hidden + (0 if se.reduce.bias is None else se.reduce.bias))
    gate = torch.einsum("br,cr->bc", hidden, se.expand.weight[:, :, 0, 0])
    gate = naive.sigmoid(gate + (0 if se.expand.bias is None else se.expand.bias))
    return torch.einsum("bchw,bc->bchw", x, gate)


class TestSE(AttentionProof):
    name = "se"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 2 * channels * (channels // 16) + channels // 16 + channels)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestWithoutBias(TestSE):
    options = MappingProxyType({"bias": False, "reduction": 4})
    count = staticmethod(lambda channels: 2 * channels * (channels // 4))


def test_is_torchvisions() -> None:
    ours, theirs = SqueezeExcite(64, reduction=8), SqueezeExcitation(64, 8)
    for mine, other in ((ours.reduce, theirs.fc1), (ours.expand, theirs.fc2)):
        other.load_state_dict(mine.state_dict())
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))
