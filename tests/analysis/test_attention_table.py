from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import yaml
from torch import nn

from attnlab.analysis.attention_table import attention_rows
from attnlab.attention import list_attentions
from attnlab.attention.macs import count_macs
from attnlab.commands import run
from attnlab.errors import AttnlabError


def test_list_names_every_module_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attention", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in list_attentions())
    assert "arxiv.org/abs/2403.01123" in text
    assert "kernel_size=7, channels_per_group=8, norm_groups=16" in text
    assert "element-wise operations count as zero" in text


def test_cost_of_ela_is_what_its_sizes_say() -> None:
    rows = {row.spec.name: row for row in attention_rows(channels=64, size=56)}
    assert rows["ela_b"].parameters == 64 * 7 + 2 * 64
    assert rows["ela_l"].parameters == 64 * 8 * 7 + 2 * 64
    assert rows["ela_b"].macs == 2 * 56 * 64 * 7
    assert rows["none"].macs == rows["none"].parameters == 0


@pytest.mark.parametrize("sort", ["parameters", "macs"])
def test_rows_sort(sort: str) -> None:
    values = [getattr(row, sort) for row in attention_rows(16, 8, sort)]
    assert values == sorted(values)
    assert len(values) == len(list_attentions())


def test_an_unknown_sort_is_an_error() -> None:
    with pytest.raises(AttnlabError, match="Did you mean 'macs'"):
        run(["attention", "list", "--sort", "mac"])


def test_list_prints_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    run(["attention", "list", "--markdown", "--channels", "16", "--size", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(list_attentions())
    assert {line.count("|") for line in lines} == {6}


@pytest.mark.parametrize("name", list_attentions())
def test_show_has_the_formula_the_options_and_yaml_to_copy(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["attention", "show", name])
    text = capsys.readouterr().out
    assert "Formula" in text
    block = text.partition("In YAML:")[2].partition("On the command line:")[0]
    assert yaml.safe_load(block) == {
        "model": {"attention": {"name": name, "at": "auto", "mode": "replace", "options": {}}}
    }
    assert f"--model.attention={name}" in text


def test_show_takes_an_import_path(capsys: pytest.CaptureFixture[str]) -> None:
    run(["attention", "show", "attnlab.attention.modules.eca.ECA"])
    assert "gamma" in capsys.readouterr().out


def test_macs_are_half_of_the_flops_and_leave_the_module_alone() -> None:
    convolution = nn.Conv2d(3, 8, 3, padding=1)
    assert count_macs(convolution, 1, 3, 5, 4) == 3 * 8 * 9 * 5 * 4
    assert count_macs(nn.Linear(6, 4), 2, 6) == 2 * 6 * 4
    assert convolution.weight.device == torch.device("cpu")
    assert convolution.training


def test_list_imports_no_library_of_networks() -> None:
    heavy = ("lightning", "torchvision", "timm", "segmentation_models_pytorch", "torchmetrics")
    code = (
        "import sys; from attnlab.commands import run; run(['attention', 'list']); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
