"""Precision against recall: when it is drawn, and where it goes."""

from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from attnlab.callbacks import Pictures
from attnlab.drawing.curves import precision_picture
from attnlab.errors import AttnlabError
from attnlab.views.detection import PrecisionCurves
from tests.views import conftest
from tests.views.conftest import tags_of

NAMES = ["cat", "cow", "dog"]
HALF = np.full((10, 101, 3), 0.5)


def trainer_of(folder, **options):
    return conftest.trainer_of(folder, SimpleNamespace(class_names=NAMES), **options)


def task_of(precision, stage="val"):
    result = SimpleNamespace(images=3, truths=8, precision=precision)
    return SimpleNamespace(results={stage: result})


def test_nothing_is_drawn_without_truths(tmp_path):
    callback = Pictures(PrecisionCurves())
    callback.on_validation_end(trainer_of(tmp_path), task_of(np.full((10, 101, 3), -1.0)))
    callback.on_validation_end(trainer_of(tmp_path), SimpleNamespace(results={}))
    callback.on_validation_end(trainer_of(tmp_path), task_of(HALF, "test"))
    assert callback.folder is None


@pytest.mark.parametrize("stage", ["val", "test"])
def test_the_picture_is_written_and_logged(tmp_path, stage):
    trainer = trainer_of(tmp_path)
    callback = Pictures(PrecisionCurves())
    end = callback.on_validation_end if stage == "val" else callback.on_test_end
    end(trainer, task_of(HALF, stage))
    trainer.logger.experiment.flush()
    folder = tmp_path / "run" / "version_0"
    drawn = np.asarray(Image.open(folder / "pictures" / f"{stage}_precision_recall.png"))
    assert np.array_equal(drawn, precision_picture(HALF, NAMES, f"{stage}: 3 images, 8 objects"))
    assert tags_of(folder) == [f"{stage}/precision_recall"]


def test_other_processes_and_runs_that_do_not_want_it_draw_nothing(tmp_path):
    for gallery, trainer in (
        (PrecisionCurves(write=False), trainer_of(tmp_path)),
        (PrecisionCurves(), trainer_of(tmp_path, rank=1)),
        (PrecisionCurves(every_n_epochs=2), trainer_of(tmp_path, fn=TrainerFn.FITTING, epoch=1)),
    ):
        callback = Pictures(gallery)
        callback.on_validation_end(trainer, task_of(HALF))
        assert callback.folder is None


def test_bad_options_are_refused():
    with pytest.raises(AttnlabError, match=r"^curves\.every_n_epochs is 0"):
        PrecisionCurves(every_n_epochs=0)
