"""Lines of progress, by a clock that the test moves."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.callbacks import ProgressLines
from attnlab.errors import AttnlabError


def make(steps=10, epochs=2, world=1, first=True, at=0):
    checkpoint = ModelCheckpoint(monitor="val/mIoU", mode="max")
    return SimpleNamespace(
        global_step=at,
        current_epoch=0,
        max_epochs=epochs,
        world_size=world,
        estimated_stepping_batches=steps,
        callback_metrics={"train/loss_step": torch.tensor(0.5)},
        checkpoint_callback=checkpoint,
        callbacks=[checkpoint],
        is_global_zero=first,
        sanity_checking=False,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        num_val_batches=[40, 10],
    )


def lines_of(trainer, capsys, seconds=2.0, steps=10, every=5, batch=None, enabled=True, accumulate=1):
    """Train; each batch takes some seconds, each validation 100."""
    progress = ProgressLines(60.0)
    progress.enabled = enabled
    now = [0.0]
    progress.clock = lambda: now[0]
    progress.on_train_start(trainer, None)
    batch = {"image": torch.zeros(4, 3, 2, 2)} if batch is None else batch
    for step in range(1, steps + 1):
        now[0] += seconds
        trainer.global_step += step % accumulate == 0
        progress.on_train_batch_end(trainer, None, None, batch, step)
        if step % every == 0:
            progress.on_validation_start(trainer, None)
            now[0] += 100
            trainer.callback_metrics["val/mIoU"] = torch.tensor(1 - step / 20)
            progress.on_validation_end(trainer, None)
            progress.on_train_epoch_end(trainer, None)
            trainer.current_epoch += 1
    return capsys.readouterr().out.splitlines()


def test_a_line_an_epoch(capsys):
    first, second = lines_of(make(), capsys)
    # 20 images in 10 s of training; 110 s for 5 of 10 steps.
    assert first == (
        "epoch 1/2  step 5/10  loss 0.5  val/mIoU 0.7500 (best 0.7500)  2.0 images/s  left 0:01:50"
    )
    assert second == (
        "epoch 2/2  step 10/10  loss 0.5  val/mIoU 0.5000 (best 0.7500)  2.0 images/s  left 0:00:00"
    )


def test_and_a_line_a_minute(capsys):
    lines = lines_of(make(steps=30, epochs=1), capsys, seconds=10, steps=30, every=30)
    assert [line.split("  ")[1] for line in lines] == [f"step {k}/30" for k in (6, 12, 18, 24, 30, 30)]
    assert "mIoU" not in lines[0]


@pytest.mark.parametrize("batch", [{"image": torch.zeros(4, 3, 2, 2)}, {"image": [torch.zeros(3, 2, 2)] * 4}])
def test_images_are_those_of_all_processes(capsys, batch):
    assert "  6.0 images/s" in lines_of(make(world=3), capsys, batch=batch)[0]


def test_of_several_batches_a_step_all_images_count(capsys):
    first, second = lines_of(make(steps=5), capsys, steps=10, every=5, accumulate=2)
    # Five batches of 4 in 10 s are two steps; the other three take the pace of these.
    assert "step 2/5" in first
    assert first.endswith("2.0 images/s  left 0:02:45")
    assert "step 5/5" in second
    assert second.endswith("2.0 images/s  left 0:00:00")


def test_a_resumed_run_has_its_own_pace(capsys):
    line = lines_of(make(steps=20, at=10), capsys)[0]
    assert "step 15/20" in line
    assert line.endswith("left 0:01:50")


@pytest.mark.parametrize("steps", [-1, math.inf])
def test_without_a_known_length_no_time_is_left(capsys, steps):
    line = lines_of(make(steps=steps, epochs=-1), capsys)[0]
    assert line.startswith("epoch 1  step 5  loss")
    assert "left" not in line


def test_other_processes_and_a_bar_are_silent(capsys):
    assert lines_of(make(first=False), capsys) == []
    assert lines_of(make(), capsys, enabled=False) == []


def test_an_evaluation_says_how_far_it_is(capsys):
    trainer, now = make(), [0.0]
    trainer.state.fn = TrainerFn.VALIDATING
    progress = ProgressLines(30)
    progress.clock = lambda: now[0]
    progress.on_validation_start(trainer, None)
    for _ in range(5):
        now[0] += 10
        progress.on_validation_batch_end(trainer, None, None, None, 0)
    assert capsys.readouterr().out.splitlines() == ["validation: 3 of 50 batches"]


def test_a_line_every_no_time_is_refused():
    with pytest.raises(AttnlabError, match="every_seconds"):
        ProgressLines(0)
