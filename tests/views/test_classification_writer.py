"""Predicted classes as a table."""

import csv
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from attnlab.callbacks import Predictions
from attnlab.errors import AttnlabError
from attnlab.tasks import ClassificationTask
from attnlab.views.classification import ClassificationView, ClassificationWriter
from attnlab.views.outputs import OWN
from tests.views.conftest import shares, trainer_of

DATA = SimpleNamespace(
    class_names=["cat", "dog, wild", "cow"],
    class_folders=["n01", "n02", "n03"],
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)
SHARES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
TASK = ClassificationTask.__new__(ClassificationTask)


@pytest.fixture
def predict(processes):
    """Run the callback's hooks as so many processes would."""

    def call(folder, count=1, paths=None, found=SHARES, **options):
        paths = paths or [f"in/{chr(122 - i)}.png" for i in range(len(found))]

        def process(rank):
            trainer = trainer_of(None, DATA, rank=rank, paths=paths)
            callback = Predictions(ClassificationWriter(str(folder), **options))
            callback.on_predict_start(trainer, TASK)
            for share in shares(len(found), count, rank):
                index = torch.tensor([place for place, _ in share])
                batch = {
                    "image": torch.zeros(len(index), 3, 6, 6),
                    "path": [paths[i] for i in index],
                    "index": index,
                    "counted": torch.tensor([counts for _, counts in share]),
                }
                callback.write_on_batch_end(trainer, TASK, found[index], None, batch, 0, 0)
            callback.on_predict_end(trainer, TASK)

        processes(count, process)

    return call


def names_in(folder):
    """The files there but for the list of those that are attnlab's."""
    return {path.name for path in folder.iterdir()} - {OWN}


def rows_of(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as table:
        return list(csv.reader(table))


def test_the_table_has_the_likeliest_classes_first(tmp_path, predict, capsys):
    predict(tmp_path, top=2)
    head, *rows = rows_of(tmp_path)
    assert head == ["image", "class_1", "synset_1", "probability_1", "class_2", "synset_2", "probability_2"]
    assert rows[0] == ["in/z.png", "cat", "n01", "0.7", "dog, wild", "n02", "0.2"]
    assert rows[1] == ["in/y.png", "cow", "n03", "0.6", "dog, wild", "n02", "0.3"]
    assert rows[2][4:6] == ["cat", "n01"]  # of two equal ones the lower class
    printed = capsys.readouterr().out
    assert printed.startswith("5 images predicted")
    assert str(tmp_path / "predictions.csv") in printed


@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_write_the_table_of_one(tmp_path, predict, count, capsys):
    predict(tmp_path / "one")
    predict(tmp_path / "many", count)
    one, many = (tmp_path / name for name in ("one", "many"))
    assert [row[0] for row in rows_of(one)] == ["image", *(f"in/{c}.png" for c in "zyxwv")]
    assert names_in(many) == {"predictions.csv", "predictions.png"}
    for name in names_in(many):
        assert (many / name).read_bytes() == (one / name).read_bytes()
    printed = capsys.readouterr().out
    assert printed.count("5 images predicted") == 2  # the first process alone
    assert len(printed.splitlines()) == 2


def test_top_is_clipped_to_the_classes(tmp_path, predict):
    predict(tmp_path, top=5)
    assert all(len(row) == 1 + 3 * 3 for row in rows_of(tmp_path))


def test_top_below_one_is_refused():
    with pytest.raises(AttnlabError, match="top is 0"):
        ClassificationWriter(top=0)


def test_odd_paths_survive(tmp_path, predict):
    paths = ["a,b.png", 'quo"te.png', "new\nline.png", "caf\udce9.png", "ünï.png"]
    predict(tmp_path, paths=paths)
    assert [row[0] for row in rows_of(tmp_path)[1:]] == paths


def test_an_image_without_a_prediction_has_an_empty_row(tmp_path, predict):
    predict(tmp_path, found=torch.full((1, 3), torch.nan))
    head, row = rows_of(tmp_path)
    assert row[0]
    assert row[1:] == [""] * (len(head) - 1)


def test_a_second_prediction_replaces_the_first(tmp_path, predict):
    predict(tmp_path, count=3)
    predict(tmp_path, found=SHARES[:2])
    assert len(rows_of(tmp_path)) == 3
    assert names_in(tmp_path) == {"predictions.csv", "predictions.png"}


def test_the_sheet_holds_the_first_48(tmp_path, predict, capsys):
    predict(tmp_path / "few", found=SHARES[:1].repeat(48, 1))
    predict(tmp_path / "more", found=SHARES[:1].repeat(60, 1))
    few, more = (Image.open(tmp_path / name / "predictions.png") for name in ("few", "more"))
    assert few.size == more.size
    assert len(rows_of(tmp_path / "more")) == 61
    assert capsys.readouterr().out.count("the first 48 images in") == 2
    predict(tmp_path / "none", pictures=False)
    assert names_in(tmp_path / "none") == {"predictions.csv"}


def test_what_somebody_else_has_written_stays(tmp_path, predict):
    (tmp_path / "predictions.csv").write_text("mine")
    with pytest.raises(AttnlabError, match="attnlab did not write"):
        predict(tmp_path, count=2)
    assert (tmp_path / "predictions.csv").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_an_interrupted_prediction_left_is_forgotten(tmp_path):
    """The same callback predicts again, of fewer pictures."""
    callback = Predictions(ClassificationWriter(str(tmp_path)))
    for paths in (["a.png", "b.png"], ["c.png"]):
        trainer = trainer_of(None, DATA, paths=paths)
        callback.on_predict_start(trainer, TASK)
        batch = {
            "image": torch.zeros(len(paths), 3, 6, 6),
            "path": paths,
            "index": torch.arange(len(paths)),
            "counted": torch.ones(len(paths), dtype=torch.bool),
        }
        callback.write_on_batch_end(trainer, TASK, SHARES[: len(paths)], None, batch, 0, 0)
        assert names_in(tmp_path) == set()  # all comes at the end
    callback.on_predict_end(trainer, TASK)
    assert [row[0] for row in rows_of(tmp_path)[1:]] == ["c.png"]


@pytest.mark.parametrize(("options", "count"), [({}, 48), ({"pictures": False}, 0)])
def test_pictures_are_looked_at_only_where_they_are_drawn(tmp_path, predict, monkeypatch, options, count):
    seen, image = [], ClassificationView.image
    monkeypatch.setattr(ClassificationView, "image", lambda *of: seen.append(0) or image(*of))
    predict(tmp_path, found=SHARES[:1].repeat(60, 1), **options)
    assert len(seen) == count
    assert len(rows_of(tmp_path)) == 61
