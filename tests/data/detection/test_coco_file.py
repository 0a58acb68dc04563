from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from attnlab.data.detection.coco_file import located, read_coco
from attnlab.errors import AttnlabError


def content(**changes) -> dict:
    """Two images, of which the second has two objects; categories neither contiguous nor in order."""
    return {
        "images": [
            {"id": 30, "file_name": "a.jpg", "height": 40, "width": 60},
            {"id": 4, "file_name": "b.jpg", "height": 50, "width": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 9, "bbox": [1, 2, 10, 20], "area": 150.5, "iscrowd": 0},
            {"id": 2, "image_id": 4, "category_id": 3, "bbox": [0.5, 0.25, 4, 4.5], "iscrowd": 1},
        ],
        "categories": [{"id": 9, "name": "nut"}, {"id": 3, "name": "bolt"}],
    } | changes


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "instances.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return read_coco(path)

    return read


def changed(key: str, position: int, **values) -> dict:
    data = content()
    data[key][position].update(values)
    return data


def test_what_a_file_says(read):
    file = read(content())
    assert list(file.categories.items()) == [(3, "bolt"), (9, "nut")]
    items = file.items
    assert list(items.names) == ["a.jpg", "b.jpg"]
    assert items.image_ids.tolist() == [30, 4]
    assert items.sizes.tolist() == [[40, 60], [50, 20]]
    assert items.aspects == [1.5, 0.4]
    assert items.annotated
    assert items.objects(0) == slice(0, 0)
    assert items.objects(1) == slice(0, 2)
    assert items.boxes.tolist() == [[1, 2, 11, 22], [0.5, 0.25, 4.5, 4.75]]
    assert items.labels.tolist() == [1, 0]
    assert items.area.tolist() == [150.5, 18]
    assert items.iscrowd.tolist() == [False, True]
    assert items.dropped == {}


def test_objects_come_in_the_order_of_images(read):
    data = content()
    data["annotations"] = [
        {"id": k, "image_id": (30, 4)[k % 2], "category_id": 3, "bbox": [k, 1, 2, 2]} for k in range(6)
    ]
    items = read(data).items
    assert items.boxes[items.objects(0), 0].tolist() == [0, 2, 4]
    assert items.boxes[items.objects(1), 0].tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([-5, -2, 10, 10], [0, 0, 5, 8]),
        ([15, 45, 10, 10], [15, 45, 20, 50]),
        ([-1, -1, 100, 100], [0, 0, 20, 50]),
        ([20, 10, 5, 5], None),
        ([-9, 10, 9, 5], None),
        ([3, 60, 5, 5], None),
        ([3, 3, 0, 5], None),
        ([3, 3, 5, 0], None),
    ],
)
def test_boxes_are_clipped_or_dropped(read, box, expected):
    items = read(changed("annotations", 0, bbox=box)).items
    assert items.dropped == ({} if expected else {1: 1})
    assert items.boxes.tolist() == ([expected] if expected else []) + [[0.5, 0.25, 4.5, 4.75]]
    assert len(items.labels) == len(items.area) == len(items.iscrowd) == items.ends[-1] == len(items.boxes)


def test_a_file_without_annotations(read):
    data = content()
    del data["annotations"]
    file = read(data)
    assert not file.items.annotated
    assert (len(file.items), len(file.items.boxes)) == (2, 0)
    assert file.categories == {3: "bolt", 9: "nut"}
    del data["categories"]
    assert read(data).categories == {}
    assert read(content(annotations=[])).items.annotated


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"not valid JSON: .* line 1, column 1\. The file ends there"),
        (json.dumps(content())[:-30], r"not valid JSON: .*The file ends there"),
        ('{"images": [,]}', "not valid JSON: .* at line 1, column 13"),
        ("<html>", r"not valid JSON: .* line 1, column 1\.$"),
        ("[" * 200_000, "not valid JSON"),
        ("[]", "a list"),
        ("3", "must be an object"),
        ("{}", "'images' is not there"),
    ],
)
def test_what_is_no_annotation_file_is_refused(read, text, message):
    with pytest.raises(AttnlabError, match=message) as caught:
        read(text)
    assert "instances.json" in str(caught.value)


def test_other_encodings_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"images": "\xff\xfe\xfa"}')
    with pytest.raises(AttnlabError, match=r"a\.json' is not text in UTF-8"):
        read_coco(path)
    with pytest.raises(AttnlabError, match=r"Cannot open the annotations .*b\.json"):
        read_coco(tmp_path / "b.json")


BAD = {
    "images no list": (content(images={}), "'images' is not a list"),
    "images of numbers": (content(images=[1]), "'images' is not a list of objects"),
    "no categories": (content(categories=[]), "no categories"),
    "categories missing": ({k: v for k, v in content().items() if k != "categories"}, "'categories' is not"),
    "image id twice": (changed("images", 1, id=30), "1 ids of 'images' are not unique, e.g. 30"),
    "object id twice": (changed("annotations", 1, id=1), "ids of 'annotations' are not unique, e.g. 1"),
    "category id twice": (changed("categories", 1, id=9), "ids of 'categories' are not unique, e.g. 9"),
    "category name twice": (changed("categories", 1, name="nut"), "not unique: 'nut' and 'nut'"),
    "unknown image": (
        changed("annotations", 1, image_id=5),
        "1 annotations belong to an unknown image, e.g. the one with id 2: its image_id 5",
    ),
    "unknown category": (
        changed("annotations", 0, category_id=4),
        "unknown category, e.g. the one with id 1: its category_id 4 is not among the 2",
    ),
    "negative width": (changed("annotations", 1, bbox=[1, 2, -3, 4]), "'bbox' of the entry with the id 2 is"),
    "nan": (changed("annotations", 1, bbox=[1, math.nan, 3, 4]), "'bbox' of the entry with the id 2 is"),
    "infinite": (changed("annotations", 1, bbox=[1, 2, math.inf, 4]), "'bbox' of the entry with the id 2 is"),
    "huge": (changed("annotations", 1, bbox=[1, 2, 10**400, 4]), "'bbox' of the entry with the id 2 is"),
    "text": (changed("annotations", 1, bbox=["1", 2, 3, 4]), "'bbox' of the entry with the id 2 is"),
    "flags": (changed("annotations", 1, bbox=[True, 2, 3, 4]), "'bbox' of the entry with the id 2 is"),
    "three numbers": (changed("annotations", 1, bbox=[1, 2, 3]), "'bbox' of the entry with the id 2 is"),
    "null": (changed("annotations", 1, bbox=None), "'bbox' of the entry with the id 2 is None"),
    "no box": (content(annotations=[{"id": 8, "image_id": 4, "category_id": 3}]), "id 8 is not there"),
    "no id": (content(annotations=[{"image_id": 4}]), "'id' of the entry number 1 is not there"),
    "text id": (changed("images", 0, id="30"), "'id' of the entry number 1 is '30'"),
    "huge id": (changed("images", 0, id=2**70), "'id' of the entry number 1 is"),
    "no file name": (changed("images", 0, file_name=""), "'file_name' of the entry with the id 30"),
    "no height": (changed("images", 0, height=0), "'height' of the entry with the id 30 is 0"),
    "half a pixel": (changed("images", 0, width=3.5), "'width' of the entry with the id 30"),
    "negative area": (changed("annotations", 0, area=-1), "id 1 has an area that is not a number"),
    "area nan": (changed("annotations", 0, area=math.nan), "id 1 has an area that is not a number"),
    "crowd of three": (changed("annotations", 0, iscrowd=3), "id 1 has an iscrowd that is neither 0 nor 1"),
    "crowd list": (changed("annotations", 0, iscrowd=[1]), "id 1 has an iscrowd that is neither 0 nor 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(read, name):
    data, message = BAD[name]
    with pytest.raises(AttnlabError, match=message) as caught:
        read(data)
    assert "instances.json" in str(caught.value)


def test_files_that_are_not_there(read, tmp_path):
    items = read(content()).items
    folder = tmp_path / "pictures"
    with pytest.raises(AttnlabError, match=r"no image folder .*pictures"):
        located(items, folder)
    folder.mkdir()
    with pytest.raises(AttnlabError, match=r"None of the 2 images .*'a\.jpg'"):
        located(items, folder)
    (folder / "b.jpg").touch()
    found = located(items, folder)
    assert list(found.problems) == [0]
    assert "a.jpg' does not exist" in found.problems[0]
    assert Path(found.paths[1]) == folder / "b.jpg"


def test_file_names_may_be_paths(read, tmp_path):
    items = read(changed("images", 0, file_name="deep/er/a.jpg")).items
    (tmp_path / "pictures/deep/er").mkdir(parents=True)
    for name in ("deep/er/a.jpg", "b.jpg"):
        (tmp_path / "pictures" / name).touch()
    assert located(items, tmp_path / "pictures").problems == {}


@pytest.mark.real_data
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_annotations_are_pycocotools(shared_data, split, capsys):
    path = shared_data / f"coco/annotations/instances_{split}2017.json"
    file, truth = read_coco(path), COCO(str(path))
    assert list(file.categories) == sorted(truth.getCatIds())
    ids = list(file.categories)
    assert sorted(file.items.image_ids.tolist()) == sorted(truth.getImgIds())
    for k, image_id in enumerate(file.items.image_ids.tolist()):
        expected = truth.loadAnns(truth.getAnnIds(imgIds=image_id))
        objects = file.items.objects(k)
        boxes = file.items.boxes[objects].astype(np.float64)
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        # The real boxes reach out of their images by a hundredth of a pixel at most.
        assert np.abs(sides - np.array([a["bbox"] for a in expected]).reshape(-1, 4)).max(initial=0) < 0.011
        assert [ids[label] for label in file.items.labels[objects]] == [a["category_id"] for a in expected]
        assert file.items.iscrowd[objects].tolist() == [bool(a["iscrowd"]) for a in expected]
        assert file.items.area[objects].tolist() == pytest.approx([a["area"] for a in expected], rel=1e-6)
