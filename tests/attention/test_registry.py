from __future__ import annotations

import inspect
import sys
from typing import Literal

import pytest
from torch import nn

from attnlab.attention import ELA, build_attention, get_attention, list_attentions, register_attention
from attnlab.errors import AttnlabError


class Own(nn.Module):
    """An attention of the user's."""

    def __init__(
        self, channels: int, depth: int, ratio: float = 1.0, kind: Literal["a", 2] | None = None
    ) -> None:
        super().__init__()
        self.made_with = (channels, depth, ratio, kind)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    """The import path of ``Own``."""
    monkeypatch.setitem(sys.modules, "own_pkg", inspect.getmodule(Own))
    return "own_pkg.Own"


PUBLISHED = """
    none ela ela_t ela_b ela_s ela_l se ese cse sse scse ge_minus ge ge_plus srm gc non_local a2 bam cbam sge
    eca gct triplet spm fca sk sa ca simam nam gam psa_parallel psa_sequential da_position da_channel
    criss_cross lka lska ema mlca cpca caa scsa
"""


def test_no_name_that_runs_were_made_with_is_gone() -> None:
    assert set(PUBLISHED.split()) <= set(list_attentions())


@pytest.mark.parametrize("name", list_attentions())
def test_every_name_says_where_it_comes_from_and_what_its_options_mean(name: str) -> None:
    spec = get_attention(name)
    assert spec.title
    assert name == "none" or (spec.paper.startswith("https://") and spec.year)
    for option in spec.options():
        assert option.help.endswith("."), option
        assert not option.required
    module_doc = inspect.getmodule(spec.module).__doc__
    assert "Formula" in module_doc
    assert spec.paper in module_doc


@pytest.mark.parametrize(
    ("name", "kernel_size", "groups", "norm_groups"),
    [("ela_t", 5, 512, 32), ("ela_b", 7, 512, 16), ("ela_s", 5, 64, 16), ("ela_l", 7, 64, 16)],
)
def test_ela_sizes_are_the_papers(name: str, kernel_size: int, groups: int, norm_groups: int) -> None:
    ela = build_attention(name, 512)
    assert isinstance(ela, ELA)
    assert (ela.conv.kernel_size, ela.conv.groups, ela.norm.num_groups) == (
        (kernel_size,),
        groups,
        norm_groups,
    )
    assert ela.conv.bias is None


def test_an_option_goes_before_the_preset() -> None:
    assert build_attention("ela_t", 64, kernel_size=3).conv.kernel_size == (3,)


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(AttnlabError, match=r"Unknown attention 'ela_bb'\. Did you mean 'ela_b'.*import path"):
        build_attention("ela_bb", 8)


def test_an_import_path_is_a_name(own: str) -> None:
    module = build_attention(own, 8, depth=3, ratio=2, kind=2)
    assert module.made_with == (8, 3, 2, 2)


def test_an_option_without_default_has_to_be_given(own: str) -> None:
    with pytest.raises(AttnlabError, match="needs the option depth"):
        build_attention(own, 8)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package.Attention", "No module named 'no_such_package'"),
        ("torch.nn.NoSuchClass", "no attribute 'NoSuchClass'"),
        ("torch.nn.functional.relu", "must be an nn.Module class"),
        (".x", "Cannot import"),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error(path: str, message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        build_attention(path, 8)


def test_a_preset_that_is_no_option_is_an_error() -> None:
    with pytest.raises(AttnlabError, match="kernel_sise"):
        register_attention("broken", kernel_sise=3)(ELA)
    assert "broken" not in list_attentions()


def test_a_name_is_given_once_and_has_no_dots() -> None:
    with pytest.raises(AttnlabError, match="already used by ELA"):
        register_attention("ela")(Own)
    with pytest.raises(AttnlabError, match="not contain dots"):
        register_attention("a.b")(ELA)
