from __future__ import annotations

import pytest
import torch

from attnlab.attention import build_attention
from attnlab.attention.rules import GroupNorm, largest_divisor, reduced_width, same_padding
from attnlab.errors import AttnlabError


@pytest.mark.parametrize(
    ("number", "at_most", "expected"), [(72, 16, 12), (64, 16, 16), (8, 16, 8), (7, 4, 1), (1, 1, 1)]
)
def test_largest_divisor(number: int, at_most: int, expected: int) -> None:
    assert largest_divisor(number, at_most) == expected


@pytest.mark.parametrize(("number", "at_most"), [(0, 4), (4, 0), (4, -1)])
def test_numbers_below_one_are_errors(number: int, at_most: int) -> None:
    with pytest.raises(AttnlabError, match="at least 1"):
        largest_divisor(number, at_most)
    with pytest.raises(AttnlabError, match="at least 1"):
        reduced_width(number, at_most)


def test_reduced_width_has_a_floor() -> None:
    assert (reduced_width(144, 32), reduced_width(8, 32), reduced_width(144, 32, at_least=8)) == (4, 1, 8)


@pytest.mark.parametrize("kernel_size", [0, 2, -3])
def test_kernels_are_odd(kernel_size: int) -> None:
    with pytest.raises(AttnlabError, match="odd"):
        same_padding(kernel_size)


def test_group_norm_is_torchs_where_torch_has_one() -> None:
    ours, theirs = GroupNorm(4, 8), torch.nn.GroupNorm(4, 8)
    x = torch.randn(2, 8, 5)
    assert torch.equal(ours(x), theirs(x))


def test_group_norm_of_single_values_is_its_bias() -> None:
    norm = GroupNorm(8, 8)
    torch.nn.init.normal_(norm.bias)
    torch.testing.assert_close(norm(torch.randn(1, 8, 1)), norm.bias.reshape(1, 8, 1), atol=1e-3, rtol=0)


def test_groups_that_do_not_divide_become_the_largest_divisor_below() -> None:
    ela = build_attention("ela_l", 36)
    assert (ela.conv.groups, ela.norm.num_groups) == (36 // 6, 12)
    assert build_attention("sa", 72).groups == 36


def test_shuffle_attention_refuses_odd_widths() -> None:
    with pytest.raises(AttnlabError, match="even number, got 7"):
        build_attention("sa", 7)
