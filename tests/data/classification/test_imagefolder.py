from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from attnlab.data import (
    ImageFolderDataModule,
)
from attnlab.data.classification.imagefolder import list_pictures, shown_names
from attnlab.data.folders import find_images
from attnlab.errors import AttnlabError
from tests.data.classification.tester import ClassificationTester
from tests.data.conftest import FOLDER_COLOURS, silently
from tests.data.tester import epoch_of


class TestImageFolder(ClassificationTester):
    classes: ClassVar = list(FOLDER_COLOURS)
    train_size = 9

    @pytest.fixture(autouse=True)
    def _make(self, class_folders):
        self.root = class_folders
        defaults = {"root": str(class_folders), "batch_size": 4, "num_workers": 0, "crop_size": 32}
        self.make = lambda **options: ImageFolderDataModule(**{**defaults, **options})

    def test_labels_belong_to_pictures(self):
        data = self.make()
        data.setup()
        for split in ("train", "val"):
            loader = data.train_dataloader() if split == "train" else data.val_dataloader()
            for batch in loader:
                assert (batch["image"].float().mean((2, 3)).argmax(1) == batch["label"]).all()

    def test_an_order_of_classes_that_is_given_holds(self):
        data = self.make(classes={"cat": "Katze", "ant": "Ameise", "bee": "Biene"})
        data.setup("fit")
        assert data.class_names == ["Katze", "Ameise", "Biene"]
        for batch in data.val_dataloader():
            colour = batch["image"].float().mean((2, 3)).argmax(1)  # 0 ant, 1 bee, 2 cat
            assert torch.equal(torch.tensor([1, 2, 0])[colour], batch["label"])

    def test_nested_folders_and_what_is_passed_over(self):
        folder = self.root / "train" / "bee"
        (folder / "old" / "older").mkdir(parents=True)
        (folder / ".thumbs").mkdir()
        for place in ("old/older/z.png", "old/a.jpg", ".thumbs/t.jpg", "._bee.jpg", "notes.txt"):
            shutil.copy(folder / "train_0.JPEG", folder / place)
        (self.root / "train" / ".ipynb_checkpoints").mkdir()
        names = [item.name for item in self.make().items("train") if item.label == 1]
        nested = ["bee/old/a.jpg", "bee/old/older/z.png"]
        assert names == [*nested, "bee/train_0.JPEG", "bee/train_1.JPEG", "bee/train_2.JPEG"]
        assert all(item.path == self.root / "train" / item.name for item in self.make().items("train"))
        assert list_pictures(folder)[1] == 2

    def test_testing_needs_no_training_data(self):
        shutil.rmtree(self.root / "train")
        data = self.make()
        assert data.class_names == self.classes
        data.setup("test")
        with pytest.raises(AttnlabError, match=r"no '.*train'.*--data\.train_folder"):
            data.setup("fit")

    def test_other_folder_names(self):
        (self.root / "train").rename(self.root / "tr")
        shutil.copytree(self.root / "val", self.root / "held_out")
        (self.root / "held_out" / "cat" / "val_1.JPEG").unlink()
        data = self.make(train_folder="tr", test_folder="held_out")
        data.setup()
        assert [len(data.datasets[split]) for split in ("train", "val", "test")] == [9, 6, 5]

    def break_layout(self, kind: str) -> str:
        """Make a layout that cannot be used; returns what the message must say."""
        train, val = self.root / "train", self.root / "val"
        if kind == "no root":
            shutil.rmtree(self.root)
            return r"There is no folder '.*leaves'\. Set --data\.root"
        if kind == "no val":
            shutil.rmtree(val)
            return r"There is no '.*leaves/val'.*--data\.val_folder"
        if kind == "classes in root":
            for folder in train.iterdir():
                folder.rename(self.root / folder.name)
            shutil.rmtree(train)
            shutil.rmtree(val)
            return r"no folder of a split, but ant, bee, cat\. Expected .*train/<class>/<image>"
        if kind == "empty root":
            shutil.rmtree(train)
            shutil.rmtree(val)
            return r"There is no '.*'\. Expected"
        if kind == "missing":
            shutil.rmtree(val / "bee")
            return r"val' are not the 3 classes.*Missing: bee\."
        if kind == "surplus":
            (val / "dog").mkdir()
            return r"val' are not the 3 classes.*Not expected: dog\."
        if kind == "both":
            (val / "bee").rename(val / "wasp")
            return r"Missing: bee\. Not expected: wasp\."
        if kind == "no classes":
            shutil.rmtree(train)
            train.mkdir()
            return r"train' contains no class folders"
        if kind == "empty":
            for file in (train / "bee").iterdir():
                file.unlink()
            return r"1 of 3 class folders contain no images: bee\. Looked for"
        for file in (train / "bee").iterdir():
            file.rename(file.with_suffix(".npy"))
        return r"contain no images: bee \(3 files of other kinds\)\."

    @pytest.mark.parametrize(
        "kind",
        [
            *("no root", "no val", "classes in root", "empty root", "missing", "surplus", "both"),
            *("no classes", "empty", "other kinds"),
        ],
    )
    def test_layouts_that_cannot_be_used(self, kind):
        message = self.break_layout(kind)
        with pytest.raises(AttnlabError, match=message):
            self.make().setup("fit")

    def test_classes_of_missing_data_are_an_error(self):
        with pytest.raises(AttnlabError, match=r"no folder 'nowhere'"):
            _ = self.make(root="nowhere").class_names

    def test_bad_files_are_found_before_training(self):
        path = self.root / "train" / "bee" / "train_1.JPEG"
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(AttnlabError, match=r"(?s)1 of 9 files of the 'train' images.*bee/train_1\.JPEG"):
            self.make().setup("fit")
        self.make().setup("test")  # Its files are good.

    def test_bad_files_are_skipped_on_request(self):
        for split in ("train", "val"):
            (self.root / split / "bee" / f"{split}_1.JPEG").write_bytes(b"")
        data = self.make(on_bad_image="skip")
        with pytest.warns(UserWarning, match="are skipped") as warned:
            data.setup("fit")
        texts = [str(w.message) for w in warned if "are skipped" in str(w.message)]
        assert len(texts) == 2
        data.setup("test")  # The same files as validation's: no second warning.
        assert data.skipped == ["bee/train_1.JPEG", "bee/val_1.JPEG"]
        assert [len(data.datasets[split]) for split in ("train", "val", "test")] == [8, 5, 5]
        assert data.datasets["train"].labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
        assert "bee/val_1.JPEG" not in list(data.datasets["val"].names)

    def test_skipping_all_is_an_error(self):
        for path in self.root.glob("train/*/*"):
            path.write_bytes(b"x")
        with pytest.raises(AttnlabError, match="No images are left"):
            self.make(on_bad_image="skip").setup("fit")

    def test_without_the_check_reading_names_the_file(self):
        (self.root / "train" / "bee" / "train_1.JPEG").write_bytes(b"x")
        data = self.make(check="none", batch_size=9)
        data.setup("fit")
        with pytest.raises(AttnlabError, match=r"train_1\.JPEG"):
            epoch_of(data)

    def test_unresized_pictures_must_hold_the_crop(self, tmp_path):
        """The validation pictures are 40 or 45 wide and 36, 40 or 44 high."""
        self.make(crop_size=36, eval_resize="none").setup("fit")
        with pytest.raises(
            AttnlabError,
            match=r"(?s)2 of 6 files of the 'val'.*40 x 36 pixels is smaller than the crop of 38",
        ):
            self.make(crop_size=38, eval_resize="none").setup("fit")
        Image.new("RGB", (30, 90)).save(tmp_path / "slim.png")
        shots = str(tmp_path / "slim.png")
        with pytest.raises(AttnlabError, match=r"slim\.png.*30 x 90"):
            self.make(eval_resize="none", predict_images=shots).setup("predict")
        unchecked = self.make(eval_resize="none", predict_images=shots, check="none")
        unchecked.setup("predict")
        with pytest.raises(AttnlabError, match=r"slim\.png.*30 x 90"):
            next(iter(unchecked.predict_dataloader()))

    def test_sizes_that_cannot_be_stacked_are_explained(self):
        data = self.make(train_transforms=[v2.Identity()], eval_transforms=[])
        data.setup("fit")
        with pytest.raises(
            AttnlabError, match=r"train_transforms yields images of different sizes.*\d+ x \d+"
        ):
            epoch_of(data)
        with pytest.raises(AttnlabError, match=r"eval_transforms yields images of different sizes"):
            list(data.val_dataloader())

    def test_exif_orientation_is_applied_in_every_split(self):
        exif = Image.Exif()
        exif[0x0112] = 3  # Upside down.
        picture = Image.new("RGB", (64, 64), "blue")
        picture.paste("red", (0, 32, 64, 64))  # Red is above once it is turned.
        for path in self.root.glob("*/*/*"):
            picture.save(path, exif=exif)
        data = self.make(scale=(1.0, 1.0), predict_images=str(self.root / "val"))
        data.setup()
        data.setup("predict")
        for split in ("train", "val", "test", "predict"):
            image = data.datasets[split][0]["image"]
            assert image[0, 4].float().mean() > 200
            assert image[2, -4].float().mean() > 200


def test_shown_names():
    shown = shown_names(["n01440764", "n02012849", "n03126707", "leaf", "n99999999"])
    assert list(shown.values()) == ["tench", "crane (n02012849)", "crane (n03126707)", "leaf", "n99999999"]
    assert list(shown) == ["n01440764", "n02012849", "n03126707", "leaf", "n99999999"]
    assert shown_names(["tench", "n01440764"]) == {"tench": "tench", "n01440764": "tench (n01440764)"}


@pytest.mark.real_data
def test_real_imagenet_classes(shared_data):
    data = ImageFolderDataModule(str(shared_data / "imagenet-sample"), num_workers=0, eval_batch_size=4)
    assert len(data.class_names) == len(set(data.class_names)) == 1000
    # Indices and words as in every published list of ImageNet's classes.
    assert [data.class_names[k] for k in (0, 1, 281, 999)] == ["tench", "goldfish", "tabby", "toilet tissue"]
    data.setup("validate")
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch["image"].shape == (4, 3, 224, 224)
    assert abs(batch["image"].mean()) < 2


@pytest.mark.real_data
def test_real_training_images(shared_data):
    data = ImageFolderDataModule(str(shared_data / "tiny-imagenet-20"), num_workers=0, crop_size=64)
    data.setup("fit")
    assert Counter(data.datasets["train"].labels.tolist()) == dict.fromkeys(range(20), 500)
    assert next(iter(data.train_dataloader()))["image"].shape == (64, 3, 64, 64)


class TestClassFolders:
    def make(self, root: Path, **options) -> ImageFolderDataModule:
        return ImageFolderDataModule(str(root), num_workers=0, crop_size=32, **options)

    @pytest.mark.parametrize("name", ["valid", "validation", "dev", "Val", "VALID"])
    def test_val_called_otherwise(self, class_folders, name):
        (class_folders / "val").rename(class_folders / name)
        data = self.make(class_folders)
        silently(data)
        assert len(data.datasets["val"]) == 6

    def test_test_is_named_and_not_taken(self, class_folders):
        (class_folders / "val").rename(class_folders / "test")
        with pytest.raises(AttnlabError, match=r"no '.*val', but test, train.*--data\.val_folder"):
            self.make(class_folders).setup("fit")
        (class_folders / "valid").mkdir()
        (class_folders / "dev").mkdir()
        with pytest.raises(AttnlabError, match=r"valid, dev may be meant.*--data\.val_folder"):
            self.make(class_folders).setup("fit")

    def test_one_class_or_two_of_one_name(self, class_folders):
        for split in ("train", "val"):
            (class_folders / split / "cat").rename(class_folders / split / "Bee")
        with pytest.raises(AttnlabError, match="'Bee' and 'bee'"):
            self.make(class_folders).setup("fit")
        silently(self.make(class_folders), "test")
        with pytest.raises(AttnlabError, match="each class once, but has 'x' and 'x'"):
            self.make(class_folders, classes={"a": "x", "b": "x"})
        for split in ("train", "val"):
            for name in ("Bee", "bee"):
                (class_folders / split / name).rename(class_folders / f"{split}-{name}")
        with pytest.raises(AttnlabError, match="'ant' is the only class"):
            self.make(class_folders).setup("fit")

    def test_a_class_that_the_check_empties_is_named(self, class_folders):
        for path in (class_folders / "train/bee").iterdir():
            path.write_bytes(b"")
        with pytest.warns(UserWarning, match="1 of 3 class is in no training image.*: bee"):
            self.make(class_folders, on_bad_image="skip").setup("fit")

    def test_what_is_no_picture(self, class_folders, tmp_path):
        folder = class_folders / "train/ant"
        (folder / "._train_0.JPEG").write_bytes(b"x")
        (folder / "x.jpg").mkdir()
        (class_folders / "train/__MACOSX").mkdir()
        data = self.make(class_folders)
        silently(data)
        assert len(data.datasets["train"]) == 9
        (class_folders / "train/.hidden").mkdir()
        (class_folders / "train/.hidden/a.jpg").write_bytes(b"x")
        assert len(find_images(str(class_folders / "train"))) == 9
