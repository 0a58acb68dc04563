from __future__ import annotations

import hashlib
import io
import json
import stat
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image

from attnlab.data import COCODetectionDataModule, download
from attnlab.data.detection.coco import COCO_CATEGORIES
from attnlab.data.download import Archive, download_coco, unpack
from attnlab.errors import AttnlabError
from tests.data.conftest import write_coco_folder
from tests.data.detection_tester import DetectionDataModuleTester
from tests.data.test_download import server  # noqa: F401 (a fixture)
from tests.data.tester import epoch_of


class TestCOCO(DetectionDataModuleTester):
    classes: ClassVar = ["bee", "ant", "cat"]
    category_ids: ClassVar = [2, 7, 90]

    @pytest.fixture(autouse=True)
    def _make(self, coco_folder):
        defaults = {"root": str(coco_folder), "batch_size": 4, "num_workers": 0}
        self.make = lambda **options: COCODetectionDataModule(**{**defaults, **options})


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
            with pytest.raises(AttnlabError, match=r"other categories than data\.classes"):
                make(classes=other).setup(stage)


def test_other_categories_in_one_split_are_refused(make, val_json):
    edit(val_json, lambda data: data["categories"].append({"id": 91, "name": "fox"}))
    with pytest.raises(
        AttnlabError, match=r"instances_train2017\.json' has other categories.*Missing: 91 fox\."
    ):
        make().setup("fit")


@pytest.mark.filterwarnings("ignore:.*are trained on too")
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
    with pytest.raises(AttnlabError, match=r"nothing to train on|no image in the 'train' split"):
        make().setup("fit")


def test_images_that_are_not_there_are_named_before_training(make, coco_folder):
    (coco_folder / "train2017/t3.jpg").unlink()
    for check in ("quick", "full", "none"):
        with pytest.raises(AttnlabError, match=r"(?s)1 of 9 .*t3\.jpg' is not there"):
            make(check=check).setup("fit")
    data = make(on_bad_image="skip")
    with pytest.warns(UserWarning, match=r"t3\.jpg"):
        data.setup("fit")
    assert data.skipped == ["t3.jpg"]
    assert len(data.dataset("train")) == 6


def test_dropped_boxes_are_counted_once(make, val_json):
    edit(val_json, lambda data: data["annotations"][0].update(bbox=[5, 5, 0, 3]))
    data = make()
    with pytest.warns(UserWarning, match=r"1 boxes have no area .*v0\.jpg"):
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
    with pytest.raises(AttnlabError, match=r"no folder of images .*pictures"):
        make(val_images="pictures").setup("validate")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": {}}, "classes must name"),
        ({"classes": {1: "a", 2: "a"}}, "none twice"),
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


def make_zip(members: dict[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        make_zip({"fine": b"x", "../evil": b"x"}),
        make_zip({"fine": b"x", "a/../../evil": b"x"}),
        make_zip({"/tmp/evil": b"x"}),
        make_zip({}, links=("val2017/evil",)),
    ],
)
def test_unsafe_archives_are_refused(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(AttnlabError, match="not unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("*evil*"))


def test_damaged_archives_are_named(tmp_path):
    whole = make_zip({"val2017/a.jpg": b"a" * 1000})
    for data in (b"no zip", whole[:-40], whole.replace(b"a" * 1000, b"a" * 500 + b"b" * 500)):
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(AttnlabError, match=r"a\.zip' cannot be unpacked"):
            unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.fixture
def release(server, tmp_path, monkeypatch):  # noqa: F811
    """A made COCO on the server; each archive holds the whole of it."""
    made = tmp_path / "made"
    for split in ("train", "val"):
        folder = f"{split}2017"
        write_coco_folder(
            made, folder, {f"{split}.jpg": (20, 30)}, {f"{split}.jpg": [(1, 2, 3, 4, 5)]}, COCO_CATEGORIES
        )
    files = [path for path in made.rglob("*") if path.is_file()]
    server.content = make_zip({str(path.relative_to(made)): path.read_bytes() for path in files})
    md5 = hashlib.md5(server.content).hexdigest()
    for folder, archive in download.COCO_ARCHIVES.items():
        monkeypatch.setitem(download.COCO_ARCHIVES, folder, Archive(archive.name, archive.folder, md5))
    return server.url.rsplit("/", 1)[0]


def test_what_is_not_there_is_fetched(release, server, tmp_path):  # noqa: F811
    root = tmp_path / "coco"
    data = COCODetectionDataModule(str(root), download=True, mirror=release, num_workers=0)
    assert data.class_names[0] == "person"
    for _ in range(2):
        data.prepare_data()
    names = [path for path, _ in server.requests]
    assert sorted(names) == ["/annotations_trainval2017.zip", "/train2017.zip", "/val2017.zip"]
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "train2017", "val2017"]
    with pytest.warns(UserWarning, match="79 of 80 classes are in no training annotation"):
        data.setup()
    assert data.dataset("val")[0]["target"]["boxes"].tolist() == [[2, 3, 6, 8]]


def test_no_training_images_are_fetched_to_test(release, server, tmp_path):  # noqa: F811
    from lightning.pytorch.trainer.states import TrainerFn

    from tests.data.tester import trainer

    data = COCODetectionDataModule(str(tmp_path / "coco"), download=True, mirror=release)
    data.trainer = trainer()
    data.trainer.state.fn = TrainerFn.TESTING
    data.prepare_data()
    assert not (tmp_path / "coco/train2017").exists()
    assert (tmp_path / "coco/val2017").is_dir()


def test_folders_of_ones_own_are_not_fetched(release, server, tmp_path):  # noqa: F811
    options = {"train_annotations": "a.json", "val_annotations": "b.json"}
    options |= {"train_images": "a", "val_images": "b"}
    data = COCODetectionDataModule(str(tmp_path / "x"), download=True, mirror=release, **options)
    data.prepare_data()
    assert server.requests == []


def test_interrupted_unpacking_never_looks_complete(release, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        download_coco(tmp_path / "coco", "val2017", release)
    assert [path.name for path in (tmp_path / "coco").iterdir()] == ["val2017.zip"]
    monkeypatch.undo()


def test_the_official_addresses():
    where = {
        archive.name: download.COCO_HOST + archive.folder + archive.name
        for archive in download.COCO_ARCHIVES.values()
    }
    assert where == {
        "annotations_trainval2017.zip": "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "train2017.zip": "http://images.cocodataset.org/zips/train2017.zip",
        "val2017.zip": "http://images.cocodataset.org/zips/val2017.zip",
    }
