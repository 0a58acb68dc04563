"""A detector's table of classes, beside one worked out by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.callbacks import Records
from attnlab.metrics import ClassAP
from attnlab.views.detection import ClassAPTable, ap_rows

PER_CLASS = {
    "dog": ClassAP(ap=0.25, ap50=0.5, voc_ap50=0.75, truths=4),
    "cat": ClassAP(ap=0.0, ap50=0.0, voc_ap50=math.nan, truths=1),
}


def test_rows_of_a_detector() -> None:
    assert ap_rows(PER_CLASS, ["cat", "cow", "dog"], [3, 7, 90]) == [
        (0, 3, "cat", 1, 0.0, 0.0, ""),
        (1, 7, "cow", 0, "", "", ""),
        (2, 90, "dog", 4, 0.25, 0.5, 0.75),
    ]


def end(folder: Path, stage: str, fn: TrainerFn, rank: int = 0, images: int = 9, write: bool = True) -> None:
    """Run the hook that ends a stage."""
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        logger=SimpleNamespace(log_dir=str(folder)),
        is_global_zero=rank == 0,
        datamodule=SimpleNamespace(class_names=["cat", "dog, wild"], category_ids=[1, 2]),
    )
    result = SimpleNamespace(images=images, per_class={"cat": PER_CLASS["dog"]})
    callback = Records(ClassAPTable(write=write))
    hook = callback.on_test_end if stage == "test" else callback.on_validation_end
    hook(trainer, SimpleNamespace(results={stage: result}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("stage", "fn"), [("test", TrainerFn.TESTING), ("val", TrainerFn.VALIDATING)])
def test_the_table_of_a_detector_is_written(tmp_path: Path, stage: str, fn: TrainerFn) -> None:
    end(tmp_path / "run", stage, fn)
    with (tmp_path / "run" / f"classes_{stage}.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["index", "category_id", "class", "truths", "AP", "AP50", "VOC_AP50"],
        ["0", "1", "cat", "4", "0.25", "0.5", "0.75"],
        ["1", "2", "dog, wild", "0", "", "", ""],
    ]


def test_no_table_where_none_is_asked_for(tmp_path: Path) -> None:
    end(tmp_path, "val", TrainerFn.FITTING)
    end(tmp_path, "test", TrainerFn.TESTING, rank=1)
    end(tmp_path, "test", TrainerFn.TESTING, write=False)
    end(tmp_path, "test", TrainerFn.TESTING, images=0)  # a split without annotations
    assert not list(tmp_path.iterdir())
