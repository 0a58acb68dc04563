from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from timm.layers import selective_kernel as timms
from torch import Tensor, nn

from attnlab.attention.modules.selective_kernel import SelectiveKernel
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def formula(sk: SelectiveKernel, x: Tensor) -> Tensor:
    maps = []
    for branch in sk.branches:
        assert isinstance(branch, nn.Sequential)
        conv, norm = branch[0], branch[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        maps.append(naive.relu(naive.batch_norm(naive.conv(x, conv), norm)))
    means = sum(maps, torch.zeros_like(x)).mean(dim=(2, 3))
    fused = torch.einsum("bc,dc->bd", means, sk.reduce.weight[:, :, 0, 0])
    fused = naive.relu(naive.batch_norm(fused, sk.norm))
    tables = sk.expand.weight[:, :, 0, 0].reshape(len(maps), x.shape[1], -1)  # A_m: (C,d)
    shares = naive.softmax(torch.einsum("bd,mcd->mbc", fused, tables), dim=0)
    return torch.einsum("mbchw,mbc->bchw", torch.stack(maps), shares)


def count(channels: int, groups: int, reduced: int, branches: int = 2) -> int:
    convs = branches * (channels * (channels // groups) * 9 + 2 * channels)
    return convs + channels * reduced + 2 * reduced + reduced * branches * channels


class TestSK(AttentionProof):
    name = "sk"
    formula = staticmethod(formula)
    # 200 channels fall into 25 groups: the largest divisor not above 32.
    count = staticmethod(lambda channels: count(channels, {16: 16, 64: 32, 200: 25}[channels], 32))


class TestThreeBranches(TestSK):
    options = MappingProxyType({"branches": 3, "groups": 4, "reduction": 4, "min_channels": 8})
    count = staticmethod(lambda channels: count(channels, 4, max(8, channels // 4), branches=3))


def test_is_timms() -> None:
    ours = SelectiveKernel(64).eval()
    theirs = timms.SelectiveKernel(64, groups=32, rd_channels=32, split_input=False).eval()
    for mine, path in zip(ours.branches, theirs.paths, strict=True):
        assert isinstance(mine, nn.Sequential)
        path.conv.load_state_dict(mine[0].state_dict())
        nn.init.normal_(mine[1].running_mean)
        path.bn.load_state_dict(mine[1].state_dict())
    theirs.attn.fc_reduce.load_state_dict(ours.reduce.state_dict())
    nn.init.normal_(ours.expand.weight)  # at its start all shares are nearly the same
    theirs.attn.fc_select.load_state_dict(ours.expand.state_dict())
    theirs.attn.bn.load_state_dict(ours.norm.state_dict())
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_branches_see_as_far_as_their_kernels() -> None:
    sk, x = SelectiveKernel(4, branches=3).eval(), torch.zeros(1, 4, 9, 9)
    x[:, :, 4, 4] = 1
    for reach, branch in enumerate(sk.branches, start=1):
        assert isinstance(branch, nn.Sequential)
        rows = branch[0](x).abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()
        assert rows == [4 - reach, 4, 4 + reach]


def test_shares_are_equal_without_weights_and_one_branch_wins_where_its_score_is_far_above() -> None:
    sk, x = SelectiveKernel(16).eval(), torch.randn(2, 16, 6, 5)
    nn.init.zeros_(sk.expand.weight)
    maps = [branch(x) for branch in sk.branches]
    torch.testing.assert_close(sk(x), (maps[0] + maps[1]) / 2)
    nn.init.constant_(sk.norm.bias, 1.0)  # some hidden value is above 0
    nn.init.constant_(sk.expand.weight[16:], 1e4)
    torch.testing.assert_close(sk(x), maps[1])


def test_starts_with_nearly_equal_shares() -> None:
    sk, x = SelectiveKernel(64).eval(), torch.randn(2, 64, 6, 5)
    maps = [branch(x) for branch in sk.branches]
    torch.testing.assert_close(sk(x), (maps[0] + maps[1]) / 2, rtol=0.02, atol=0.02)


def test_refuses_a_single_branch() -> None:
    with pytest.raises(AttnlabError, match="branches must be at least 2"):
        SelectiveKernel(16, branches=1)
