from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from attnlab.data import VOCDetectionDataModule
from attnlab.data.detection.voc import VOCFiles, read_items
from attnlab.errors import AttnlabError
from tests.data.conftest import VOC_BOXES, voc_xml, write_small_voc_boxes, write_voc_folder
from tests.data.detection.tester import DetectionDataModuleTester

NAMES = ["person", "dog", "cat"]


class TestVOC(DetectionDataModuleTester):
    classes: ClassVar = NAMES
    category_ids: ClassVar = [1, 2, 3]

    @pytest.fixture(autouse=True, scope="class")
    def _make(self, request, tmp_path_factory):
        """One folder for all: no test leaves it changed."""
        folder = write_small_voc_boxes(tmp_path_factory.mktemp("voc"))
        defaults = {"root": str(folder.parents[1]), "class_names": NAMES}
        defaults |= {"batch_size": 4, "num_workers": 0}
        request.cls.make = staticmethod(lambda **options: VOCDetectionDataModule(**{**defaults, **options}))


@pytest.fixture
def make(voc_boxes_folder):
    defaults = {"root": str(voc_boxes_folder), "class_names": NAMES, "num_workers": 0}
    return lambda **options: VOCDetectionDataModule(**{**defaults, **options})


def targets(data: VOCDetectionDataModule, split: str) -> dict[str, dict]:
    dataset = data.dataset(split)
    return {dataset[k]["name"]: dataset[k]["target"] for k in range(len(dataset))}


def test_evaluation_keeps_difficult_objects(make):
    data = make()
    data.setup("validate")
    found = targets(data, "val")
    assert list(found) == ["v0", "v1", "v2"]
    # Counted from 0, the maxima exclusive.
    assert found["v0"]["boxes"].tolist() == [[2, 3, 20, 24], [9, 9, 30, 29]]
    assert found["v0"]["labels"].tolist() == [1, 2]
    assert found["v0"]["difficult"].tolist() == [False, True]
    assert found["v0"]["iscrowd"].tolist() == [False, False]
    assert found["v0"]["area"].tolist() == [18 * 21, 21 * 20]
    assert found["v1"]["boxes"].shape == (0, 4)
    assert found["v2"]["boxes"].tolist() == [[0, 0, 42, 38]]


def test_training_leaves_difficult_objects_and_then_empty_images_out(make):
    data = make(flip=0.0)
    data.setup("fit")
    found = targets(data, "train")
    assert list(found) == ["t0", "t1", "t2", "t5", "t6", "t7"]
    assert found["t1"]["labels"].tolist() == [2]
    assert found["t2"]["boxes"].tolist() == [[1, 2, 21, 33], [29, 9, 45.5, 20.25]]
    data = make(train_on_empty=True)
    data.setup("fit")
    found = targets(data, "train")
    assert list(found) == [f"t{k}" for k in range(8)]
    assert found["t3"]["boxes"].shape == found["t4"]["boxes"].shape == (0, 4)


def test_nothing_to_train_on_is_an_error(make, voc_boxes_folder):
    (voc_boxes_folder / "ImageSets/Main/train.txt").write_text("t3\nt4\n")
    for options in ({}, {"train_on_empty": True}):
        with pytest.raises(AttnlabError, match="nothing to train on: none of the 2 'train' images"):
            make(**options).setup("fit")


def test_vocs_own_classes_are_the_default(voc_boxes_folder):
    data = VOCDetectionDataModule(str(voc_boxes_folder))
    assert data.class_names[:2] == ["aeroplane", "bicycle"]
    assert (data.num_classes, data.class_names[-1]) == (20, "tvmonitor")
    data.setup("validate")
    assert data.dataset("val")[0]["target"]["labels"].tolist() == [11, 7]  # dog, cat


def test_an_unknown_class_is_named_with_its_file(make):
    with pytest.raises(AttnlabError, match=r"Unknown class 'cat'.*v0\.xml.*data\.class_names"):
        make(class_names=["person", "dog"]).setup("validate")


@pytest.mark.parametrize("names", [[], ["dog", "dog"]])
def test_class_names_are_unique(make, names):
    with pytest.raises(AttnlabError, match="class_names"):
        make(class_names=names)


def bomb(levels: int = 12) -> str:
    entities = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, levels))
    return f'<!DOCTYPE annotation [<!ENTITY l0 "lol">{entities}]><annotation>&l{levels - 1};</annotation>'


@pytest.mark.parametrize("text", [bomb(), "", "<annotation><size>", "<annotation></annotation>"])
def test_bad_annotations_are_named_or_left_out(make, voc_boxes_folder, text):
    (voc_boxes_folder / "Annotations/v1.xml").write_text(text)
    for check in ("quick", "full", "none"):
        with pytest.raises(AttnlabError, match=r"(?s)1 of 3 .*v1\.xml"):
            make(check=check).setup("validate")
    data = make(on_bad_image="skip")
    with pytest.warns(UserWarning, match=r"v1\.xml"):
        data.setup("validate")
    assert list(targets(data, "val")) == ["v0", "v2"]
    assert data.skipped == ["v1"]
    # The test split is the same images, and has been complained of.
    data.setup("test")
    assert data.skipped == ["v1"]


def test_a_missing_annotation_is_named(make, voc_boxes_folder):
    (voc_boxes_folder / "Annotations/v1.xml").unlink()
    with pytest.raises(AttnlabError, match=r"Cannot open the annotation .*v1\.xml"):
        make().setup("validate")


def test_a_stated_size_that_is_wrong(make, voc_boxes_folder):
    path = voc_boxes_folder / "Annotations/v1.xml"
    path.write_text(path.read_text().replace("<width>46", "<width>64"))
    with pytest.raises(AttnlabError, match=r"v1\.jpg' is 46 x 34 pixels, but its annotation says 64 x 34"):
        make(check="full").setup("validate")
    data = make()
    data.setup("validate")
    with pytest.raises(AttnlabError, match="annotation says 64 x 34"):
        list(data.val_dataloader())


def test_boxes_without_area_in_the_image_are_dropped_once(make, voc_boxes_folder):
    path = voc_boxes_folder / "Annotations/v2.xml"
    path.write_text(path.read_text().replace("<xmin>1<", "<xmin>60<").replace("<xmax>42<", "<xmax>70<"))
    data = make()
    with pytest.warns(UserWarning, match=r"1 boxes in 1 images have no area.*v2\.jpg"):
        data.setup("fit")
    data.setup("test")
    assert data.dropped_boxes == 1
    assert len(targets(data, "val")["v2"]["boxes"]) == 0


def test_training_on_what_is_scored_is_warned_of(make):
    with pytest.warns(UserWarning, match="3 of the 3 'val' images are also in the training split"):
        make(train_split="trainval").setup("fit")


@pytest.fixture
def both_years(tmp_path) -> Path:
    box = [("dog", 1, 1, 10, 10, 0)]
    for year, names in {"2007": ["000001", "000002"], "2012": ["2008_000001"]}.items():
        splits = {"trainval": names, "test": ["000009"]} if year == "2007" else {"trainval": names}
        listed = [name for split in splits.values() for name in split]
        write_voc_folder(
            tmp_path / "VOCdevkit" / f"VOC{year}",
            dict.fromkeys(listed, (20, 30)),
            splits,
            dict.fromkeys(listed, box),
        )
    return tmp_path


def test_both_years_are_trained_on_and_2007_scored(both_years):
    data = VOCDetectionDataModule(str(both_years), year="2007+2012", num_workers=0)
    with pytest.warns(UserWarning, match="19 of 20 classes are in no training annotation"):
        data.setup()
    assert list(targets(data, "train")) == ["000001", "000002", "2008_000001"]
    assert list(targets(data, "val")) == list(targets(data, "test")) == ["000009"]
    data = VOCDetectionDataModule(str(both_years), year="2007", class_names=["dog"], num_workers=0)
    data.setup()
    assert list(targets(data, "train")) == ["000001", "000002"]
    assert list(targets(data, "val")) == ["000009"]


@pytest.mark.parametrize("year", ["2007", "2012"])
def test_two_years_need_a_root_that_holds_both(both_years, year):
    data = VOCDetectionDataModule(str(both_years / f"VOCdevkit/VOC{year}"), year="2007+2012")
    with pytest.raises(AttnlabError, match="the root must contain both VOC2007 and VOC2012"):
        data.setup("fit")


def test_what_is_missing_is_said(tmp_path, make, voc_boxes_folder):
    with pytest.raises(
        AttnlabError,
        match=r"No Pascal VOC 2012.*--data\.download true \(from http://host\.robots\.ox\.ac\.uk",
    ):
        VOCDetectionDataModule(str(tmp_path / "x")).setup("fit")
    with pytest.raises(AttnlabError, match=r"No split 'holdout'.*Known: train, trainval, val"):
        make(val_split="holdout").setup("validate")
    (voc_boxes_folder / "Annotations").rename(voc_boxes_folder / "boxes")
    with pytest.raises(AttnlabError, match="Annotations is missing"):
        make().setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"year": "2010"}, "year is '2010'"), ({"mirror": "http://a"}, r"data\.download is off")],
)
def test_options_that_cannot_work_are_refused(make, options, message):
    with pytest.raises(AttnlabError, match=message):
        make(**options)


@pytest.mark.real_data
def test_real_images(shared_data):
    data = VOCDetectionDataModule(str(shared_data), check="full", num_workers=0)
    with pytest.warns(UserWarning, match="6 of 20 classes are in no training annotation"):
        data.setup()
    assert (len(data.items("train")), len(data.dataset("train")), len(data.dataset("val"))) == (226, 226, 132)
    assert data.dropped_boxes == 0
    # By hand from the file: xmin 201, ymin 72, xmax 402, ymax 285, and the picture is a dog's.
    sample = data.dataset("val")[0]
    assert sample["name"] == "2008_000080"
    assert sample["target"]["boxes"].tolist() == [[200, 71, 402, 285]]
    assert [data.class_names[label] for label in sample["target"]["labels"]] == ["dog"]
    items = data.items("train")
    folder = shared_data / "VOCdevkit/VOC2012/Annotations"
    written = [(folder / f"{name}.xml").read_text().count("<object>") for name in items.names]
    assert np.diff(items.ends, prepend=0).tolist() == written


def test_the_boxes_of_the_fixture_are_what_is_read(make):
    data = make(train_on_empty=True)
    items = data.items("train")
    for k, name in enumerate(items.names):
        if name in VOC_BOXES:
            written = [[x0 - 1, y0 - 1, x1, y1] for _, x0, y0, x1, y1, _ in VOC_BOXES[name]]
            assert items.boxes[items.objects(k)].tolist() == written


AN_OBJECT = voc_xml((40, 60), [("dog", 5, 6, 20.5, 30, 0)])


def items_of(tmp_path: Path, texts: list[str], class_names=("cat", "dog")):
    files = []
    for k, text in enumerate(texts):
        (tmp_path / f"{k}.xml").write_text(text)
        files.append(VOCFiles(str(k), tmp_path / f"{k}.jpg", tmp_path / f"{k}.xml"))
    return read_items(files, class_names, "data.class_names")


def test_boxes_are_clipped_and_counted(tmp_path):
    boxes = [("dog", -4, 0, 10, 50, 0), ("cat", 20, 20, 19, 30, 0), ("cat", 61, 5, 70, 9, 1)]
    items = items_of(tmp_path, [AN_OBJECT, voc_xml((40, 60), boxes)])
    assert items.boxes.tolist() == [[4, 5, 20.5, 30], [0, 0, 10, 40]]
    assert items.labels.tolist() == [1, 1]
    assert items.ends.tolist() == [1, 2]
    assert items.area.tolist() == [16.5 * 25, 400]
    assert items.difficult.tolist() == [False, False]
    assert items.dropped == {1: 2}


def test_bad_files_keep_their_place(tmp_path):
    items = items_of(tmp_path, [AN_OBJECT, "<a>", AN_OBJECT])
    assert list(items.problems) == [1]
    assert "1.xml" in items.problems[1]
    assert items.ends.tolist() == [1, 1, 2]
    assert items.image_ids.tolist() == [0, 1, 2]


def test_an_unknown_class_is_an_error(tmp_path):
    with pytest.raises(AttnlabError, match=r"Unknown class 'dog'\. Did you mean 'dogs'\?.*0\.xml"):
        items_of(tmp_path, [AN_OBJECT], ["cat", "dogs"])
