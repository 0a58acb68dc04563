"""What is drawn of a detector: truths beside detections."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from attnlab.callbacks import Pictures
from attnlab.drawing.boxes import VERDICTS
from attnlab.errors import AttnlabError
from attnlab.views.detection import DetectionGallery
from tests.views import conftest
from tests.views.conftest import tags_of

DATA = SimpleNamespace(class_names=["cat", "dog"], palette=[(0, 200, 0), (255, 120, 0)])


def trainer_of(folder, **options):
    return conftest.trainer_of(folder, DATA, **options)


def found_of(boxes=((10.0, 10.0, 40.0, 40.0),), scores=(0.9,), labels=(1,)):
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "scores": torch.tensor(scores),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def batch_of(names, annotated=True, size=(48, 64)):
    """Grey images with a cat each."""
    target = {"image_id": torch.tensor(5)}
    if annotated:
        target |= {
            "boxes": torch.tensor([[8.0, 8.0, 30.0, 40.0]]),
            "labels": torch.tensor([0]),
            "iscrowd": torch.tensor([False]),
            "difficult": torch.tensor([True]),
        }
    return {
        "image": [torch.full((3, *size), 0.5) for _ in names],
        "target": [dict(target) for _ in names],
        "name": list(names),
    }


def validate(callback, trainer, batches, found=None):
    callback.on_validation_start(trainer, None)
    for batch in batches:
        outputs = {"detections": found or [found_of() for _ in batch["name"]]}
        callback.on_validation_batch_end(trainer, None, outputs, batch, 0)
    callback.on_validation_end(trainer, None)


def test_the_first_images_are_drawn(tmp_path):
    trainer = trainer_of(tmp_path)
    callback = Pictures(DetectionGallery(count=3))
    batches = [batch_of(["a.jpg", "b.jpg"]), batch_of(["c.jpg", "d.jpg"])]
    validate(callback, trainer, batches)
    trainer.logger.experiment.flush()
    folder = tmp_path / "run" / "version_0" / "pictures"
    assert {path.name for path in folder.iterdir()} == {"val_a.png", "val_b.png", "val_c.png", "val.png"}
    assert callback.folder == folder
    assert set(tags_of(folder.parent)) == {"val/a.jpg", "val/b.jpg", "val/c.jpg"}
    one, all_ = (np.asarray(Image.open(folder / name)) for name in ("val_a.png", "val.png"))
    assert all_.shape[0] == 2 * one.shape[0]
    assert all_.shape[1] == 2 * one.shape[1]


def test_every_epoch_draws_its_own(tmp_path):
    """Not what the one before, or one that was broken off, has kept."""
    callback, trainer = Pictures(DetectionGallery(count=2)), trainer_of(tmp_path)
    callback.on_validation_start(trainer, None)
    callback.on_validation_batch_end(trainer, None, {"detections": [found_of()]}, batch_of(["old"]), 0)
    validate(callback, trainer, [batch_of(["a"])])
    assert {path.name for path in callback.folder.iterdir()} == {"val_a.png", "val.png"}


def test_images_that_do_not_count_are_passed_over(tmp_path):
    callback = Pictures(DetectionGallery(count=3))
    validate(callback, trainer_of(tmp_path), [batch_of(["a", "b"])], found=[None, found_of()])
    assert {path.name for path in callback.folder.iterdir()} == {"val_b.png", "val.png"}


def test_only_so_many_panels_are_kept():
    gallery = DetectionGallery(count=2)
    for start in range(0, 20, 2):
        names = [str(start), str(start + 1)]
        gallery.collect({"detections": [found_of(), found_of()]}, batch_of(names), DATA)
        assert list(gallery._panels) == ["0", "1"]


@pytest.mark.parametrize("options", [{"count": 0}, {"rank": 1}, {"sanity": True}, {"logger": None}])
def test_nothing_is_drawn_unasked(tmp_path, options):
    callback = Pictures(DetectionGallery(count=options.get("count", 2)))
    trainer = trainer_of(tmp_path, rank=options.get("rank", 0))
    trainer.sanity_checking = options.get("sanity", False)
    trainer.logger = options.get("logger", trainer.logger)
    validate(callback, trainer, [batch_of(["a"])])
    assert callback.folder is None
    assert not list(tmp_path.rglob("*.png"))
    assert not callback.gallery._panels  # nor was the work done


def test_epochs_between_are_left_out(tmp_path):
    callback = Pictures(DetectionGallery(count=1, every_n_epochs=3))
    drawn = []
    for epoch in range(6):
        trainer = trainer_of(tmp_path, fn=TrainerFn.FITTING, epoch=epoch, max_epochs=6)
        callback.folder = None
        validate(callback, trainer, [batch_of(["a"])])
        drawn.append(callback.folder is not None)
    assert drawn == [True, False, False, True, False, True]


def test_what_was_found_is_green_and_what_was_missed_red(tmp_path):
    batch = batch_of(["a"])
    batch["target"][0]["difficult"] = torch.tensor([False])
    seen = {}
    for what, found in {
        "found": found_of([(8.0, 8.0, 30.0, 39.0)], labels=(0,)),
        "missed": found_of(),
    }.items():
        callback = Pictures(DetectionGallery(count=1))
        validate(callback, trainer_of(tmp_path), [batch], found=[found])
        panel = np.asarray(Image.open(callback.folder / "val_a.png"))[:-40]
        seen[what] = {v for v in ("right", "wrong") if (panel == VERDICTS[v]).all(-1).any()}
    assert seen == {"found": {"right"}, "missed": {"wrong"}}


def test_detections_stand_alone_where_truths_are_not_known(tmp_path):
    widths = []
    for annotated in (True, False):
        callback = Pictures(DetectionGallery(count=1))
        validate(callback, trainer_of(tmp_path), [batch_of(["a"], annotated)])
        widths.append(Image.open(callback.folder / "val_a.png").width)
    assert widths[0] > 1.9 * widths[1]


def test_no_detections_are_fine(tmp_path):
    callback = Pictures(DetectionGallery(count=1))
    validate(callback, trainer_of(tmp_path), [batch_of(["a"])], found=[found_of((), (), ())])
    assert (callback.folder / "val_a.png").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_drawn(tmp_path, dtype):
    batch = batch_of(["a"])
    batch["image"] = [image.to(dtype) for image in batch["image"]]
    found = {key: value.to(dtype) if key != "labels" else value for key, value in found_of().items()}
    callback = Pictures(DetectionGallery(count=1))
    validate(callback, trainer_of(tmp_path), [batch], found=[found])
    assert (callback.folder / "val_a.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": -1}, "count is -1"),
        ({"max_side": 8}, "max_side is 8"),
        ({"min_score": 1.5}, "min_score is 1.5"),
        ({"every_n_epochs": 0}, "every_n_epochs is 0"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(AttnlabError, match=words):
        DetectionGallery(**options)
