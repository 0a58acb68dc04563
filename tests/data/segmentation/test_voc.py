from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from attnlab.data import (
    VOCDetectionDataModule,
    VOCSegmentationDataModule,
)
from attnlab.errors import AttnlabError
from tests.data.segmentation.conftest import voc_data, write_masks
from tests.data.segmentation.tester import SegmentationTester
from tests.data.tester import epoch_of


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
        with pytest.raises(AttnlabError, match="SegmentationClass is missing"):
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
        with pytest.warns(UserWarning, match="3 of the 3 'val' images are also in the training split"):
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
            return r"t2\.png' is 9 x 8 pixels, but its image .*t2\.jpg' is 58 x 42"
        if kind == "exif":
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.new("RGB", (42, 58)).save(image, exif=exif)
            return "EXIF orientation"
        Image.fromarray(np.full((42, 58), 21, np.uint8)).save(mask)
        return r"t2\.png' has the values 21; with 2 classes"

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
        with pytest.raises(AttnlabError, match="No images are left"):
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
        with pytest.raises(AttnlabError, match="exists only for VOC 2012"):
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


class TestForgottenClassNames:
    def official(self, folder: Path) -> Path:
        """Rename all to VOC's way, with its palette."""
        write_masks(folder, [[0, 15, 255]], palette=True)
        for kind in ("JPEGImages", "SegmentationClass"):
            for path in (folder / kind).iterdir():
                number = f"2008_00{'tv'.index(path.stem[0])}{path.stem[1:].zfill(3)}"
                path.rename(path.with_stem(number))
        for split in ("train", "val"):
            names = sorted(path.stem for path in (folder / "JPEGImages").iterdir())
            own = [name for name in names if name[7] == str(("train", "val").index(split))]
            (folder / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(own))
        return folder

    def test_vocs_own_needs_none(self, voc_folder):
        data = voc_data(self.official(voc_folder), class_names=None)
        assert len(data.items("train")) == 5
        assert data.num_classes == 21

    def test_ones_own_is_refused_with_its_values(self, voc_folder):
        for stage in ("fit", "validate", "test"):
            with pytest.raises(
                AttnlabError, match=r"'t0'|'v0'.*values 0, 1, 255 \(ignore\).*\[background,name1\]"
            ):
                voc_data(voc_folder, class_names=None).setup(stage)
        write_masks(voc_folder, [[0, 255]])
        with pytest.raises(AttnlabError, match="store 1 instead of 255"):
            voc_data(voc_folder, class_names=None).setup("fit")

    def test_vocs_names_or_palette_alone_do_not_do(self, voc_folder):
        write_masks(voc_folder, [[0, 3]], palette=True)
        with pytest.raises(AttnlabError, match="named differently"):
            voc_data(voc_folder, class_names=None).setup("fit")
        write_masks(self.official(voc_folder), [[0, 3]])
        with pytest.raises(AttnlabError, match=r"palette.*values 0, 3\."):
            voc_data(voc_folder, class_names=None).setup("fit")

    def test_nor_do_both_where_boxes_say_otherwise(self, voc_folder):
        annotations = self.official(voc_folder) / "Annotations"
        annotations.mkdir()
        size = (
            "<size><width>9</width><height>9</height></size><object><name>leaf</name><bndbox><xmin>1</xmin>"
        )
        size += "<ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object>"
        (annotations / "2008_000000.xml").write_text(f"<annotation>{size}</annotation>")
        with pytest.raises(AttnlabError, match="names the class 'leaf'"):
            voc_data(voc_folder, class_names=None).setup("fit")

    def test_boxes_of_others_list_what_there_is(self, voc_boxes_folder):
        for path in (voc_boxes_folder / "Annotations").iterdir():
            path.write_text(path.read_text().replace("dog", "helmet"))
        with pytest.raises(
            AttnlabError, match=r"not set.*cat \(\d\).*helmet \(\d\).*'\[cat,helmet,person\]'"
        ):
            VOCDetectionDataModule(str(voc_boxes_folder)).setup("fit")
        with pytest.raises(AttnlabError, match=r"Unknown class 'helmet'.*cat \(\d\)"):
            VOCDetectionDataModule(str(voc_boxes_folder), class_names=["cat", "person"]).setup("fit")
