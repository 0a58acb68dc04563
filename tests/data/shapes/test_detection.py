from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from attnlab.data.shapes.detection import ShapesDetectionDataModule
from attnlab.data.shapes.scenes import draw_scene
from attnlab.data.shapes.segmentation import ShapesSegmentationDataModule
from attnlab.data.shapes.writers import SPLIT_STREAMS
from attnlab.errors import AttnlabError
from tests.data.detection.tester import DetectionDataModuleTester

SHAPES = {"num_train": 12, "num_val": 20, "image_size": 48, "max_objects": 5, "object_size": (0.08, 0.5)}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    ShapesDetectionDataModule(str(root), **SHAPES).prepare_data()
    return root


def make(root: Path, **options) -> ShapesDetectionDataModule:
    return ShapesDetectionDataModule(str(root), **{**SHAPES, "num_workers": 0, **options})


class TestShapes(DetectionDataModuleTester):
    classes: ClassVar = ["disc", "ring", "triangle", "star", "cross"]
    category_ids: ClassVar = [1, 2, 3, 4, 5]

    @pytest.fixture(autouse=True)
    def _make(self, drawn):
        self.make = lambda **options: make(**{"root": drawn, "batch_size": 4, **options})


def test_targets_are_the_extents_of_what_is_seen(drawn):
    data = make(drawn, eval_batch_size=7)
    data.setup("validate")
    difficult = position = 0
    for batch in data.val_dataloader():
        for image, target in zip(batch["image"], batch["target"], strict=True):
            scene = draw_scene(data.scene_options, 0, SPLIT_STREAMS["val"], position)
            assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - scene.image).mean() < 6  # JPEG.
            assert len(target["boxes"]) == scene.instances.max()
            for number, (box, label) in enumerate(
                zip(target["boxes"], target["labels"], strict=True), start=1
            ):
                rows, columns = np.nonzero(scene.instances == number)
                extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == extent
                # The class that the mask has there, wherever it is no border.
                classes = set(scene.mask[rows, columns].tolist()) - {255}
                assert classes <= {int(label) + 1}
            assert target["difficult"].tolist() == [item.difficult for item in scene.objects]
            assert not target["iscrowd"].any()
            difficult += int(target["difficult"].sum())
            position += 1
    assert position == 20
    assert difficult > 0


def test_difficult_objects_are_not_trained_on(drawn):
    data = make(drawn, batch_size=12)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    scenes = [draw_scene(data.scene_options, 0, SPLIT_STREAMS["train"], k) for k in batch["index"].tolist()]
    counts = [sum(not item.difficult for item in scene.objects) for scene in scenes]
    assert [len(target["labels"]) for target in batch["target"]] == counts
    assert sum(counts) < sum(len(scene.objects) for scene in scenes)


def test_segmentation_and_detection_share_their_scenes(drawn):
    segmentation = ShapesSegmentationDataModule(str(drawn), **SHAPES)
    assert segmentation.drawn == make(drawn).drawn
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    segmentation.prepare_data()
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before
    data = make(drawn)
    data.setup("test")
    assert [Path(data.items("test").names[k]).stem for k in range(20)] == [
        item.name for item in segmentation.items("val")
    ]


def test_classes_are_known_before_anything_is_drawn(tmp_path):
    data = make(tmp_path, forms=["star", "disc"])
    assert data.class_names == ["star", "disc"]
    assert data.category_ids == [1, 2]
    assert data.num_classes == len(data.palette) == 2
    with pytest.raises(AttnlabError, match=r"prepare_data\(\) draws them"):
        data.setup("fit")


def test_mosaics_are_of_the_scenes_size_unless_another_is_given(drawn):
    for options, size in (({}, 48), ({"mosaic_size": 64}, 64)):
        data = make(drawn, mosaic=1.0, mixup=0.5, batch_size=6, **options)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert {tuple(image.shape) for image in batch["image"]} == {(3, size, size)}
        boxes = np.concatenate([target["boxes"] for target in batch["target"]])
        assert len(boxes) > 6
        assert boxes.min() >= 0
        assert boxes.max() <= size
    with pytest.raises(AttnlabError, match="mosaic_size applies to mosaics"):
        make(drawn, mosaic_size=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forms": ["disk"]}, "Did you mean 'disc'"),
        ({"object_size": (0.5, 0.2)}, "object_size must"),
        ({"num_val": 0}, "num_val must be at least 1"),
        ({"max_objects": 0}, "max_objects must"),
    ],
)
def test_scenes_that_cannot_be_drawn_are_refused(tmp_path, options, message):
    with pytest.raises(AttnlabError, match=message):
        make(tmp_path, **options)
