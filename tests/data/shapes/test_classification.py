from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from attnlab.data import ShapesClassificationDataModule
from attnlab.data.shapes.forms import FORMS
from attnlab.errors import AttnlabError
from tests.data.classification.tester import ClassificationTester

SHAPES = {"num_train": 12, "num_val": 7, "image_size": 40}


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    ShapesClassificationDataModule(str(root), **SHAPES).prepare_data()
    return root


class TestShapesClassification(ClassificationTester):
    classes: ClassVar = ["cross", "disc", "ring", "square", "star", "triangle"]
    train_size = 12

    @pytest.fixture(autouse=True)
    def _make(self, shapes_root):
        defaults = {**SHAPES, "root": str(shapes_root), "batch_size": 4, "num_workers": 0, "crop_size": 32}
        self.make = lambda **options: ShapesClassificationDataModule(**{**defaults, **options})


def make(root: Path, **options) -> ShapesClassificationDataModule:
    defaults = {"num_train": 14, "num_val": 8, "image_size": 32, "num_workers": 0}
    return ShapesClassificationDataModule(str(root), **{**defaults, **options})


def colours(data: ShapesClassificationDataModule, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Joint RGB histograms of 4 x 4 x 4 bins, and labels."""
    rows = []
    for item in data.items(split):
        with Image.open(item.path) as picture:
            bins = np.asarray(picture).reshape(-1, 3) // 64
        rows.append(np.bincount(bins @ np.array([16, 4, 1]), minlength=64))
    return np.array(rows), np.array([item.label for item in data.items(split)])


@pytest.mark.slow
def test_colours_do_not_tell_the_class(tmp_path):
    data = make(tmp_path, num_train=360, num_val=120, image_size=48)
    data.prepare_data()
    known, labels = colours(data, "train")
    asked, truth = colours(data, "val")
    nearest = np.abs(asked[:, None] - known[None]).sum(-1).argmin(1)
    assert (labels[nearest] == truth).mean() < 1 / 6 + 0.12  # Three standard deviations of pure guessing.


def test_classes_are_balanced_and_sizes_right(tmp_path):
    data = make(tmp_path)
    data.prepare_data()
    data.setup("fit")
    assert data.class_names == sorted(FORMS)
    for split, count in (("train", 14), ("val", 8)):
        found = Counter(item.label for item in data.items(split))
        assert sum(found.values()) == count
        assert set(found.values()) == {count // 6, count // 6 + 1}
    batch = next(iter(data.val_dataloader()))
    with Image.open(data.items("val")[0].path) as stored:
        assert np.array_equal(batch["image"][0].permute(1, 2, 0), np.asarray(stored))


def test_it_is_drawn_once_and_never_overwritten(tmp_path):
    data = make(tmp_path)
    with pytest.raises(AttnlabError, match=r"prepare_data\(\) draws"):
        data.setup("fit")
    data.prepare_data()
    before = {path: path.stat().st_mtime_ns for path in data.drawn.rglob("*")}
    make(tmp_path).prepare_data()
    assert {path: path.stat().st_mtime_ns for path in data.drawn.rglob("*")} == before
    more = make(tmp_path, num_train=20)
    assert more.drawn != data.drawn
    more.prepare_data()
    name = "val/disc/val_00001.jpg"
    assert (more.drawn / name).read_bytes() == (data.drawn / name).read_bytes()


def test_forms_may_be_chosen(tmp_path):
    data = make(tmp_path, forms=["star", "disc"])
    data.prepare_data()
    data.setup("test")
    assert data.class_names == ["disc", "star"]
    assert Counter(item.label for item in data.items("train")) == {0: 7, 1: 7}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forms": ["disk"]}, "Did you mean 'disc'"),
        ({"forms": []}, "forms must"),
        ({"clutter": 2.0}, "clutter must"),
        ({"num_val": 5}, "number of forms, 6"),
        ({"image_size": 8}, "image_size must"),
        ({"object_size": (0.5, 0.2)}, "object_size must"),
    ],
)
def test_scenes_that_cannot_be_drawn_are_refused(tmp_path, options, message):
    with pytest.raises(AttnlabError, match=message):
        make(tmp_path, **options)


def test_scenes_are_brought_to_the_crop_and_not_cut_unless_that_is_asked_for(tmp_path):
    data = make(tmp_path, crop_size=16)
    data.prepare_data()
    data.setup("validate")
    scene = Image.open(data.items("val")[0].path)
    small = data.datasets["val"][0]["image"].float()
    expected = np.asarray(scene.resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(small.numpy() - expected).max() <= 2

    data = make(tmp_path, crop_size=33, eval_resize="none")
    with pytest.raises(AttnlabError, match="32 x 32 pixels is smaller than the crop of 33 x 33"):
        data.setup("validate")
