"""What is drawn and written of a segmenter: panels, masks, overlays."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from attnlab.callbacks import Pictures, Predictions
from attnlab.drawing.figures import WRONG
from attnlab.drawing.masks import IGNORE_COLOUR
from attnlab.errors import AttnlabError
from attnlab.tasks import SegmentationTask
from attnlab.views.outputs import OWN
from attnlab.views.segmentation import SegmentationGallery, SegmentationView, SegmentationWriter
from tests.views import conftest
from tests.views.conftest import shares, tags_of

DATA = SimpleNamespace(
    class_names=["background", "cat", "dog"],
    palette=[(0, 0, 0), (128, 0, 0), (0, 128, 0)],
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    ignore_index=255,
)
TASK = SegmentationTask.__new__(SegmentationTask)
PATHS = ["in/z.png", "in/a.jpg", "other/z.png", "in/k.jpg", "in/b.jpg"]


def batch_of(names, dtype=torch.float32):
    """Grey images of 24 x 40 with a cat at their left, padded by white to 32 x 64; a row is not scored."""
    image = torch.full((len(names), 3, 32, 64), 2.0, dtype=dtype)
    image[:, :, :24, :40] = 0
    mask = torch.full((len(names), 32, 64), 2)
    mask[:, :24, :40] = 0
    mask[:, :24, :10] = 1
    mask[:, :2, :40] = 255
    size = torch.tensor([[24, 40]] * len(names))
    return {"image": image, "mask": mask, "mask_size": size, "size": size, "name": list(names)}


def right():
    return batch_of(["x"])["mask"][0, :24, :40].to(torch.uint8)


def validate(callback, trainer, batches, predictions=None):
    callback.on_validation_start(trainer, None)
    for batch in batches:
        outputs = {"predictions": predictions or [right() for _ in batch["name"]]}
        callback.on_validation_batch_end(trainer, None, outputs, batch, 0)
    callback.on_validation_end(trainer, None)


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def test_the_first_images_are_drawn_each_and_together(tmp_path):
    trainer = conftest.trainer_of(tmp_path, DATA)
    callback = Pictures(SegmentationGallery(count=3))
    validate(callback, trainer, [batch_of(["a.jpg", "b/x.png"]), batch_of(["c", "d"])])
    trainer.logger.experiment.flush()
    folder = tmp_path / "run/version_0/pictures"
    assert {p.name for p in folder.iterdir()} == {"val_a.png", "val_b_x.png", "val_c.png", "val.png"}
    assert tags_of(folder.parent) == ["val/a.jpg", "val/b/x.png", "val/c"]
    one, all_ = read(folder / "val_a.png"), read(folder / "val.png")
    assert all_.shape[:2] == (2 * one.shape[0], 2 * one.shape[1])
    assert np.array_equal(all_[: len(one), : one.shape[1]], one)


def test_a_panel_shows_the_image_without_its_padding_and_its_mistakes(tmp_path):
    wrong = right()
    wrong[10:20, 20:30] = 2
    seen = {}
    for what, guess in {"right": right(), "wrong": wrong}.items():
        callback = Pictures(SegmentationGallery(count=1))
        validate(callback, conftest.trainer_of(tmp_path, DATA), [batch_of(["a"])], [guess])
        panel = read(callback.folder / "val_a.png")
        # Below the title and its captions and above the legend; 24 x 40 pixels, eight times as large.
        seen[what] = panel[60:-40]
        grey = np.nonzero((panel[:, :340] == 128).all(-1).sum(1) > 300)[0]
        assert len(grey) == 24 * 8
        assert (panel == WRONG).all(-1).any()  # the legend
    red = [((panel[..., 0] - panel[..., 1] > 80) & (panel[..., 0] > 180)).sum() for panel in seen.values()]
    assert red[0] == 0
    assert red[1] > 0.9 * 100 * 64


def test_images_that_do_not_count_are_passed_over(tmp_path):
    callback = Pictures(SegmentationGallery(count=3))
    validate(callback, conftest.trainer_of(tmp_path, DATA), [batch_of(["a", "b"])], [None, right()])
    assert {path.name for path in callback.folder.iterdir()} == {"val_b.png", "val.png"}


def test_only_so_many_panels_are_kept_and_none_of_the_epoch_before():
    gallery = SegmentationGallery(count=2)
    for start in range(0, 20, 2):
        names = [str(start), str(start + 1)]
        gallery.collect({"predictions": [right(), right()]}, batch_of(names), DATA)
        assert list(gallery._panels) == ["0", "1"]
    gallery.begin(20)
    assert list(gallery.pictures("val", None, DATA)) == []


@pytest.mark.parametrize("options", [{"count": 0}, {"rank": 1}, {"sanity": True}])
def test_nothing_is_drawn_unasked(tmp_path, options):
    callback = Pictures(SegmentationGallery(count=options.get("count", 2)))
    trainer = conftest.trainer_of(tmp_path, DATA, rank=options.get("rank", 0))
    trainer.sanity_checking = options.get("sanity", False)
    validate(callback, trainer, [batch_of(["a"])])
    assert callback.folder is None


def test_epochs_between_are_left_out(tmp_path):
    callback = Pictures(SegmentationGallery(count=1, every_n_epochs=2))
    drawn = []
    for epoch in range(4):
        callback.folder = None
        trainer = conftest.trainer_of(tmp_path, DATA, fn=TrainerFn.FITTING, epoch=epoch, max_epochs=4)
        validate(callback, trainer, [batch_of(["a"])])
        drawn.append(callback.folder is not None)
    assert drawn == [True, False, True, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_drawn(tmp_path, dtype):
    for folder, kind in ((tmp_path / "half", dtype), (tmp_path / "full", torch.float32)):
        callback = Pictures(SegmentationGallery(count=1))
        validate(callback, conftest.trainer_of(folder, DATA), [batch_of(["a"], kind)])
    half, full = (read(tmp_path / f"{name}/run/version_0/pictures/val_a.png") for name in ("half", "full"))
    assert np.abs(half - full).max() <= 1


@pytest.mark.parametrize("bad", [{"count": -1}, {"max_side": 0}, {"every_n_epochs": 0}])
def test_numbers_that_are_too_small_are_refused(bad):
    with pytest.raises(AttnlabError, match=f"pictures.{next(iter(bad))} is"):
        SegmentationGallery(**bad)


def mask_of(position):
    """Each image has its own size, and all values that there are."""
    mask = torch.zeros(30, 40 + position, dtype=torch.uint8)
    mask[:, :20], mask[10], mask[29] = 1, 2, 255
    return mask


@pytest.fixture
def predict(processes):
    """Run the callback's hooks as so many processes would."""

    def call(folder, count=1, paths=PATHS, **options):
        def process(rank):
            trainer = conftest.trainer_of(None, DATA, rank=rank, paths=paths)
            callback = Predictions(SegmentationWriter(str(folder), **options))
            callback.on_predict_start(trainer, TASK)
            for share in shares(len(paths), count, rank):
                batch = {
                    "original": [torch.full((3, 30, 40 + i), 100, dtype=torch.uint8) for i, _ in share],
                    "path": [paths[i] for i, _ in share],
                    "index": torch.tensor([i for i, _ in share]),
                    "counted": torch.tensor([counts for _, counts in share]),
                }
                step = [mask_of(i) if counts else None for i, counts in share]
                callback.write_on_batch_end(trainer, TASK, step, None, batch, 0, 0)
            callback.on_predict_end(trainer, TASK)

        processes(count, process)

    return call


MASKS = {f"{name}.png" for name in ("z", "a", "z_2", "k", "b")}
OVERLAYS = {name.replace(".png", "_overlay.png") for name in MASKS}


def test_masks_hold_classes_in_the_images_size_and_show_their_colours(tmp_path, predict, capsys):
    predict(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == MASKS | OVERLAYS | {OWN}
    assert capsys.readouterr().out == f"5 images predicted; masks and overlays are in {tmp_path}/\n"
    for position, name in enumerate(("z", "a", "z_2", "k", "b")):
        mask = Image.open(tmp_path / f"{name}.png")
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), mask_of(position).numpy())
        shown = np.asarray(mask.convert("RGB"))
        assert [tuple(shown[y, x].tolist()) for y, x in ((0, 30), (0, 0), (10, 0), (29, 0))] == [
            *DATA.palette,
            IGNORE_COLOUR,
        ]


def test_overlays_lie_over_the_image_with_a_legend_below(tmp_path, predict):
    predict(tmp_path, paths=PATHS[:1])
    drawn = read(tmp_path / "z_overlay.png")
    assert (drawn[8, 38 * 8] == 100).all()  # background; the image is drawn eight times as large
    assert drawn[40, 40].tolist() == pytest.approx([114, 50, 50], abs=1)
    legend = {tuple(pixel) for pixel in drawn[30 * 8 + 4 :].reshape(-1, 3).tolist()}
    assert set(DATA.palette[1:]) <= legend


@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_write_the_files_of_one(tmp_path, predict, count):
    predict(tmp_path / "one")
    predict(tmp_path / "many", count)
    one, many = (tmp_path / name for name in ("one", "many"))
    assert {p.name for p in many.iterdir()} == {p.name for p in one.iterdir()}
    for name in MASKS | OVERLAYS:
        assert (many / name).read_bytes() == (one / name).read_bytes()


def test_the_first_process_speaks_for_all(tmp_path, predict, capsys):
    predict(tmp_path, 2)
    assert capsys.readouterr().out == f"5 images predicted; masks and overlays are in {tmp_path}/\n"


@pytest.mark.parametrize(
    "options", [{"pictures": False}, {"overlays": False}, {"pictures": False, "overlays": True}]
)
def test_overlays_can_be_left_out_also_by_their_former_name(tmp_path, predict, capsys, options):
    """The last as a YAML of a former version and a flag of this one say it."""
    predict(tmp_path, **options)
    assert {path.name for path in tmp_path.iterdir()} == MASKS | {OWN}
    assert capsys.readouterr().out == f"5 images predicted; masks are in {tmp_path}/\n"


def test_images_that_are_read_are_never_written_over(tmp_path, predict):
    for name in ("a.png", "a_overlay.png"):
        image = tmp_path / name
        image.write_bytes(b"one's own")
        with pytest.raises(AttnlabError, match="output_dir"):
            predict(tmp_path, paths=[str(tmp_path / "a.png")])
        assert image.read_bytes() == b"one's own"
        image.unlink()


def test_pictures_are_looked_at_only_where_they_are_drawn(tmp_path, predict, monkeypatch):
    predict(tmp_path / "drawn")
    monkeypatch.setattr(SegmentationView, "image", None)
    predict(tmp_path, pictures=False)
    for name in MASKS:
        assert (tmp_path / name).read_bytes() == (tmp_path / "drawn" / name).read_bytes()
