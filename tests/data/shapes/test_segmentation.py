from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from attnlab.data import ShapesSegmentationDataModule
from attnlab.errors import AttnlabError
from tests.data.segmentation.tester import SegmentationTester

SHAPES = {"num_train": 9, "num_val": 5, "image_size": 48}


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    ShapesSegmentationDataModule(str(root), **SHAPES).prepare_data()
    return root


class TestShapes(SegmentationTester):
    classes: ClassVar = ["background", "disc", "ring", "triangle", "star", "cross"]
    train_size = 9

    @pytest.fixture(autouse=True)
    def _make(self, shapes_root):
        defaults = {**SHAPES, "batch_size": 2, "num_workers": 0, "crop_size": 32}
        self.make = lambda **options: ShapesSegmentationDataModule(
            **{"root": str(shapes_root), **defaults, **options}
        )

    def test_it_is_drawn_once_and_never_overwritten(self, shapes_root):
        data = self.make()
        before = {path: path.stat().st_mtime_ns for path in data.drawn.rglob("*")}
        data.prepare_data()
        assert {path: path.stat().st_mtime_ns for path in data.drawn.rglob("*")} == before
        other = self.make(num_val=6)
        assert other.drawn != data.drawn
        with pytest.raises(AttnlabError, match=r"prepare_data\(\) draws"):
            other.setup("fit")

    def test_drawing_that_fails_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "attnlab.data.shapes.base.write_voc", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            self.make(root=str(tmp_path)).prepare_data()
        assert list(tmp_path.iterdir()) == []

    def test_a_splits_scenes_do_not_depend_on_the_others_number(self, tmp_path):
        more = self.make(root=str(tmp_path), num_train=2)
        more.prepare_data()
        files = [data.drawn / "SegmentationClass" / "val_00003.png" for data in (more, self.make())]
        assert files[0].read_bytes() == files[1].read_bytes()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"forms": ["disk"]}, "Did you mean 'disc'"),
            ({"forms": []}, "forms must"),
            ({"clutter": 2.0}, "clutter must"),
            ({"max_objects": 0}, "max_objects must"),
            ({"num_val": 0}, "num_val must"),
            ({"object_size": (0.5, 0.2)}, "object_size must"),
        ],
    )
    def test_scenes_that_cannot_be_drawn_are_refused(self, options, message):
        with pytest.raises(AttnlabError, match=message):
            self.make(**options)
