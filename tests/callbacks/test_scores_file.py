"""``scores.json``: a list that only grows."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.callbacks import ScoresFile
from attnlab.errors import AttnlabError


def end(callback: ScoresFile, stage: str, fn: TrainerFn, rank: int = 0, **metrics: float) -> None:
    values = {name.replace("__", "/"): torch.tensor(value) for name, value in metrics.items()}
    state = SimpleNamespace(fn=fn)
    callback.ends(
        SimpleNamespace(is_global_zero=rank == 0, state=state, callback_metrics=values),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        stage,
    )


@pytest.fixture
def callback(tmp_path) -> ScoresFile:
    return ScoresFile(tmp_path, tmp_path / "checkpoints/best.ckpt")


def test_entries_of_the_stage_are_appended(callback, tmp_path, capsys):
    end(callback, "test", TrainerFn.TESTING, test__acc=0.5, val__acc=0.25, lr=1.0)
    end(callback, "val", TrainerFn.VALIDATING, val__acc=0.75, val_AP=math.nan)
    entries = json.loads((tmp_path / "scores.json").read_text())
    assert [(e["split"], e["metric"], e["value"]) for e in entries] == [
        ("test", "acc", 0.5),
        ("val", "acc", 0.75),
        ("val", "val_AP", None),
    ]
    assert {e["checkpoint"] for e in entries} == {"checkpoints/best.ckpt"}
    assert entries[0]["date"].endswith("+00:00")
    assert set(entries[0]["versions"]) == {"python", "attnlab", "torch", "torchvision", "lightning"}
    assert "2 scores appended to" in capsys.readouterr().out


def test_other_processes_and_validations_of_fit_write_nothing(callback, tmp_path):
    end(callback, "test", TrainerFn.TESTING, rank=1, test__acc=0.5)
    end(callback, "val", TrainerFn.FITTING, val__acc=0.5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "3", "\x00"])
def test_somebody_elses_file_is_refused_before_the_run_and_left(callback, tmp_path, content):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(AttnlabError, match=r"scores\.json' is not a list of scores"):
        callback.setup(None, None, "test")
    assert (tmp_path / "scores.json").read_text() == content
