"""The score that counts, and paths as they are shown."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

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


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_score_that_is_no_number_is_never_the_best(mode):
    """It compares as false with any, so that the first of two would stay."""
    nan, inf = float("nan"), float("-inf" if mode == "max" else "inf")
    assert monitored(trainer_of("score", mode, nan, score=0.5), nan) == ("score", 0.5, 0.5)
    # What ModelCheckpoint makes of a NaN is infinite.
    _, value, best = monitored(trainer_of("score", mode, inf, score=nan), 0.25)
    assert (math.isnan(value), best) == (True, 0.25)
    assert math.isnan(monitored(trainer_of("score", mode, inf, score=nan))[2])


class Scores(LightningModule):
    """Logs a score an epoch."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.weight = scores, torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def on_train_epoch_end(self):
        self.log("score", self.scores[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_checkpoints_get_over_a_score_that_is_no_number(tmp_path):
    """As Lightning has it today: a later number replaces the NaN, and a later NaN no number."""
    best = ModelCheckpoint(tmp_path, filename="best-{epoch}", monitor="score", mode="max")
    trainer = Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[best],
    )
    trainer.fit(Scores([float("nan"), 0.25, float("nan"), 0.125]), DataLoader([0], num_workers=0))
    assert best.best_model_score == 0.25
    assert best.best_model_path.endswith("best-epoch=1.ckpt")


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
