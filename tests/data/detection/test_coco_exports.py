"""COCO's json as tools for labelling write it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnlab.data import COCODetectionDataModule
from attnlab.errors import AttnlabError


def write_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def objects(data: COCODetectionDataModule, split: str) -> dict[str, list]:
    """The name of the class and the box of each object, by the name of the file."""
    data.setup({"train": "fit", "val": "validate", "test": "test"}[split])
    items = data.items(split)
    found = {}
    for k in range(len(items)):
        own = items.objects(k)
        assert Path(items.paths[k]).is_file()
        found[Path(items.paths[k]).name] = [
            (data.class_names[label], *box)
            for label, box in zip(items.labels[own].tolist(), items.boxes[own].tolist(), strict=True)
        ]
    return found


BOXES = [("ant", 2, 3, 12.5, 23), ("bee", 0, 0, 60, 40)]


class TestRoboflow:
    @pytest.fixture
    def root(self, tmp_path):
        """Train, valid and test, each with its json among the images."""
        for split, count in (("train", 3), ("valid", 2), ("test", 1)):
            images, annotations = [], []
            for k in range(count):
                name = f"{split}{k}_jpg.rf.0a1b2c3d{k}.jpg"
                write_image(tmp_path / split / name, (40, 60))
                images.append(
                    {
                        "id": k,
                        "license": 1,
                        "file_name": name,
                        "height": 40,
                        "width": 60,
                        "date_captured": "2024-01-01T00:00:00+00:00",
                        "extra": {"name": f"{split}{k}.jpg"},
                    }
                )
                for category, bbox in ((1, [2, 3, 10.5, 20]), (2, [0, 0, 60, 40])):
                    annotations.append(
                        {
                            "id": len(annotations),
                            "image_id": k,
                            "category_id": category,
                            "bbox": bbox,
                            "area": bbox[2] * bbox[3],
                            "segmentation": [],
                            "iscrowd": 0,
                        }
                    )
            content = {
                "info": {"year": "2024", "description": "Exported from roboflow.com"},
                "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}],
                "categories": [
                    {"id": 0, "name": "bugs-Zk3", "supercategory": "none"},
                    {"id": 1, "name": "ant", "supercategory": "bugs-Zk3"},
                    {"id": 2, "name": "bee", "supercategory": "bugs-Zk3"},
                ],
                "images": images,
                "annotations": annotations,
            }
            (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
        (tmp_path / "README.roboflow.txt").write_text("exported")
        return tmp_path

    def test_it_is_found_without_the_projects_name_among_the_classes(self, root):
        data = COCODetectionDataModule(str(root), num_workers=0)
        with pytest.warns(UserWarning, match=r"category 0 \('bugs-Zk3'\).*not used as a class"):
            found = objects(data, "train")
        assert data.class_names == ["ant", "bee"]
        assert data.category_ids == [1, 2]
        assert found == {f"train{k}_jpg.rf.0a1b2c3d{k}.jpg": BOXES for k in range(3)}
        assert list(objects(data, "val").values()) == [BOXES] * 2
        assert len(objects(data, "test")) == 2  # The validation split's, as for all data.
        own = COCODetectionDataModule(
            str(root), test_annotations="test/_annotations.coco.json", test_images="test"
        )
        assert list(objects(own, "test")) == ["test0_jpg.rf.0a1b2c3d0.jpg"]

    def test_a_category_0_with_objects_is_a_class(self, root):
        for split in ("train", "valid"):
            path = root / split / "_annotations.coco.json"
            content = json.loads(path.read_text())
            content["annotations"][0]["category_id"] = 0
            path.write_text(json.dumps(content))
        data = COCODetectionDataModule(str(root), num_workers=0)
        found = objects(data, "val")
        assert data.category_ids == [0, 1, 2]
        assert next(iter(found.values()))[0][0] == "bugs-Zk3"


class TestCVAT:
    @pytest.fixture(params=["images", "images/default"])
    def root(self, request, tmp_path):
        """One json for all, images in folders below their own."""
        images, annotations = [], []
        for k, name in enumerate(["day 1/a.jpg", "day 1/b.jpg", "night/a.PNG"], start=1):
            write_image(tmp_path / request.param / name, (40, 60))
            images.append(
                {
                    "id": k,
                    "width": 60,
                    "height": 40,
                    "file_name": name,
                    "license": 0,
                    "flickr_url": "",
                    "coco_url": "",
                    "date_captured": 0,
                }
            )
            for category, bbox in ((1, [2.0, 3.0, 10.5, 20.0]), (2, [0.0, 0.0, 60.0, 40.0])):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": k,
                        "category_id": category,
                        "segmentation": [[2.0, 3.0, 12.5, 3.0, 12.5, 23.0]],
                        "area": 105.5,
                        "bbox": bbox,
                        "iscrowd": 0,
                        "attributes": {"occluded": False, "rotation": 0.0, "track_id": 3, "keyframe": True},
                    }
                )
        content = {
            "licenses": [{"name": "", "id": 0, "url": ""}],
            "info": {"contributor": "", "date_created": "", "version": ""},
            "categories": [
                {"id": 1, "name": "ant", "supercategory": ""},
                {"id": 2, "name": "bee", "supercategory": ""},
            ],
            "images": images,
            "annotations": annotations,
        }
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations/instances_default.json").write_text(json.dumps(content))
        return tmp_path, request.param

    @pytest.mark.filterwarnings("ignore:.*are also in the training split")
    def test_one_file(self, root):
        root, folder = root
        file = "annotations/instances_default.json"
        data = COCODetectionDataModule(
            str(root),
            train_annotations=file,
            train_images=folder,
            val_annotations=file,
            val_images=folder,
            num_workers=0,
        )
        data.setup("fit")
        items = data.items("train")
        assert list(items.names) == ["day 1/a.jpg", "day 1/b.jpg", "night/a.PNG"]
        assert objects(data, "val") == {"a.jpg": BOXES, "b.jpg": BOXES, "a.PNG": BOXES}
        assert items.area.tolist() == [105.5] * 6

    def test_which_split_it_is_must_be_said(self, root):
        with pytest.raises(AttnlabError, match=r"There are: annotations/instances_default\.json\. Set"):
            COCODetectionDataModule(str(root[0])).setup("fit")


class TestLabelStudio:
    def write(self, root: Path, names: list[str]) -> None:
        """``result.json`` beside ``images``, with less than COCO has."""
        images, annotations = [], []
        for k, name in enumerate(names):
            write_image(root / "images" / name.replace("\\", "/").rpartition("/")[2], (40, 60))
            images.append({"width": 60, "height": 40, "id": k, "file_name": name})
            for category, bbox in ((0, [2.0, 3.0, 10.5, 20.0]), (1, [0, 0, 60, 40])):
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": k,
                        "category_id": category,
                        "segmentation": [],
                        "bbox": bbox,
                        "ignore": 0,
                    }
                )
        content = {
            "images": images,
            "categories": [{"id": 0, "name": "ant"}, {"id": 1, "name": "bee"}],
            "annotations": annotations,
            "info": {"year": 2024, "version": "1.0", "contributor": "Label Studio"},
        }
        (root / "result.json").write_text(json.dumps(content))

    def module(self, root: Path, images: str, **options) -> COCODetectionDataModule:
        named = {f"{split}_annotations": "result.json" for split in ("train", "val")}
        folders = {f"{split}_images": images for split in ("train", "val")}
        return COCODetectionDataModule(str(root), **named, **folders, num_workers=0, **options)

    @pytest.mark.filterwarnings("ignore:.*are also in the training split")
    @pytest.mark.parametrize("images", [".", "images"])
    @pytest.mark.parametrize(
        "form",
        [
            "images/{}",
            "images\\{}",
            "{}",
            "..\\..\\files\\images\\{}",
            "/data/upload/1/{}",
            "C:\\Users\\me\\images\\{}",
        ],
    )
    def test_names_of_files(self, tmp_path, form, images):
        files = ["12ab-x.jpg", "34cd-y.jpg"]
        self.write(tmp_path, [form.format(file) for file in files])
        data = self.module(tmp_path, images)
        if images == "." and "images" not in form:
            with pytest.raises(AttnlabError, match="None of the 2 images"):
                data.setup("fit")
            return
        assert objects(data, "train") == dict.fromkeys(files, BOXES)
        assert data.category_ids == [0, 1]
        # What the file does not say.
        items = data.items("val")
        assert items.area.tolist() == [210, 2400] * 2
        assert not items.iscrowd.any()

    def test_names_that_end_alike_are_not_mixed_up(self, tmp_path):
        """Of two files of one name in other folders, one is here: it is not known which."""
        self.write(tmp_path, ["a/x.jpg", "b/x.jpg", "b/y.jpg"])
        with pytest.raises(
            AttnlabError, match=r"(?s)2 of 3 .*a/x\.jpg' does not exist.*b/x\.jpg' does not exist"
        ):
            self.module(tmp_path, "images").setup("validate")
