from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import yaml
from torch import nn

from attnlab.analysis.attention_table import AttentionRow, Trial, attention_rows
from attnlab.attention import list_attentions
from attnlab.attention.macs import count_macs
from attnlab.cli.commands import run
from attnlab.errors import AttnlabError


def test_list_names_every_module_with_its_paper_and_its_cost(capsys: pytest.CaptureFixture[str]) -> None:
    run(["attention", "list", "--channels", "8", "--size", "4", "--rounds", "1"])
    text = capsys.readouterr().out
    assert all(name in text for name in list_attentions())
    assert "arxiv.org/abs/2403.01123" in text
    assert "element-wise operations are not counted" in text
    assert "forward, ms" in text


def test_cost_of_ela_is_what_its_sizes_say() -> None:
    rows = {row.spec.name: row for row in attention_rows(Trial(64, 56, batch=2, rounds=0))}
    assert rows["ela_b"].parameters == 64 * 7 + 2 * 64
    assert rows["ela_l"].parameters == 64 * 8 * 7 + 2 * 64
    assert rows["ela_b"].macs == 2 * 56 * 64 * 7
    assert rows["none"].macs == rows["none"].parameters == rows["none"].kept_bytes == 0
    # The map; the strip means and the gates of both directions.
    assert rows["ela_b"].kept_bytes == 4 * 2 * 64 * (56 * 56 + 2 * (56 + 56))
    # The map for the gate's gradient; means, hidden layer before and after its activation, and gates.
    assert 4 * 2 * 64 * 56 * 56 < rows["se"].kept_bytes < 1.01 * 4 * 2 * 64 * 56 * 56


@pytest.mark.parametrize("sort", ["year", "parameters", "macs", "memory", "forward", "backward"])
def test_rows_sort(sort: str) -> None:
    def value(row: AttentionRow) -> float:
        if sort == "year":
            return row.spec.year or 0
        found = getattr(row, {"memory": "kept_bytes"}.get(sort, sort))
        assert found is not None
        return found

    rows = attention_rows(Trial(8, 4, rounds=1), sort)
    assert [value(row) for row in rows] == sorted(map(value, rows))
    assert len(rows) == len(list_attentions())


def test_times_are_those_of_the_work() -> None:
    rows = {row.spec.name: row for row in attention_rows(Trial(64, 48, rounds=3))}
    for time in ("forward", "backward"):  # a module of 0.4 G MACs, and one that does nothing
        assert getattr(rows["gam"], time) > 3 * getattr(rows["none"], time) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sort", "macro"], "Did you mean macs"),
        (["--sort", "forward", "--no-time"], "needs times"),
        (["--channels", "0"], "--channels must be at least 1, got 0"),
        (["--rounds", "-1"], "--rounds must be at least 0, got -1"),
    ],
)
def test_what_cannot_be_listed_is_an_error(words: list[str], message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        run(["attention", "list", *words])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_times_on_a_missing_gpu_are_an_error() -> None:
    with pytest.raises(AttnlabError, match="finds no CUDA device"):
        run(["attention", "list", "--device", "cuda"])


@pytest.mark.parametrize(("words", "columns"), [(["--no-time"], 5), (["--rounds", "1"], 7)])
def test_list_prints_markdown(words: list[str], columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    run(["attention", "list", "--markdown", "--channels", "8", "--size", "4", *words])
    *lines, empty, note = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(list_attentions())
    assert {line.count("|") for line in lines} == {columns + 1}
    assert not empty
    assert note.startswith("Cost on one map of 8 x 4 x 4.")


@pytest.mark.parametrize("name", list_attentions())
def test_show_has_the_formula_the_options_and_yaml_to_copy(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["attention", "show", name])
    text = capsys.readouterr().out
    assert "Formula" in text
    block = text.partition("In YAML:")[2].partition("On the command line:")[0]
    attention = {"name": name, "at": "auto", "mode": "replace", "options": {}}
    assert yaml.safe_load(block) == {"model": {"init_args": {"attention": attention}}}
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
        "import sys; from attnlab.cli.commands import run; run(['attention', 'list', '--no-time']); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
