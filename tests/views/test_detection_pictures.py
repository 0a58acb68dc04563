"""What is drawn of a detector: truths beside detections."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attnlab.callbacks import DetectionPictures
from attnlab.callbacks.boxes import Box
from attnlab.callbacks.detection_pictures import counted, detection_panel, file_stem, in_columns
from attnlab.errors import AttnlabError

NAMES = ["cat", "dog"]
PALETTE = [(0, 200, 0), (255, 120, 0)]
DATA = SimpleNamespace(class_names=NAMES, palette=PALETTE)


def trainer_of(folder, fn=TrainerFn.VALIDATING, rank=0, epoch=0, max_epochs=10):
    return SimpleNamespace(
        logger=TensorBoardLogger(str(folder), name="run", version=0),
        datamodule=DATA,
        is_global_zero=rank == 0,
        sanity_checking=False,
        state=SimpleNamespace(fn=fn),
        current_epoch=epoch,
        max_epochs=max_epochs,
        global_step=7,
    )


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
    for batch in batches:
        outputs = {"detections": found or [found_of() for _ in batch["name"]]}
        callback.on_validation_batch_end(trainer, None, outputs, batch, 0)
    callback.on_validation_end(trainer, None)


def tags_of(folder):
    events = EventAccumulator(str(folder / "run" / "version_0"))
    events.Reload()
    return events.Tags()["images"]


def test_the_first_images_are_drawn(tmp_path):
    trainer = trainer_of(tmp_path)
    callback = DetectionPictures(count=3)
    validate(callback, trainer, [batch_of(["a.jpg", "b.jpg"]), batch_of(["c.jpg", "d.jpg"])])
    trainer.logger.experiment.flush()
    folder = tmp_path / "run" / "version_0" / "pictures"
    assert {path.name for path in folder.iterdir()} == {"val_a.png", "val_b.png", "val_c.png", "val.png"}
    assert callback.folder == folder
    assert set(tags_of(tmp_path)) == {"val/a.jpg", "val/b.jpg", "val/c.jpg"}
    one, all_ = (np.asarray(Image.open(folder / name)) for name in ("val_a.png", "val.png"))
    assert all_.shape[0] == 2 * one.shape[0]
    assert all_.shape[1] == 2 * one.shape[1]


def test_images_that_do_not_count_are_passed_over(tmp_path):
    callback = DetectionPictures(count=3)
    validate(callback, trainer_of(tmp_path), [batch_of(["a", "b"])], found=[None, found_of()])
    assert {path.name for path in callback.folder.iterdir()} == {"val_b.png", "val.png"}


@pytest.mark.parametrize("options", [{"count": 0}, {"rank": 1}, {"sanity": True}])
def test_nothing_is_drawn_unasked(tmp_path, options):
    callback = DetectionPictures(count=options.get("count", 2))
    trainer = trainer_of(tmp_path, rank=options.get("rank", 0))
    trainer.sanity_checking = options.get("sanity", False)
    validate(callback, trainer, [batch_of(["a"])])
    assert callback.folder is None


def test_epochs_between_are_left_out(tmp_path):
    callback = DetectionPictures(count=1, every_n_epochs=3)
    drawn = []
    for epoch in range(6):
        trainer = trainer_of(tmp_path, TrainerFn.FITTING, epoch=epoch, max_epochs=6)
        callback.folder = None
        validate(callback, trainer, [batch_of(["a"])])
        drawn.append(callback.folder is not None)
    assert drawn == [True, False, False, True, False, True]


def colours(panel):
    return {tuple(colour) for colour in panel.reshape(-1, 3).tolist()}


def test_truths_stand_left_and_detections_right():
    image = torch.full((3, 100, 200), 0.5)
    panel = detection_panel(
        image,
        [Box((20, 40, 100, 90), 0)],
        found_of([(20.0, 40.0, 100.0, 90.0), (1.0, 1.0, 9.0, 9.0)], (0.8, 0.1), (1, 1)),
        "a.jpg",
        NAMES,
        PALETTE,
        400,
        0.3,
    )
    middle = panel.shape[1] // 2
    assert PALETTE[0] in colours(panel[:240, :middle])
    assert PALETTE[1] not in colours(panel[:240, :middle])
    assert PALETTE[1] in colours(panel[:240, middle:])
    assert PALETTE[0] not in colours(panel[:240, middle:])
    assert {PALETTE[0], PALETTE[1]} <= colours(panel[-30:])  # the legend has both


def test_the_outline_grows_with_the_picture():
    """A box from 20 to 100 of an image twice as large when drawn, thus from 40 to 200."""
    image = torch.full((3, 100, 200), 0.5)
    panel = detection_panel(image, None, found_of([(20.0, 40.0, 100.0, 90.0)]), "a", NAMES, PALETTE, 400, 0.3)
    rows, columns = np.nonzero((panel[:-40] == PALETTE[1]).all(-1))
    top, left = np.argwhere((panel == 128).all(-1)).min(0)
    lowest = rows.max()
    along = columns[rows == lowest]
    assert lowest - top == 179
    assert (along.min() - left, along.max() - left) == (40, 199)


def test_detections_stand_alone_where_truths_are_not_known(tmp_path):
    for annotated in (True, False):
        callback = DetectionPictures(count=1)
        folder = tmp_path / str(annotated)
        validate(callback, trainer_of(folder), [batch_of(["a"], annotated)])
    shapes = [
        Image.open(tmp_path / str(annotated) / "run/version_0/pictures/val_a.png").width
        for annotated in (True, False)
    ]
    assert shapes[0] > 1.9 * shapes[1]


def test_no_detections_are_fine(tmp_path):
    callback = DetectionPictures(count=1)
    validate(callback, trainer_of(tmp_path), [batch_of(["a"])], found=[found_of((), (), ())])
    assert (callback.folder / "val_a.png").exists()


def test_extreme_pictures_are_drawn():
    for size in ((20, 4000), (4000, 20), (1, 1)):
        panel = detection_panel(
            torch.rand(3, *size), [], found_of([(0.0, 0.0, 1.0, 1.0)]), "a" * 300, NAMES, PALETTE, 480, 0.3
        )
        assert panel.shape[1] < 1100


def test_half_precision_is_drawn():
    found = {key: value.bfloat16() if key != "labels" else value for key, value in found_of().items()}
    image = torch.full((3, 48, 64), 0.5, dtype=torch.bfloat16)
    assert detection_panel(image, None, found, "a", NAMES, PALETTE, 100, 0.3).dtype == np.uint8


def test_counts_of_truths():
    boxes = [Box((0, 0, 1, 1), 0, None, note) for note in ("", "crowd", "difficult", "crowd")]
    assert counted(boxes) == "4, 2 crowd, 1 difficult"
    assert counted([]) == "0"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.jpg", "a"),
        ("x/y.JPEG", "x_y"),
        ("2008_000080", "2008_000080"),
        ("v1.2", "v1.2"),
        ("..\\a.png", ".._a"),
    ],
)
def test_names_become_files(name, stem):
    assert file_stem(name) == stem


def test_panels_stand_in_rows_of_their_own_height():
    panels = [np.zeros((h, w, 3), np.uint8) for h, w in ((10, 20), (30, 5), (8, 8))]
    sheet = in_columns(panels)
    assert sheet.shape == (38, 40, 3)
    assert (sheet[30:38, :8] == 0).all()
    assert (sheet[30:38, 8:] == 255).all()
    assert in_columns(panels[:1]).shape == (10, 20, 3)


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
        DetectionPictures(**options)
