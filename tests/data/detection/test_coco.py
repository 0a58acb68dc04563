from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image

from attnlab.data import (
    COCODetectionDataModule,
)
from attnlab.data.detection.coco import COCO_CATEGORIES
from attnlab.errors import AttnlabError
from tests.data.conftest import silently, write_coco_folder, write_small_coco
from tests.data.detection.tester import DetectionDataModuleTester
from tests.data.tester import epoch_of


class TestCOCO(DetectionDataModuleTester):
    classes: ClassVar = ["bee", "ant", "cat"]
    category_ids: ClassVar = [2, 7, 90]

    @pytest.fixture(autouse=True, scope="class")
    def _make(self, request, tmp_path_factory):
        """One folder for all: no test leaves it changed."""
        folder = write_small_coco(tmp_path_factory.mktemp("coco"))
        defaults = {"root": str(folder), "batch_size": 4, "num_workers": 0}
        request.cls.make = staticmethod(lambda **options: COCODetectionDataModule(**{**defaults, **options}))


@pytest.fixture
def make(coco_folder):
    defaults = {"root": str(coco_folder), "batch_size": 2, "num_workers": 0}
    return lambda **options: COCODetectionDataModule(**{**defaults, **options})


def edit(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.fixture
def val_json(coco_folder) -> Path:
    return coco_folder / "annotations/instances_val2017.json"


def test_evaluation_keeps_crowds_and_images_without_objects(make):
    data = make()
    data.setup("test")
    first, empty, last = (data.dataset("test")[k]["target"] for k in range(3))
    assert first["image_id"] == 100
    assert first["boxes"].tolist() == [[2, 3, 12, 23], [5, 5, 35, 25]]
    assert first["labels"].tolist() == [2, 1]
    assert first["iscrowd"].tolist() == [False, True]
    assert first["area"].tolist() == [77.5, 600]
    assert first["difficult"].tolist() == [False, False]
    assert empty["boxes"].shape == (0, 4)
    assert last["boxes"].tolist() == [[0, 0, 42, 46]]


def test_training_leaves_crowds_and_then_empty_images_out(make):
    data = make()
    data.setup("fit")
    names = [data.dataset("train")[k]["name"] for k in range(len(data.dataset("train")))]
    assert names == [f"t{k}.jpg" for k in range(7)]
    data = make(train_on_empty=True)
    data.setup("fit")
    assert [len(data.dataset("train")[k]["target"]["labels"]) for k in range(9)] == [
        1,
        2,
        3,
        1,
        2,
        3,
        1,
        0,
        0,
    ]


def test_a_checkpoint_remembers_ids_and_names(make, coco_folder):
    remembered = make().remembered()
    assert remembered == {"classes": {2: "bee", 7: "ant", 90: "cat"}}
    assert make(**remembered).class_names == ["bee", "ant", "cat"]
    make(**remembered).setup()
    for other in ({2: "bee", 7: "cat", 90: "ant"}, {2: "bee", 7: "ant"}, {1: "bee", 7: "ant", 90: "cat"}):
        for stage in ("fit", "validate", "test"):
            with pytest.raises(AttnlabError, match=r"differ from data\.classes"):
                make(classes=other).setup(stage)


def test_other_categories_in_one_split_are_refused(make, val_json):
    edit(val_json, lambda data: data["categories"].append({"id": 91, "name": "fox"}))
    with pytest.raises(AttnlabError, match=r"instances_train2017\.json' differ.*Missing: 91 fox\."):
        make().setup("fit")


@pytest.mark.filterwarnings("ignore:.*are also in the training split")
def test_a_split_without_annotations(make, coco_folder, val_json):
    data = json.loads(val_json.read_text())
    del data["annotations"]
    (coco_folder / "info.json").write_text(json.dumps(data))
    module = make(test_annotations="info.json", test_images="val2017")
    module.setup()
    assert [module.items(split).annotated for split in ("train", "val", "test")] == [True, True, False]
    batches = list(module.test_dataloader())
    assert [set(batch["target"][0]) for batch in batches] == [{"image_id"}] * 3
    assert [batch["target"][0]["image_id"] for batch in batches] == [100, 101, 102]
    module.on_after_batch_transfer(batches[0], 0)
    with pytest.raises(AttnlabError, match="'train' images have no annotations"):
        make(train_annotations="info.json", train_images="val2017").setup("fit")


def test_nothing_to_train_on_is_an_error(make, coco_folder):
    path = coco_folder / "annotations/instances_train2017.json"
    edit(path, lambda data: [entry.update(iscrowd=1) for entry in data["annotations"]])
    with pytest.raises(AttnlabError, match="nothing to train on: none of the 9 'train' images"):
        make().setup("fit")
    edit(path, lambda data: data.update(images=[], annotations=[]))
    with pytest.raises(AttnlabError, match=r"nothing to train on|'train' split of .* has no images"):
        make().setup("fit")


def test_images_that_are_not_there_are_named_before_training(make, coco_folder):
    (coco_folder / "train2017/t3.jpg").unlink()
    for check in ("quick", "full", "none"):
        with pytest.raises(AttnlabError, match=r"(?s)1 of 9 .*t3\.jpg' does not exist"):
            make(check=check).setup("fit")
    data = make(on_bad_image="skip")
    with pytest.warns(UserWarning, match=r"t3\.jpg"):
        data.setup("fit")
    assert data.skipped == ["t3.jpg"]
    assert len(data.dataset("train")) == 6


def test_dropped_boxes_are_counted_once(make, val_json):
    edit(val_json, lambda data: data["annotations"][0].update(bbox=[5, 5, 0, 3]))
    data = make()
    with pytest.warns(UserWarning, match=r"1 boxes in 1 images have no area .*v0\.jpg"):
        data.setup("validate")
    data.setup("test")
    assert data.dropped_boxes == 1
    assert data.dataset("test")[0]["target"]["boxes"].tolist() == [[5, 5, 35, 25]]


def test_a_stated_size_that_is_wrong(make, val_json):
    edit(val_json, lambda data: data["images"][1].update(width=99))
    with pytest.raises(AttnlabError, match=r"v1\.jpg' is 46 x 38 pixels, but its annotation says 99 x 38"):
        make(check="full").setup("validate")


def test_images_are_read_as_stored(make, coco_folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(coco_folder / "val2017/v1.jpg") as picture:
        picture.save(coco_folder / "val2017/v1.jpg", exif=exif)
    data = make(check="full")
    data.setup("validate")
    assert data.dataset("val")[1]["image"].shape == (3, 38, 46)


def test_batches_of_one_shape(make):
    # t0 … t2 are wide and t4 … t8 high; t4 is the first that is: 40 + 3k > 64 - 3k.
    data = make(group_by_aspect=True)
    data.setup("fit")
    orders = []
    for epoch in range(8):
        batches = epoch_of(data, epoch)
        shapes = [{image.shape[2] >= image.shape[1] for image in batch["image"]} for batch in batches]
        assert sum(len(shape) > 1 for shape in shapes) <= 1
        orders.append([batch["index"].tolist() for batch in batches])
    assert len({str(order) for order in orders}) > 1


def test_files_and_folders_that_are_not_there(make, tmp_path):
    with pytest.raises(AttnlabError, match=r"No annotations '.*instances_val2017\.json.*images\.coco"):
        make(root=str(tmp_path / "x")).class_names  # noqa: B018
    with pytest.raises(AttnlabError, match=r"other\.json'.*--data\.train_annotations"):
        make(train_annotations="other.json").setup("fit")
    with pytest.raises(AttnlabError, match=r"no image folder .*pictures"):
        make(val_images="pictures").setup("validate")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": {}}, "classes must name"),
        ({"classes": {1: "a", 2: "a"}}, "each class once"),
        ({"test_images": "x"}, "belong together"),
        ({"test_annotations": "x"}, "belong together"),
        ({"mirror": "http://a"}, r"data\.download is off"),
    ],
)
def test_options_that_cannot_work_are_refused(make, options, message):
    with pytest.raises(AttnlabError, match=message):
        make(**options)


@pytest.mark.real_data
def test_real_images(shared_data):
    data = COCODetectionDataModule(str(shared_data / "coco"), check="full", num_workers=0)
    data.setup()
    assert dict(zip(data.category_ids, data.class_names, strict=True)) == COCO_CATEGORIES
    assert (len(data.dataset("train")), len(data.dataset("val")), data.num_classes) == (80, 79, 80)
    batches = list(data.test_dataloader())
    count = sum(len(target["labels"]) for batch in batches for target in batch["target"])
    crowds = sum(target["iscrowd"].sum().item() for batch in batches for target in batch["target"])
    assert (count + data.dropped_boxes, crowds) == (624, 5)
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(79))


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
        with pytest.warns(
            UserWarning, match=r"category 0 \('insects'\).*--data\.classes '\{0: insects, 2: bee"
        ):
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

    def test_a_group_of_some_stays(self, coco_folder):
        """It is as much a class as those that it groups."""

        def change(content):
            for entry in content["categories"][:2]:
                entry["supercategory"] = "insects"
            content["categories"].append({"id": 91, "name": "insects", "supercategory": "none"})

        self.edit(coco_folder, change)
        assert self.make(coco_folder).class_names == ["bee", "ant", "cat", "insects"]

    def test_names_that_are_alike(self, coco_folder):
        self.edit(coco_folder, lambda c: c["categories"][0].update(name="Bee"))
        with pytest.warns(UserWarning, match="differ only in case.*'bee' and 'Bee'"):
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
