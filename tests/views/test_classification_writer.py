"""Predicted classes as a table."""

import csv
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from attnlab.callbacks import ClassificationWriter
from attnlab.callbacks.outputs import OWN
from attnlab.errors import AttnlabError

DATA = SimpleNamespace(
    class_names=["cat", "dog, wild", "cow"],
    synsets=["n01", "n02", "n03"],
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)
SHARES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])


def predict(folder, processes=1, top=5, batch_size=2, paths=None, shares=SHARES, pictures=True):
    """Run the writer's hooks as the given number of processes would, the first one last."""
    total = -(-len(shares) // processes) * processes
    paths = paths or [f"in/{chr(122 - i)}.png" for i in range(len(shares))]
    writers = []
    for rank in range(processes):
        trainer = SimpleNamespace(
            global_rank=rank,
            is_global_zero=rank == 0,
            world_size=processes,
            datamodule=DATA,
            predict_dataloaders=SimpleNamespace(dataset=SimpleNamespace(paths=paths)),
            strategy=SimpleNamespace(barrier=lambda name: None),
        )
        writer = ClassificationWriter(str(folder), top=top, pictures=pictures)
        writer.on_predict_start(trainer, None)
        share = list(range(rank, total, processes))
        for start in range(0, len(share), batch_size):
            positions = share[start : start + batch_size]
            index = torch.tensor(positions) % len(shares)
            batch = {
                "image": torch.zeros(len(index), 3, 6, 6),
                "path": [paths[i] for i in index],
                "index": index,
                "counted": torch.tensor(positions) < len(shares),
            }
            writer.write_on_batch_end(trainer, None, shares[index], None, batch, 0, 0)
        writers.append((writer, trainer))
    for writer, trainer in reversed(writers):
        writer.on_predict_end(trainer, None)


def names_in(folder):
    """The files there but for the list of those that are attnlab's."""
    return {path.name for path in folder.iterdir()} - {OWN}


def rows_of(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as table:
        return list(csv.reader(table))


def test_the_table_has_the_likeliest_classes_first(tmp_path, capsys):
    predict(tmp_path, top=2)
    head, *rows = rows_of(tmp_path)
    assert head == ["image", "class_1", "synset_1", "probability_1", "class_2", "synset_2", "probability_2"]
    assert rows[0] == ["in/z.png", "cat", "n01", "0.7", "dog, wild", "n02", "0.2"]
    assert rows[1] == ["in/y.png", "cow", "n03", "0.6", "dog, wild", "n02", "0.3"]
    assert rows[2][4:6] == ["cat", "n01"]  # of two equal ones the lower class
    printed = capsys.readouterr().out
    assert printed.startswith("5 images predicted")
    assert str(tmp_path / "predictions.csv") in printed


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_write_the_table_of_one(tmp_path, processes, capsys):
    predict(tmp_path / "one")
    predict(tmp_path / "many", processes)
    one, many = (tmp_path / name / "predictions.csv" for name in ("one", "many"))
    assert [row[0] for row in rows_of(tmp_path / "one")] == ["image", *(f"in/{c}.png" for c in "zyxwv")]
    assert many.read_bytes() == one.read_bytes()
    assert names_in(tmp_path / "many") == {"predictions.csv", "predictions.png"}
    assert capsys.readouterr().out.count("5 images predicted") == 2  # the first process alone


def test_top_is_clipped_to_the_classes(tmp_path):
    predict(tmp_path, top=5)
    assert all(len(row) == 1 + 3 * 3 for row in rows_of(tmp_path))


def test_top_below_one_is_refused():
    with pytest.raises(AttnlabError, match="top is 0"):
        ClassificationWriter(top=0)


def test_odd_paths_survive(tmp_path):
    paths = ["a,b.png", 'quo"te.png', "new\nline.png", "caf\udce9.png", "ünï.png"]
    predict(tmp_path, paths=paths)
    assert [row[0] for row in rows_of(tmp_path)[1:]] == paths


def test_a_second_prediction_replaces_the_first(tmp_path):
    (tmp_path / ".predictions.csv.part9").write_text("of a run that was killed")
    predict(tmp_path, processes=3)
    predict(tmp_path, shares=SHARES[:2])
    assert len(rows_of(tmp_path)) == 3
    assert names_in(tmp_path) == {"predictions.csv", "predictions.png"}


def test_the_sheet_holds_the_first_48(tmp_path):
    predict(tmp_path / "few", shares=SHARES[:1].repeat(48, 1))
    predict(tmp_path / "more", shares=SHARES[:1].repeat(60, 1))
    few, more = (Image.open(tmp_path / name / "predictions.png") for name in ("few", "more"))
    assert few.size == more.size
    assert len(rows_of(tmp_path / "more")) == 61
    predict(tmp_path / "none", pictures=False)
    assert names_in(tmp_path / "none") == {"predictions.csv"}


def test_an_interrupted_prediction_leaves_no_part(tmp_path):
    loader = SimpleNamespace(dataset=SimpleNamespace(paths=["in/a.png"]))
    trainer = SimpleNamespace(global_rank=0, is_global_zero=True, predict_dataloaders=loader)
    writer = ClassificationWriter(str(tmp_path))
    writer.on_predict_start(trainer, None)
    assert names_in(tmp_path)
    writer.on_exception(trainer, None, KeyboardInterrupt())
    assert not names_in(tmp_path)


def test_an_interrupted_training_leaves_other_peoples_parts_alone(tmp_path):
    part = tmp_path / ".predictions.csv.part0"
    part.write_text("of a prediction that is running")
    ClassificationWriter(str(tmp_path)).on_exception(
        SimpleNamespace(global_rank=0), None, KeyboardInterrupt()
    )
    assert part.exists()
