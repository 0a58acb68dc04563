from __future__ import annotations

from typing import Literal

import pytest
from torch import nn

from attnlab.attention import build_attention
from attnlab.attention.options import check_options, read_options
from attnlab.errors import AttnlabError


class Own(nn.Module):
    """An attention of the user's.

    Args:
        channels: Channels.
        depth: How deep,
            in layers.
        ratio: A number.
        kind: One of two.
    """

    def __init__(
        self, channels: int, depth: int, ratio: float = 1.0, kind: Literal["a", 2] | None = None
    ) -> None:
        super().__init__()


def test_an_unknown_option_lists_the_near_ones_and_all_with_type_and_default() -> None:
    with pytest.raises(
        AttnlabError, match=r"'reducton'.*Did you mean 'reduction'.*norm: 'bn' \| 'gn' \| 'none' = 'bn'"
    ):
        build_attention("ca", 8, reducton=2)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("ca", "norm", "ln"),
        ("ca", "reduction", "8"),
        ("ca", "reduction", 8.0),
        ("ca", "reduction", True),
        ("se", "bias", 1),
        ("eca", "gamma", "2"),
        ("eca", "kernel_size", 3.5),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(name: str, option: str, value: object) -> None:
    with pytest.raises(AttnlabError, match=rf"Option '{option}' of attention '{name}' takes .*Options of"):
        build_attention(name, 8, **{option: value})


def test_none_and_integers_are_accepted_where_the_type_says_so() -> None:
    build_attention("eca", 8, kernel_size=None, gamma=3)


def test_literals_are_checked_inside_unions() -> None:
    with pytest.raises(AttnlabError, match=r"takes 'a' \| 2 \| None, got 'b' \(str\)"):
        check_options("attention 'own'", read_options(Own), {"depth": 1, "kind": "b"})


def test_help_comes_from_the_docstring_on_one_line() -> None:
    assert [option.help for option in read_options(Own)] == [
        "How deep, in layers.",
        "A number.",
        "One of two.",
    ]


def test_a_preset_takes_the_place_of_the_default() -> None:
    assert [option.default for option in read_options(Own, {"ratio": 2.0})[1:]] == [2.0, None]
