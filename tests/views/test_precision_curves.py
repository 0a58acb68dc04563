"""Precision against recall, read back from the picture."""

from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attnlab.callbacks import PrecisionCurves
from attnlab.callbacks import precision_curves as module
from attnlab.callbacks.precision_curves import precision_picture


def precision_of(classes, value=0.5):
    return np.full((10, 101, classes), value)


def names_of(classes):
    return [f"class {k}" for k in range(classes)]


def trainer_of(folder, fn=TrainerFn.VALIDATING, rank=0, epoch=0, classes=3):
    return SimpleNamespace(
        logger=TensorBoardLogger(str(folder), name="run", version=0),
        datamodule=SimpleNamespace(class_names=names_of(classes)),
        is_global_zero=rank == 0,
        sanity_checking=False,
        state=SimpleNamespace(fn=fn),
        current_epoch=epoch,
        max_epochs=10,
        global_step=7,
    )


def task_of(precision, stage="val"):
    result = SimpleNamespace(images=3, truths=8, precision=precision)
    return SimpleNamespace(results={stage: result})


def places(picture, colour):
    """Rows and columns of pixels of a colour inside the plots, legends apart."""
    return np.nonzero((picture == colour).all(-1))


def frame(picture):
    """First column and row of the left plot, and the row of its lower axis."""
    axis = (picture == module.GREY).all(-1)
    column = int(np.argmax(axis.sum(0)))
    rows = np.flatnonzero(axis[:, column])
    return column + 1, int(rows.min()), int(rows.max())


@pytest.mark.parametrize("value", [0.1, 0.5, 0.9])
def test_a_level_curve_lies_at_its_precision(value):
    precision = precision_of(2, value)
    precision[1:] = 0.0  # so that the other two means lie elsewhere
    picture = precision_picture(precision, names_of(2))
    x, top, low = frame(picture)
    rows, columns = places(picture[:, x : x + module.SIDE], module.MEANS[0])
    assert (low - rows.mean()) / (low - top) == pytest.approx(value, abs=0.006)
    assert np.ptp(columns) > 0.98 * module.SIDE


def test_the_curve_falls_where_recall_ends():
    precision = precision_of(1, 0.0)
    precision[0, :41] = 0.8  # up to a recall of 0.4
    picture = precision_picture(precision, names_of(1))
    x, top, low = frame(picture)
    rows, columns = places(picture[:, x : x + module.SIDE], module.MEANS[0])
    high = columns[np.abs((low - rows) / (low - top) - 0.8) < 0.01]
    assert high.max() / module.SIDE == pytest.approx(0.4, abs=0.012)


def test_the_figures_are_the_aps(monkeypatch):
    """AP50 and AP75 of two classes and the AP over all, with a third class that has no truths."""
    rng = np.random.default_rng(0)
    precision = rng.uniform(0, 1, (10, 101, 3))
    precision[:, :, 1] = -1
    plots = []
    page = module._page
    monkeypatch.setattr(module, "_page", lambda title, both: plots.extend(both) or page(title, both))
    precision_picture(precision, ["cat", "cow", "dog"], "val")
    shown = {line.text: line.figure for line in plots[0].legend}
    total = {"0.50": 0.0, "0.75": 0.0, "0.50:0.95": 0.0}
    for k in (0, 2):
        for t in range(10):
            ap = sum(precision[t, :, k].tolist()) / 101
            total["0.50:0.95"] += ap / 20
            if t == 0:
                total["0.50"] += ap / 2
            if t == 5:
                total["0.75"] += ap / 2
    assert {key: shown[key] for key in total} == {key: f"{value:.3f}" for key, value in total.items()}
    classes = {line.text: line.figure for line in plots[1].legend if line.curve is not None}
    assert classes == {n: f"{sum(precision[0, :, k]) / 101:.3f}" for n, k in (("cat", 0), ("dog", 2))}
    assert "cow" not in {line.text for line in plots[1].legend}


def test_of_many_classes_the_best_and_the_worst_are_named(monkeypatch):
    precision = precision_of(30)
    precision[:] = np.arange(30)[::-1] / 30  # class 0 is the best
    plots = []
    page = module._page
    monkeypatch.setattr(module, "_page", lambda title, both: plots.extend(both) or page(title, both))
    precision_picture(precision, names_of(30))
    curves = [line for line in plots[1].lines if line.curve is not None]
    assert [line.text for line in plots[1].legend if line.curve is not None] == [
        *(f"class {k}" for k in (0, 1, 2, 3)),
        *(f"class {k}" for k in (26, 27, 28, 29)),
        "22 classes",
    ]
    drawn = {round(float(line.curve[0]), 6) for line in curves}
    assert drawn == {round(k / 30, 6) for k in range(30)}


@pytest.mark.parametrize("classes", [1, 2, 9, 10, 11, 80, 365])
def test_any_number_of_classes_fits(classes):
    names = ["a class of a very long name, with an ümlaut"] * classes
    picture = precision_picture(np.random.default_rng(0).uniform(0, 1, (10, 101, classes)), names, "t" * 400)
    assert picture.dtype == np.uint8
    assert (picture[:4] == 255).all()  # the margins are free
    assert (picture[-4:] == 255).all()
    assert (picture[:, :4] == 255).all()
    assert (picture[:, -4:] == 255).all()


def test_nothing_is_drawn_without_truths(tmp_path):
    assert precision_picture(precision_of(3, -1.0), names_of(3)) is None
    callback = PrecisionCurves()
    callback.on_validation_end(trainer_of(tmp_path), task_of(precision_of(3, -1.0)))
    callback.on_validation_end(trainer_of(tmp_path), SimpleNamespace(results={}))
    assert callback.folder is None


@pytest.mark.parametrize("stage", ["val", "test"])
def test_the_picture_is_written_and_logged(tmp_path, stage):
    trainer = trainer_of(tmp_path)
    callback = PrecisionCurves()
    end = callback.on_validation_end if stage == "val" else callback.on_test_end
    end(trainer, task_of(precision_of(3), stage))
    trainer.logger.experiment.flush()
    folder = tmp_path / "run" / "version_0"
    drawn = np.asarray(Image.open(folder / "pictures" / f"{stage}_precision_recall.png"))
    expected = precision_picture(precision_of(3), names_of(3), f"{stage}: 3 images, 8 objects")
    assert np.array_equal(drawn, expected)
    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Tags()["images"] == [f"{stage}/precision_recall"]


def test_other_processes_and_runs_that_do_not_want_it_draw_nothing(tmp_path):
    for callback, trainer in (
        (PrecisionCurves(write=False), trainer_of(tmp_path)),
        (PrecisionCurves(), trainer_of(tmp_path, rank=1)),
        (PrecisionCurves(every_n_epochs=2), trainer_of(tmp_path, TrainerFn.FITTING, epoch=1)),
    ):
        callback.on_validation_end(trainer, task_of(precision_of(3)))
        assert callback.folder is None
