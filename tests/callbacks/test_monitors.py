"""What each task can log is known before it runs; of other code, nothing is claimed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor

from attnlab.callbacks.best import BestCheckpoint
from attnlab.callbacks.monitors import MonitorCheck
from attnlab.errors import AttnlabError
from attnlab.metrics import DetectionScores
from attnlab.tasks import DetectionTask, SegmentationTask

CHECK = MonitorCheck()


@pytest.fixture(scope="module")
def task() -> SegmentationTask:
    return SegmentationTask(encoder="tu-test_resnet", architecture="Unet", class_names=["sky", "sea"])


class Mine(Callback):
    """Might log anything."""


class MyTask(SegmentationTask):
    """So might this."""


def trainer_of(*callbacks: Callback, **more: Any) -> Any:
    return SimpleNamespace(callbacks=list(callbacks), limit_val_batches=1.0, callback_metrics={}, **more)


def best(monitor: str | None = "val/mIoU", mode: str = "max", **options: Any) -> BestCheckpoint:
    return BestCheckpoint(monitor=monitor, mode=mode, **options)


@pytest.mark.parametrize(
    "callback",
    [
        best(),
        best(None),
        best("val/loss", "min"),
        best("val_iou/sea"),
        best("train/loss_epoch", "min"),
        best("train/of_a_term", "min"),
        best("step"),
        best("lr-AdamW/head"),
        best(filename="{epoch}-{step}-{val/pixel_accuracy:.3f}"),
        EarlyStopping("val/mIoU", mode="max"),
        EarlyStopping("val/other", strict=False),
        LearningRateMonitor(),
    ],
)
def test_what_can_come_is_waited_for(task, callback):
    CHECK.check(trainer_of(callback), task)


def test_without_validation_there_is_no_best_and_nothing_to_wait_for(task):
    """A recipe may name its monitor; a callback that decides by it cannot do without."""
    unscored = trainer_of(best("val/loss", "min"), best(filename="{epoch}-{val/mIoU:.2f}"))
    unscored.limit_val_batches = 0
    CHECK.check(unscored, task)
    unscored.callbacks = [EarlyStopping("val/mIoU", mode="max")]
    with pytest.raises(AttnlabError, match="means no validation"):
        CHECK.check(unscored, task)


@pytest.mark.parametrize("name", ["val/miou", "val_iou/see", "test/mIoU", "mIoU", "valid/loss"])
def test_what_cannot_is_refused(task, name):
    for callback in (best(name), EarlyStopping(name), best(filename=f"{{{name}:.2f}}")):
        with pytest.raises(AttnlabError, match=f"Unknown score '{name}'.*Known: .*val/mIoU"):
            CHECK.check(trainer_of(callback), task)


def test_of_code_of_ones_own_nothing_is_refused(task, caplog):
    CHECK.check(trainer_of(best("mine/score"), Mine()), task)
    own = MyTask(encoder="tu-test_resnet", architecture="Unet", class_names=["sky", "sea"])
    trainer = trainer_of(best("val/miou"))
    CHECK.check(trainer, own)
    trainer.callback_metrics = {"val/mIoU": 0.5, "val/loss": 1.0}
    with caplog.at_level(logging.INFO):
        CHECK.on_sanity_check_end(trainer, own)
        CHECK.on_train_batch_end(trainer, own)
    assert "val/miou, which nothing has logged so far; did you mean val/mIoU?" in caplog.text


def test_detections_scores_are_those_that_are_listed():
    """Those that the data leave undefined are not logged, but may be for other data."""
    found = DetectionScores(["a"]).result()
    assert {*found.coco, *(f"VOC_{name}" for name in found.voc)} == set(DetectionTask.figure_names)
