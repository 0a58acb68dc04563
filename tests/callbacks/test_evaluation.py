"""The score that counts, and paths as they are shown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.callbacks.evaluation import EvaluationCallback, monitored, shown


def trainer_of(monitor: str | None, mode: str, known: float | None, **metrics: float) -> SimpleNamespace:
    best = None if known is None else torch.tensor(known)
    checkpoint = SimpleNamespace(monitor=monitor, mode=mode, best_model_score=best)
    values = {name: torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(checkpoint_callback=checkpoint, callback_metrics=values)


@pytest.mark.parametrize(
    ("mode", "known", "before", "best"),
    [
        ("max", None, None, 0.5),
        ("max", 0.75, None, 0.75),
        ("max", 0.25, 0.875, 0.875),
        ("min", 0.75, None, 0.5),
        ("min", 0.75, 0.25, 0.25),
    ],
)
def test_the_best_is_that_of_the_checkpoints_direction(mode, known, before, best):
    assert monitored(trainer_of("score", mode, known, score=0.5), before) == ("score", 0.5, best)


def test_without_checkpoints_the_tasks_own_score_counts():
    trainer = trainer_of(None, "max", None, score=0.5)
    assert monitored(trainer, default="score") == ("score", 0.5, 0.5)
    assert monitored(trainer) is monitored(trainer, default="other") is None


@pytest.mark.parametrize("fn", TrainerFn)
def test_a_validation_of_fit_is_not_asked_for(fn):
    trainer = SimpleNamespace(state=SimpleNamespace(fn=fn))
    assert EvaluationCallback.asked_for(trainer) is (fn in (TrainerFn.VALIDATING, TrainerFn.TESTING))


def test_paths_inside_the_folder_of_work_are_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown("a/b") == shown(tmp_path / "a/b") == "a/b"
    assert shown(tmp_path.parent / "c") == str(tmp_path.parent / "c")
    assert shown(tmp_path / "a/b", tmp_path / "a") == "b"
    # A folder whose name only begins alike is another one.
    assert shown(Path("ab/c"), "a") == str(tmp_path / "ab/c")
