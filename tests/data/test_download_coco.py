"""COCO's archives: fetched where they are missing, unpacked safely."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile

import pytest

from attnlab.data import COCODetectionDataModule, download
from attnlab.data.detection.coco import COCO_CATEGORIES
from attnlab.data.download import Archive, download_coco, unpack
from attnlab.errors import AttnlabError
from tests.data.conftest import write_coco_folder


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
        with pytest.raises(AttnlabError, match=r"Cannot unpack '.*a\.zip'"):
            unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.fixture
def release(server, tmp_path, monkeypatch):
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


def test_what_is_not_there_is_fetched(release, server, tmp_path):
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


def test_no_training_images_are_fetched_to_test(release, server, tmp_path):
    from lightning.pytorch.trainer.states import TrainerFn

    from tests.data.tester import trainer

    data = COCODetectionDataModule(str(tmp_path / "coco"), download=True, mirror=release)
    data.trainer = trainer()
    data.trainer.state.fn = TrainerFn.TESTING
    data.prepare_data()
    assert not (tmp_path / "coco/train2017").exists()
    assert (tmp_path / "coco/val2017").is_dir()


def test_folders_of_ones_own_are_not_fetched(release, server, tmp_path):
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
