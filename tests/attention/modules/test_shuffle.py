from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from attnlab.attention.modules.shuffle import ShuffleAttention
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(sa: ShuffleAttention, x: Tensor) -> Tensor:
    half = x.shape[1] // (2 * sa.groups)
    gated = torch.empty_like(x)
    for group in range(sa.groups):
        for unit in range(half):
            first, second = group * 2 * half + unit, group * 2 * half + half + unit
            mean = x[:, first].mean(dim=(1, 2), keepdim=True)
            gate = naive.sigmoid(sa.channel_weight[unit] * mean + sa.channel_bias[unit])
            gated[:, first] = x[:, first] * gate
            part = x[:, second]
            normal = naive.group_norm(part[:, None], 1, sa.norm.weight[unit], sa.norm.bias[unit])[:, 0]
            gate = naive.sigmoid(sa.spatial_weight[unit] * normal + sa.spatial_bias[unit])
            gated[:, second] = part * gate
    y = torch.empty_like(x)
    for channel in range(x.shape[1] // 2):
        y[:, 2 * channel], y[:, 2 * channel + 1] = gated[:, channel], gated[:, x.shape[1] // 2 + channel]
    return y


class TestSA(AttentionProof):
    name = "sa"
    formula = staticmethod(formula)
    count = staticmethod({16: 6, 64: 6, 200: 12}.__getitem__)  # 6 a channel of a half: 8, 32 and 50 groups
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


class TestInTwoGroups(TestSA):
    options = MappingProxyType({"groups": 2})
    count = staticmethod(lambda channels: 6 * channels // 4)
