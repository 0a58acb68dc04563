from __future__ import annotations

from types import MappingProxyType

import torch
from timm.layers.cbam import CbamModule
from torch import Tensor

from attnlab.attention.modules.cbam import CBAM
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(cbam: CBAM, x: Tensor) -> Tensor:
    def mlp(pooled: Tensor) -> Tensor:
        hidden = pooled @ cbam.reduce.weight[:, :, 0, 0].T + (
            0 if cbam.reduce.bias is None else cbam.reduce.bias
        )
        out = naive.relu(hidden) @ cbam.expand.weight[:, :, 0, 0].T
        return out + (0 if cbam.expand.bias is None else cbam.expand.bias)

    gate = naive.sigmoid(mlp(x.flatten(2).mean(dim=2)) + mlp(x.flatten(2).max(dim=2).values))
    x = torch.einsum("bchw,bc->bchw", x, gate)
    pooled = torch.stack([x.mean(dim=1), x.max(dim=1).values], dim=1)
    return x * naive.sigmoid(naive.conv(pooled, cbam.spatial))


class TestCBAM(AttentionProof):
    name = "cbam"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 2 * channels * (channels // 16) + 2 * 7 * 7)


class TestWithBias(TestCBAM):
    options = MappingProxyType({"bias": True, "reduction": 2, "kernel_size": 3})
    count = staticmethod(lambda channels: channels * channels + channels // 2 + channels + 2 * 3 * 3)


def test_is_timms_without_the_batch_norm_that_timm_adds_to_the_spatial_gate() -> None:
    ours, theirs = CBAM(64), CbamModule(64)
    theirs.channel.fc1.load_state_dict(ours.reduce.state_dict())
    theirs.channel.fc2.load_state_dict(ours.expand.state_dict())
    theirs.spatial.conv.conv.load_state_dict(ours.spatial.state_dict())
    theirs.spatial.conv.bn = torch.nn.Identity()
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))
