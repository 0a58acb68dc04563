from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from attnlab.data import SegmentationDataModule, ShapesSegmentationDataModule, VOCSegmentationDataModule
from attnlab.errors import AttnlabError
from tests.data.tester import GREYS, DataModuleTester, epoch_of

SHAPES = {"num_train": 9, "num_val": 5, "image_size": 48}


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    ShapesSegmentationDataModule(str(root), **SHAPES).prepare_data()
    return root


class SegmentationTester(DataModuleTester):
    """What every segmentation data module does, besides what all data modules do."""

    make: Callable[..., SegmentationDataModule]
    train_keys: ClassVar = {"mask"}
    eval_keys: ClassVar = {"size", "mask", "mask_size"}
    predict_keys: ClassVar = {"size", "original", "original_size"}
    norms: ClassVar = [*DataModuleTester.norms, (*GREYS, {"mean": GREYS[0], "std": GREYS[1]})]
    train_size: int

    def test_attributes_need_no_files(self):
        data = self.make(root="nowhere")
        assert len(data.class_names) == data.num_classes == len(data.palette)
        assert data.palette[:2] == [[0, 0, 0], [128, 0, 0]]
        assert data.ignore_index == 255
        assert data.mean == (0.485, 0.456, 0.406)
        assert data.skipped == []

    def test_training_batches(self):
        data = self.make()
        data.setup("fit")
        loader = data.train_dataloader()
        assert len(loader) == self.train_size // 2
        batch = next(iter(loader))
        assert set(batch) == {"image", "mask", "index", "counted", "name"}
        assert batch["image"].dtype == torch.uint8
        batch = data.on_after_batch_transfer(batch, 0)
        assert batch["image"].shape == (2, 3, 32, 32)
        assert batch["image"].dtype == torch.float32
        assert batch["image"].is_contiguous()
        assert batch["mask"].shape == (2, 32, 32)
        assert batch["mask"].dtype == batch["index"].dtype == torch.int64
        assert set(batch["mask"].unique().tolist()) <= {*range(data.num_classes), 255}
        assert batch["counted"].tolist() == [True, True]

    def test_evaluation_keeps_masks_at_full_size(self):
        data = self.make(eval_batch_size=2, eval_size=20)
        data.setup("test")
        seen = []
        for batch in data.test_dataloader():
            batch = data.on_after_batch_transfer(batch, 0)
            assert set(batch) == {"image", "size", "mask", "mask_size", "index", "counted", "name"}
            for row, name in enumerate(batch["name"]):
                item = next(item for item in data.items("test") if item.name == name)
                height, width = batch["size"][row].tolist()
                full_height, full_width = batch["mask_size"][row].tolist()
                with Image.open(item.mask) as stored:
                    assert (full_width, full_height) == stored.size
                    assert np.array_equal(batch["mask"][row, :full_height, :full_width], np.asarray(stored))
                assert min(height, width) == 20
                assert height / width == pytest.approx(full_height / full_width, rel=0.06)
                assert (batch["mask"][row, full_height:] == 255).all()
                assert (batch["image"][row, :, height:] == 0).all()
                assert (batch["image"][row, :, :, width:] == 0).all()
                assert batch["image"][row, :, :height, :width].std() > 0.1
            seen += batch["index"][batch["counted"]].tolist()
        assert seen == list(range(len(data.items("test"))))

    def test_prediction(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        shots = tmp_path / "shots"
        shots.mkdir()
        Image.new("RGB", (40, 20), "red").save(shots / "a.jpg", exif=exif)
        Image.new("L", (16, 16), 7).save(shots / "b.png")
        data = self.make(predict_images=str(shots), eval_batch_size=2)
        data.setup("predict")
        (batch,) = data.predict_dataloader()
        assert set(batch) == {"image", "size", "original", "original_size", "path", "index", "counted"}
        batch = data.transfer_batch_to_device(batch, torch.device("cpu"), 0)
        batch = data.on_after_batch_transfer(batch, 0)
        assert batch["image"].shape == (2, 3, 40, 20)
        assert [tuple(image.shape) for image in batch["original"]] == [(3, 40, 20), (3, 16, 16)]
        assert batch["original_size"].tolist() == [[40, 20], [16, 16]]
        assert [Path(path).name for path in batch["path"]] == ["a.jpg", "b.png"]

    def test_own_transforms_replace_the_recipe(self):
        normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
        data = self.make(
            crop_size=None, train_transforms=[v2.Resize((24, 30)), *normalise], eval_transforms=normalise
        )
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch["image"].shape == (2, 3, 24, 30)
        assert torch.equal(data.on_after_batch_transfer(dict(batch), 0)["image"], batch["image"])
        assert next(iter(data.val_dataloader()))["image"].dtype == torch.float32

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train_transforms": [v2.Identity()]}, "crop_size belongs to the recipe"),
            ({"eval_transforms": [], "eval_size": 5}, "eval_size and data.eval_transforms"),
            ({"check": False, "on_bad_image": "skip"}, "check is none"),
            ({"crop_size": 0}, "crop_size is 0"),
            ({"flip": 1.5}, "probability"),
            ({"eval_size": 0}, "eval_size is 0"),
            ({"std": (1.0, 0.0, 1.0)}, "std"),
        ],
    )
    def test_options_that_cannot_work_are_refused(self, options, message):
        with pytest.raises(AttnlabError, match=message):
            self.make(**options)


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


class TestVOC(SegmentationTester):
    classes: ClassVar = ["ground", "leaf"]
    train_size = 5

    @pytest.fixture(autouse=True)
    def _make(self, voc_folder):
        self.folder = voc_folder
        defaults = {"root": str(voc_folder.parents[1]), "class_names": ["ground", "leaf"]}
        defaults |= {"batch_size": 2, "num_workers": 0, "crop_size": 32}
        self.make = lambda **options: VOCSegmentationDataModule(**{**defaults, **options})

    @pytest.mark.parametrize("depth", [0, 1, 2])
    def test_root_may_be_any_of_three_folders(self, depth):
        data = self.make(root=str([self.folder, *self.folder.parents][depth]))
        assert [item.name for item in data.items("val")] == ["v0", "v1", "v2"]

    def test_missing_and_incomplete_roots_say_what_to_do(self, tmp_path):
        with pytest.raises(
            AttnlabError, match=r"No Pascal VOC 2012.*--data\.download true \(from http://host\.robots"
        ):
            self.make(root=str(tmp_path / "none")).setup("fit")
        shutil.rmtree(self.folder / "SegmentationClass")
        with pytest.raises(AttnlabError, match="SegmentationClass is not there"):
            self.make().setup("fit")

    def test_another_year_is_refused(self):
        with pytest.raises(AttnlabError, match=r"data\.year is 2007"):
            self.make(root=str(self.folder), year="2007").setup("fit")

    def test_train_augmented(self):
        data = self.make(train_split="train_aug")
        with pytest.raises(AttnlabError, match="Semantic Boundaries"):
            data.setup("fit")
        shutil.copytree(self.folder / "SegmentationClass", self.folder / "SegmentationClassAug")
        lines = "/JPEGImages/t1.jpg /SegmentationClassAug/t1.png\n/JPEGImages/t3.jpg /x.png\n"
        (self.folder / "ImageSets/Segmentation/trainaug.txt").write_text(lines)
        data.setup("fit")
        assert [item.mask.parent.name for item in data.items("train")] == ["SegmentationClassAug"] * 2

    def test_validating_on_training_images_is_said(self):
        with pytest.warns(UserWarning, match="3 of the 3 'val' images are trained on"):
            self.make(train_split="trainval").setup("fit")

    def test_lists_that_are_missing_empty_or_repeat_are_errors(self):
        path = self.folder / "ImageSets/Segmentation/odd.txt"
        for content, message in (
            (None, "Known: train, trainval, val"),
            ("\n", "empty"),
            ("v0\nv0\n", "more than"),
        ):
            if content is not None:
                path.write_text(content)
            with pytest.raises(AttnlabError, match=message):
                self.make(val_split="odd").setup("validate")

    def spoil(self, kind: str) -> str:
        """Spoil the image t2 or its mask; returns what the message must say."""
        image, mask = self.folder / "JPEGImages/t2.jpg", self.folder / "SegmentationClass/t2.png"
        if kind == "no image":
            image.unlink()
            return r"t2\.jpg.*No such file"
        if kind == "no mask":
            mask.unlink()
            return r"t2\.png.*No such file"
        if kind == "cut":
            image.write_bytes(image.read_bytes()[:900])
            return r"t2\.jpg.*truncated"
        if kind == "size":
            Image.new("L", (9, 8)).save(mask)
            return r"t2\.png' is 9 x 8, its image .*t2\.jpg' is 58 x 42"
        if kind == "exif":
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.new("RGB", (42, 58)).save(image, exif=exif)
            return "EXIF orientation"
        Image.fromarray(np.full((42, 58), 21, np.uint8)).save(mask)
        return r"t2\.png' holds the values 21; with 2 classes"

    KINDS = ("no image", "no mask", "cut", "size", "exif", "values")

    @pytest.mark.parametrize("kind", KINDS)
    def test_bad_files_are_found_before_training(self, kind):
        message = self.spoil(kind)
        with pytest.raises(AttnlabError, match=rf"(?s)1 of 5 files of the 'train' images.*{message}"):
            self.make().setup("fit")
        self.make().setup("test")  # Its files are good.

    @pytest.mark.parametrize("kind", KINDS)
    def test_bad_files_are_skipped_on_request(self, kind):
        message = self.spoil(kind)
        data = self.make(on_bad_image="skip")
        with pytest.warns(UserWarning, match=f"(?s){message}"):
            data.setup("fit")
        assert data.skipped == ["t2"]
        assert len(data.datasets["train"]) == 4

    def test_skipping_all_is_an_error(self):
        for mask in (self.folder / "SegmentationClass").iterdir():
            mask.unlink()
        with pytest.raises(AttnlabError, match="No image is left"):
            self.make(on_bad_image="skip").setup("fit")

    def test_without_the_check_reading_names_the_file(self):
        self.spoil("cut")
        data = self.make(check=False, batch_size=5)
        data.setup("fit")
        with pytest.raises(AttnlabError, match=r"t2\.jpg"):
            epoch_of(data)

    def test_own_classes(self):
        data = self.make(class_names=["leaf", "ground"])
        assert data.class_names == ["leaf", "ground"]
        data.setup("fit")

    def test_sizes_that_cannot_be_stacked_are_explained(self):
        data = self.make(crop_size=None, train_transforms=[v2.Identity()])
        data.setup("fit")
        with pytest.raises(AttnlabError, match="RandomScaleCrop"):
            epoch_of(data)

    def test_options_without_effect_are_refused(self):
        with pytest.raises(AttnlabError, match="download is off"):
            self.make(mirror="http://localhost")
        with pytest.raises(AttnlabError, match="belongs to VOC 2012"):
            self.make(year="2007", train_split="train_aug")


@pytest.mark.real_data
def test_real_voc(shared_data):
    data = VOCSegmentationDataModule(str(shared_data), batch_size=4, num_workers=0)
    with pytest.warns(UserWarning, match="5 of 21 classes are in no training mask"):
        data.setup("fit")
    assert (len(data.datasets["train"]), len(data.datasets["val"])) == (300, 200)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["image"].shape == (4, 3, 513, 513)
    assert abs(batch["image"].mean()) < 1
    assert {0, 255} < set(batch["mask"].unique().tolist()) <= {*range(21), 255}
