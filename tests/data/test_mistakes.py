"""The commonest mistakes in data sets of one's own: mended without a word, or said before training."""

from __future__ import annotations

import codecs
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnlab.data import (
    COCODetectionDataModule,
    ImageFolderDataModule,
    ShapesClassificationDataModule,
    ShapesDetectionDataModule,
    ShapesSegmentationDataModule,
    VOCDetectionDataModule,
    VOCSegmentationDataModule,
)
from attnlab.data.folders import find_images
from attnlab.data.text_files import read_text
from attnlab.data.vocfolder import VOCFolder, colour_map
from attnlab.errors import AttnlabError
from tests.data.conftest import VOC_BOXES, write_coco_folder


def write_masks(folder: Path, *masks: list[list[int]], palette: bool = False) -> None:
    """Give each image of a folder in VOC's layout one of these masks in turn, repeated over its size."""
    for k, path in enumerate(sorted((folder / "SegmentationClass").iterdir())):
        with Image.open(path) as old:
            width, height = old.size
        rows = np.array(masks[k % len(masks)], np.uint8)
        mask = Image.fromarray(np.tile(rows, (height, width))[:height, :width])
        if palette:
            mask.putpalette([channel for colour in colour_map(256) for channel in colour])
        mask.save(path)


def voc(folder: Path, **options) -> VOCSegmentationDataModule:
    defaults = {"class_names": ["ground", "leaf"], "num_workers": 0, "crop_size": 32}
    return VOCSegmentationDataModule(str(folder), **{**defaults, **options})


def silently(data, stage: str = "fit") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup(stage)


class TestMaskValues:
    @pytest.mark.parametrize("names", [["ground"], ["ground", "leaf"], ["a", "b", "c"]])
    def test_binary_masks_of_0_and_255(self, voc_folder, names):
        write_masks(voc_folder, [[0, 0, 0, 255]])
        with pytest.raises(
            AttnlabError, match=r"5 'train' masks.*0 and 255.*ignore.*2\d\.\d%.*store 1 instead"
        ):
            voc(voc_folder, class_names=names).setup("fit")

    @pytest.mark.parametrize("on_bad_image", ["error", "skip"])
    def test_also_if_an_object_fills_a_picture(self, voc_folder, on_bad_image):
        write_masks(voc_folder, [[255]], [[0, 255]])
        with pytest.raises(AttnlabError, match="store 1 instead of 255"):
            voc(voc_folder, on_bad_image=on_bad_image).setup("fit")

    def test_masks_to_score_by(self, voc_folder):
        write_masks(voc_folder, [[0, 255]])
        for stage in ("validate", "test"):
            with pytest.raises(AttnlabError, match=r"store 1 instead of 255.*--data\.check none"):
                voc(voc_folder).setup(stage)

    def test_without_the_check_it_is_a_warning(self, voc_folder):
        write_masks(voc_folder, [[0, 255]])
        with pytest.warns(UserWarning, match=r"5 were looked at.*store 1 instead of 255"):
            voc(voc_folder, check=False).setup("fit")

    def test_masks_of_255_alone_are_bad_files(self, voc_folder):
        write_masks(voc_folder, [[255]], [[0, 1]])
        with pytest.raises(AttnlabError, match=r"(?s)3 of 5 files.*255 \(ignore\) alone"):
            voc(voc_folder).setup("fit")
        data = voc(voc_folder, on_bad_image="skip")
        with pytest.warns(UserWarning, match="left out"):
            data.setup("fit")
        assert len(data.datasets["train"]) == 2
        write_masks(voc_folder, [[255]])
        with pytest.raises(AttnlabError, match="No image is left"):
            voc(voc_folder, on_bad_image="skip").setup("fit")

    @pytest.mark.parametrize("mask", [[[0]], [[1]], [[1, 255]]])
    def test_one_class_alone_cannot_be_learnt(self, voc_folder, mask):
        write_masks(voc_folder, mask)
        with pytest.raises(AttnlabError, match=rf"Nothing can be learnt.*the class {mask[0][0]}, "):
            voc(voc_folder).setup("fit")
        silently(voc(voc_folder), "validate")

    def test_classes_in_no_mask_are_named_once(self, voc_folder):
        data = voc(voc_folder, class_names=["ground", "leaf", "stem", "bud"])
        with pytest.warns(UserWarning, match="2 of 4 classes are in no training mask.*: stem, bud") as said:
            data.setup("fit")
        assert len(said) == 1
        silently(data, "test")

    def test_much_that_is_ignored_is_said(self, voc_folder):
        write_masks(voc_folder, [[0, 1, 255, 255, 255]])
        with pytest.warns(UserWarning, match=r"[56]\d\.\d% of the training masks' pixels are 255"):
            voc(voc_folder).setup("fit")
        write_masks(voc_folder, [[0, 0, 0, 0, 255]], [[0, 1]])
        with pytest.warns(UserWarning, match="3 of 5 masks hold nothing but 0 and 255"):
            voc(voc_folder).setup("fit")
        write_masks(voc_folder, [[0, 1, 0, 1, 255]])
        silently(voc(voc_folder))


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
        data = voc(self.official(voc_folder), class_names=None)
        assert len(data.items("train")) == 5
        assert data.num_classes == 21

    def test_ones_own_is_refused_with_its_values(self, voc_folder):
        for stage in ("fit", "validate", "test"):
            with pytest.raises(
                AttnlabError, match=r"'t0'|'v0'.*values 0, 1, 255 \(ignore\).*\[background,name1\]"
            ):
                voc(voc_folder, class_names=None).setup(stage)
        write_masks(voc_folder, [[0, 255]])
        with pytest.raises(AttnlabError, match="store 1 instead of 255"):
            voc(voc_folder, class_names=None).setup("fit")

    def test_vocs_names_or_palette_alone_do_not_do(self, voc_folder):
        write_masks(voc_folder, [[0, 3]], palette=True)
        with pytest.raises(AttnlabError, match="named otherwise"):
            voc(voc_folder, class_names=None).setup("fit")
        write_masks(self.official(voc_folder), [[0, 3]])
        with pytest.raises(AttnlabError, match=r"palette.*values 0, 3\."):
            voc(voc_folder, class_names=None).setup("fit")

    def test_nor_do_both_where_boxes_say_otherwise(self, voc_folder):
        annotations = self.official(voc_folder) / "Annotations"
        annotations.mkdir()
        size = (
            "<size><width>9</width><height>9</height></size><object><name>leaf</name><bndbox><xmin>1</xmin>"
        )
        size += "<ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object>"
        (annotations / "2008_000000.xml").write_text(f"<annotation>{size}</annotation>")
        with pytest.raises(AttnlabError, match="names the class 'leaf'"):
            voc(voc_folder, class_names=None).setup("fit")

    def test_boxes_of_others_list_what_there_is(self, voc_boxes_folder):
        for path in (voc_boxes_folder / "Annotations").iterdir():
            path.write_text(path.read_text().replace("dog", "helmet"))
        with pytest.raises(
            AttnlabError, match=r"not set.*cat \(\d\).*helmet \(\d\).*'\[cat,helmet,person\]'"
        ):
            VOCDetectionDataModule(str(voc_boxes_folder)).setup("fit")
        with pytest.raises(AttnlabError, match=r"Unknown class 'helmet'.*cat \(\d\)"):
            VOCDetectionDataModule(str(voc_boxes_folder), class_names=["cat", "person"]).setup("fit")


@pytest.mark.parametrize(
    "names", [["a", "leaf", "leaf"], ["Leaf", "leaf "], ["tea pot", "Tea  pot"], ["a", " "]]
)
def test_names_that_are_alike_are_refused(names, tmp_path):
    for kind in (VOCSegmentationDataModule, VOCDetectionDataModule):
        with pytest.raises(AttnlabError, match=r"data\.class_names must name"):
            kind(str(tmp_path), class_names=names)
        kind(str(tmp_path), class_names=["A", "a"])


class TestCOCOCategories:
    def make(self, root: Path, **options) -> COCODetectionDataModule:
        return COCODetectionDataModule(str(root), **{"num_workers": 0, **options})

    def edit(self, root: Path, change) -> None:
        for path in (root / "annotations").iterdir():
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))

    @pytest.fixture
    def exported(self, coco_folder) -> Path:
        """With a category that merely groups the others, as labelling tools export it."""

        def change(content):
            for entry in content["categories"]:
                entry["supercategory"] = "insects"
            content["categories"].insert(0, {"id": 0, "name": "insects", "supercategory": "none"})

        self.edit(coco_folder, change)
        return coco_folder

    def test_the_group_of_all_is_left_out(self, exported):
        data = self.make(exported)
        assert (data.category_ids, data.class_names) == ([2, 7, 90], ["bee", "ant", "cat"])
        with pytest.warns(UserWarning, match=r"category 0, 'insects'.*--data\.classes '\{0: insects, 2: bee"):
            data.setup("fit")
        target = data.dataset("val")[0]["target"]
        assert target["labels"].tolist() == [2, 1]
        silently(self.make(exported, **{"classes": data.remembered()["classes"]}), "test")

    def test_it_is_kept_if_asked_for_or_of_use(self, exported):
        every = {0: "insects", 2: "bee", 7: "ant", 90: "cat"}
        data = self.make(exported, classes=every)
        with pytest.warns(UserWarning, match="1 of 4 class is in no training annotation.*: insects"):
            data.setup("fit")
        assert data.dataset("val")[0]["target"]["labels"].tolist() == [3, 2]
        path = exported / "annotations/instances_train2017.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["category_id"] = 0
        path.write_text(json.dumps(content))
        assert self.make(exported).class_names == ["insects", "bee", "ant", "cat"]

    def test_classes_without_boxes_stay(self, coco_folder):
        self.edit(
            coco_folder, lambda c: c["categories"].append({"id": 91, "name": "fox", "supercategory": "none"})
        )
        data = self.make(coco_folder)
        with pytest.warns(UserWarning, match="1 of 4 class is in no training annotation.*: fox"):
            data.setup("fit")
        assert data.class_names == ["bee", "ant", "cat", "fox"]

    def test_names_that_are_alike(self, coco_folder):
        self.edit(coco_folder, lambda c: c["categories"][0].update(name="Bee"))
        with pytest.warns(UserWarning, match="called alike.*'bee' and 'Bee'"):
            self.make(coco_folder).setup("fit")
        self.edit(coco_folder, lambda c: c["categories"][0].update(name="bee "))
        with pytest.raises(AttnlabError, match="not unique"):
            self.make(coco_folder).setup("fit")

    def test_a_folder_a_split_with_its_json(self, tmp_path):
        for split, name in (("train", "train"), ("valid", "valid")):
            made = write_coco_folder(
                tmp_path, name, {"a b.JPG": (30, 40)}, {"a b.JPG": [(2, 1, 1, 9, 9)]}, {2: "bee"}
            )
            made.rename(tmp_path / split / "_annotations.coco.json")
        data = self.make(tmp_path)
        silently(data, "fit")
        assert data.dataset("val").items.paths[0] == str(tmp_path / "valid/a b.JPG")

    @pytest.mark.parametrize("name", ["val", "validation", "Valid2017"])
    def test_val_called_otherwise(self, coco_folder, name):
        (coco_folder / "val2017").rename(coco_folder / name)
        json_file = coco_folder / "annotations/instances_val2017.json"
        json_file.rename(json_file.with_stem(f"instances_{name}"))
        silently(self.make(coco_folder))

    def test_several_that_may_be_meant(self, coco_folder):
        json_file = coco_folder / "annotations/instances_val2017.json"
        json_file.with_stem("val").write_bytes(json_file.read_bytes())
        json_file.rename(json_file.with_stem("valid"))
        with pytest.raises(AttnlabError, match=r"val\.json, .*valid\.json.*--data\.val_annotations"):
            self.make(coco_folder).setup("fit")

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_a_json_with_a_byte_order_mark(self, coco_folder, encoding):
        for path in (coco_folder / "annotations").iterdir():
            path.write_text(path.read_text(), encoding=encoding)
        silently(self.make(coco_folder))

    def test_suffixes_in_capitals_on_disk(self, coco_folder):
        for path in (coco_folder / "val2017").iterdir():
            path.rename(path.with_suffix(".JPG"))
        silently(self.make(coco_folder, check="full"))


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
        with pytest.raises(AttnlabError, match="none twice: 'x' and 'x'"):
            self.make(class_folders, classes={"a": "x", "b": "x"})
        for split in ("train", "val"):
            for name in ("Bee", "bee"):
                (class_folders / split / name).rename(class_folders / f"{split}-{name}")
        with pytest.raises(AttnlabError, match="'ant' is the only class"):
            self.make(class_folders).setup("fit")

    def test_a_class_that_the_check_empties_is_named(self, class_folders):
        for path in (class_folders / "train/bee").iterdir():
            path.write_bytes(b"")
        with pytest.warns(UserWarning, match="1 of 3 class is in no training picture.*: bee"):
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


class TestLists:
    def names(self, folder: Path, lines: str, encoding: str = "utf-8") -> list[str]:
        (folder / "ImageSets/Segmentation/val.txt").write_text(lines, encoding=encoding)
        return VOCFolder(folder).names("val")

    def test_spaces_in_names(self, voc_folder):
        for name in ("my", "my photo 1", "photo"):
            (voc_folder / f"JPEGImages/{name}.jpg").write_bytes(b"")
        assert self.names(voc_folder, "my photo 1\nphoto \n") == ["my photo 1", "photo"]
        assert self.names(voc_folder, "my photo 1.jpg\nt1.png\n") == ["my photo 1", "t1"]
        # Of one that is missing another one is no substitute.
        assert self.names(voc_folder, "my photo 2\nphoto\n") == ["my photo 2", "photo"]
        assert self.names(voc_folder, "photo 1\nmy\n") == ["photo 1", "my"]
        paths = "/JPEGImages/my photo 1.jpg /Masks/my photo 1.png\n"
        assert self.names(voc_folder, paths) == ["my photo 1"]

    def test_lists_of_one_class(self, voc_folder):
        assert self.names(voc_folder, "t0  1\nt1 -1\nt2  0\n") == ["t0", "t1", "t2"]
        assert self.names(voc_folder, "JPEGImages/t0 Masks/t0\nt1\tmask\n") == ["t0", "t1"]

    def test_marks_and_other_encodings(self, voc_folder):
        for encoding in ("utf-8-sig", "utf-16", "utf-32"):
            assert self.names(voc_folder, "blüte\r\nt1\r\n", encoding) == ["blüte", "t1"]
        for encoding in ("latin-1", "utf-16-le"):
            with pytest.raises(AttnlabError, match=r"val\.txt'.*Save it as UTF-8"):
                self.names(voc_folder, "t1\nblüte\n", encoding)

    def test_a_mark_without_its_text(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF16_LE + b"abc")
        with pytest.raises(AttnlabError, match=r"a\.txt' is no text in UTF-16"):
            read_text(tmp_path / "a.txt")

    @pytest.mark.parametrize("name", ["valid.txt", "validation.txt", "val.TXT", "Val.txt"])
    def test_val_called_otherwise(self, voc_folder, name):
        lists = voc_folder / "ImageSets/Segmentation"
        (lists / "val.txt").rename(lists / name)
        (lists / "._val.txt").write_bytes(b"x")
        data = voc(voc_folder)
        silently(data)
        assert len(data.datasets["val"]) == 3

    def test_suffixes_in_capitals(self, voc_boxes_folder):
        for kind in ("JPEGImages", "SegmentationClass", "Annotations"):
            for path in (voc_boxes_folder / kind).iterdir():
                path.rename(path.with_suffix(path.suffix.upper()))
        silently(voc(voc_boxes_folder))
        names = sorted({name for boxes in VOC_BOXES.values() for name, *_ in boxes})
        silently(VOCDetectionDataModule(str(voc_boxes_folder), class_names=names, num_workers=0))


SHAPES = {
    ShapesSegmentationDataModule: "VOCSegmentationDataModule",
    ShapesClassificationDataModule: "ImageFolderDataModule",
    ShapesDetectionDataModule: "COCODetectionDataModule",
}


@pytest.mark.parametrize("kind", SHAPES)
class TestDrawnIntoWhoseFolder:
    def make(self, kind, root: Path):
        return kind(str(root), num_train=6, num_val=6, image_size=32)

    def test_ones_own_is_refused_and_left_alone(self, kind, tmp_path):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos/a.jpg").write_bytes(b"x")
        (tmp_path / "0123456789ab").mkdir()
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(AttnlabError, match=rf"holds 0123456789ab, photos and.*{SHAPES[kind]}"):
            self.make(kind, tmp_path).prepare_data()
        for root in (tmp_path / "photos/a.jpg", tmp_path / "photos/a.jpg/below"):
            with pytest.raises(AttnlabError, match=rf"a\.jpg' is a file.*{SHAPES[kind]}"):
                self.make(kind, root).prepare_data()
        assert sorted(tmp_path.rglob("*")) == before

    def test_new_and_empty_roots_are_marked(self, kind, tmp_path):
        empty = tmp_path / "empty"
        empty.mkdir()
        for name in (".DS_Store", ".gitkeep", "README.md"):
            (empty / name).write_bytes(b"")
        for root in (tmp_path / "new/one", empty):
            data = self.make(kind, root)
            data.prepare_data()
            data.setup("validate")
            assert (root / ".attnlab-shapes").is_file()

    def test_roots_of_earlier_versions_are_known(self, kind, tmp_path):
        self.make(kind, tmp_path).prepare_data()
        (tmp_path / ".attnlab-shapes").unlink()
        kind(str(tmp_path), num_train=7, num_val=6, image_size=32).prepare_data()
        assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2
        # A stamp of something else under such a name is nobody's proof.
        for path in tmp_path.iterdir():
            (path / "scenes.json").write_text("{}")
        with pytest.raises(AttnlabError, match="not made by attnlab"):
            self.make(kind, tmp_path).prepare_data()
