from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from attnlab.attention.modules.ela import ELA
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(ela: ELA, x: Tensor) -> Tensor:
    def gate(strip: Tensor) -> Tensor:
        convolved = naive.conv(strip, ela.conv)
        return naive.sigmoid(naive.group_norm(convolved, ela.norm.num_groups, ela.norm.weight, ela.norm.bias))

    gate_h, gate_w = gate(x.sum(dim=3) / x.shape[3]), gate(x.sum(dim=2) / x.shape[2])
    return torch.einsum("bchw,bch,bcw->bchw", x, gate_h, gate_w)


class TestELAB(AttentionProof):
    name = "ela_b"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 7 * channels + 2 * channels)
    symmetries = ("transpose",)


class TestELA(TestELAB):
    name = "ela"


class TestELAT(TestELAB):
    name = "ela_t"
    count = staticmethod(lambda channels: 5 * channels + 2 * channels)


class TestELAS(TestELAB):
    name = "ela_s"
    count = staticmethod(lambda channels: 5 * 8 * channels + 2 * channels)


class TestELAL(TestELAB):
    name = "ela_l"
    count = staticmethod(lambda channels: 7 * 8 * channels + 2 * channels)


class TestOneNormGroup(TestELAB):
    options = MappingProxyType({"norm_groups": 1})
