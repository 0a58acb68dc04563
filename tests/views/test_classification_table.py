"""A classifier's table of classes, beside one worked out by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.callbacks import Records
from attnlab.views.classification import ClassTable, class_rows


def test_rows() -> None:
    matrix = torch.tensor([[3, 0, 1], [0, 0, 0], [2, 2, 4]])
    rows = class_rows(matrix, {"cat": 0.75, "dog": 0.5}, ["cat", "cow", "dog"], ["n1", "n2", "n3"])
    assert rows == [
        (0, "n1", "cat", 4, 0.75, "dog", 1),
        (1, "n2", "cow", 0, "", "", 0),
        (2, "n3", "dog", 8, 0.5, "cat", 2),
    ]


def test_the_table_of_a_classifier_is_written(tmp_path: Path) -> None:
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=TrainerFn.TESTING),
        logger=SimpleNamespace(log_dir=str(tmp_path)),
        is_global_zero=True,
        datamodule=SimpleNamespace(class_names=["cat", "cow"], class_folders=["n1", "n2"]),
    )
    result = SimpleNamespace(images=4, matrix=torch.tensor([[3, 1], [0, 0]]), per_class={"cat": 0.75})
    Records(ClassTable()).on_test_end(trainer, SimpleNamespace(results={"test": result}))  # type: ignore[arg-type]
    assert (tmp_path / "classes_test.csv").read_text().splitlines() == [
        "index,synset,class,images,accuracy,mistaken_for,times",
        "0,n1,cat,4,0.75,cow,1",
        "1,n2,cow,0,,,0",
    ]
