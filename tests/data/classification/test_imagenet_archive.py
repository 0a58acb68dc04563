from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attnlab.data.classification import imagenet_archive
from attnlab.data.classification.imagenet_archive import (
    DEVKIT_ARCHIVE,
    DEVKIT_DATA,
    TRAIN_ARCHIVE,
    VAL_ARCHIVE,
    Devkit,
    extract_train,
    extract_val,
    read_devkit,
)
from attnlab.errors import AttnlabError
from tests.data.classification.conftest import (
    TRAIN_FILES,
    VAL,
    VAL_FILES,
    VAL_PLACED,
    WNIDS,
    Stop,
    contents,
    devkit_files,
    link,
    make_tar,
    meta_mat,
    spied,
    stopping,
    train_tar,
)


def test_training_archive(root):
    extract_train(root, root / "train")
    assert contents(root / "train") == TRAIN_FILES
    left = {TRAIN_ARCHIVE, VAL_ARCHIVE, DEVKIT_ARCHIVE, "train", f"{TRAIN_ARCHIVE}.verified"}
    assert {path.name for path in root.iterdir()} == left


def test_validation_archive(root):
    extract_val(root, root / "val")
    assert contents(root / "val") == VAL_PLACED


@pytest.mark.parametrize("unpacked", [False, True])
def test_devkit(root, unpacked):
    if unpacked:
        with tarfile.open(root / DEVKIT_ARCHIVE) as tar:
            tar.extractall(root, filter="data")
        (root / DEVKIT_ARCHIVE).unlink()
    devkit = read_devkit(root)
    assert devkit.val_wnids == VAL
    assert devkit.wnids == sorted(WNIDS.values())


def test_validation_images_go_by_number():
    devkit = Devkit(sorted(WNIDS.values()), VAL)
    assert devkit.wnid("ILSVRC2012_val_00000004.JPEG") == "n02119789"
    for name in ("ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_00000006.JPEG"):
        with pytest.raises(AttnlabError, match=f"images 1 to 5, not '{name}'"):
            devkit.wnid(name)
    with pytest.raises(AttnlabError, match=r"'cat\.JPEG' is not named like"):
        devkit.wnid("cat.JPEG")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("after", range(5))
def test_interrupted_between_images_it_goes_on(root, monkeypatch, split, after):
    extract = {"train": extract_train, "val": extract_val}[split]
    expected = {"train": TRAIN_FILES, "val": VAL_PLACED}[split]
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", stopping(tarfile.TarFile.extract, after))
        with pytest.raises(Stop):
            extract(root, root / split)
    assert not (root / split).exists()
    kept = contents(root / f"{split}.part")
    assert len(kept) == after
    taken = spied(monkeypatch, tarfile.TarFile, "extract")
    extract(root, root / split)
    assert contents(root / split) == expected
    assert len(taken) == len(expected) - after


@pytest.mark.parametrize("split", ["train", "val"])
def test_interrupted_within_an_image_it_is_not_taken_for_whole(root, monkeypatch, split):
    extract = {"train": extract_train, "val": extract_val}[split]

    def half(source, target, length=None, *_):
        target.write(source.read(length // 2))
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "copyfileobj", half)
        with pytest.raises(Stop):
            extract(root, root / split)
    (remains,) = contents(root / f"{split}.part")
    assert remains.endswith(".JPEG.part")
    extract(root, root / split)
    assert contents(root / split) == {"train": TRAIN_FILES, "val": VAL_PLACED}[split]


def test_a_class_appears_once_it_is_complete(root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", stopping(tarfile.TarFile.extract, 4))
        with pytest.raises(Stop):
            extract_train(root, root / "train")
    folders = {path.name: len(list(path.iterdir())) for path in (root / "train.part").iterdir()}
    assert folders == {"n01440764": 2, "n02119789": 1, "n03950228.part": 1}
    read = spied(monkeypatch, tarfile.TarFile, "extractfile")
    extract_train(root, root / "train")
    assert [member.name for _, member in read] == ["n03950228.tar"]


def test_runs_that_are_started_together_share_the_work(root, monkeypatch):
    pytest.importorskip("fcntl", reason="no locks on Windows")
    original = imagenet_archive.checksum

    def slowly(path):
        time.sleep(0.2)
        return original(path)

    monkeypatch.setattr(imagenet_archive, "checksum", slowly)
    taken = spied(monkeypatch, tarfile.TarFile, "extract")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: extract_train(root, root / "train"), range(3)))
    assert contents(root / "train") == TRAIN_FILES
    assert len(taken) == len(TRAIN_FILES)


def test_a_folder_that_is_there_is_left(root):
    (root / "train/mine").mkdir(parents=True)
    (root / TRAIN_ARCHIVE).unlink()
    extract_train(root, root / "train")
    assert [path.name for path in (root / "train").iterdir()] == ["mine"]
    (root / "val").mkdir()
    extract_val(root, root / "val")
    assert contents(root / "val") == VAL_PLACED


def test_the_folder_may_be_a_link_to_another_disk(root):
    (root / "large/disk").mkdir(parents=True)
    (root / "train").symlink_to(root / "large/disk")
    extract_train(root, root / "train")
    assert contents(root / "large/disk") == TRAIN_FILES


def test_an_archive_is_verified_once(root, monkeypatch):
    hashed = spied(monkeypatch, imagenet_archive, "checksum")
    extract_train(root, root / "train")
    shutil.rmtree(root / "train")
    extract_train(root, root / "train")
    assert hashed == [(root / TRAIN_ARCHIVE,)]
    shutil.rmtree(root / "train")
    with (root / TRAIN_ARCHIVE).open("ab") as file:
        file.write(b"more")
    with pytest.raises(AttnlabError, match=rf"{TRAIN_ARCHIVE}' has the checksum"):
        extract_train(root, root / "train")
    assert len(hashed) == 2


@pytest.mark.parametrize("name", [TRAIN_ARCHIVE, VAL_ARCHIVE, DEVKIT_ARCHIVE])
def test_wrong_checksums(root, name):
    (root / name).write_bytes(b"another file")
    found = hashlib.md5(b"another file").hexdigest()
    with pytest.raises(AttnlabError, match=rf"{name}' has the checksum {found}"):
        (extract_train if name == TRAIN_ARCHIVE else extract_val)(root, root / "out")
    assert (root / name).read_bytes() == b"another file"
    assert not list(root.glob("out*/*"))


@pytest.mark.parametrize("name", [TRAIN_ARCHIVE, VAL_ARCHIVE, DEVKIT_ARCHIVE])
def test_missing_archives(root, name):
    (root / name).unlink()
    with pytest.raises(AttnlabError, match=rf"{name}'.*exist.*put it there.*account"):
        (extract_train if name == TRAIN_ARCHIVE else extract_val)(root, root / "out")


HOSTILE = {
    "up": {"../evil.JPEG": b"x"},
    "down and up": {"n01440764/../../../evil.JPEG": b"x"},
    "absolute": {"/tmp/attnlab-evil.JPEG": b"x"},
    "link": {"link": link("n01440764_1.JPEG")},
    "link as validation image": {"link": link("ILSVRC2012_val_00000001.JPEG")},
    "folder": {"folder/evil.JPEG": b"x"},
    "other name": {"evil.sh": b"x"},
    "other class": {"n02119789_9.JPEG": b"x"},
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("where", ["train", "class", "val"])
def test_hostile_members_are_refused(root, put, where, members):
    if where == "train":
        put(TRAIN_ARCHIVE, make_tar(members))
    elif where == "class":
        put(TRAIN_ARCHIVE, train_tar(n01440764=members))
    else:
        put(VAL_ARCHIVE, make_tar(VAL_FILES | members))
    before = set(root.rglob("*"))
    with pytest.raises(AttnlabError, match=r"was not extracted: its member"):
        (extract_val if where == "val" else extract_train)(root, root / "deep/out")
    new = {path for path in set(root.rglob("*")) - before if path.is_file() or path.is_symlink()}
    notes = {"out.lock", f"{TRAIN_ARCHIVE}.verified", f"{VAL_ARCHIVE}.verified"}
    assert {path.name for path in new} - notes <= {name.split("/")[1] for name in TRAIN_FILES}
    assert not Path("/tmp/attnlab-evil.JPEG").exists()


def test_no_room_is_found_before_it_is_filled(root, monkeypatch):
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(AttnlabError, match=r"0\.0 GB free\. Free some space"):
        extract_val(root, root / "val")
    assert contents(root / "val.part") == {}


def test_a_disk_that_fills_up_loses_nothing(root, monkeypatch):
    def full(tar, member, *args, **options):
        if member.name.startswith("n03950228"):
            raise OSError(28, "No space left on device")
        return original(tar, member, *args, **options)

    original = tarfile.TarFile.extract
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", full)
        with pytest.raises(
            AttnlabError, match=r"No space left on device.*extracted so far are in '.*train\.part'"
        ):
            extract_train(root, root / "train")
    assert len(contents(root / "train.part")) == 3
    extract_train(root, root / "train")
    assert contents(root / "train") == TRAIN_FILES


def test_damaged_archives_with_the_right_checksum(root, put):
    put(TRAIN_ARCHIVE, train_tar()[:6000])
    with pytest.raises(AttnlabError, match="Cannot read"):
        extract_train(root, root / "train")
    put(DEVKIT_ARCHIVE, make_tar({"other": b""}, "w:gz"))
    with pytest.raises(AttnlabError, match=rf"Cannot read .*{DEVKIT_ARCHIVE}.*ground_truth|meta\.mat"):
        read_devkit(root)


def test_archives_that_do_not_belong_together(root, put):
    put(VAL_ARCHIVE, make_tar(dict(list(VAL_FILES.items())[:4])))
    with pytest.raises(AttnlabError, match="holds 4 images, but the devkit's ground truth has 5"):
        extract_val(root, root / "val")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda: {"meta.mat": meta_mat()}, "incomplete.*ground_truth"),
        (lambda: devkit_files([]), "ground_truth.txt is empty"),
        (lambda: devkit_files([1, 4]), "names a class, 4, that"),  # A group, not a class.
        (lambda: devkit_files() | {"meta.mat": b"no such file"}, "Cannot read the devkit's meta.mat"),
    ],
)
def test_damaged_devkits(tmp_path, files, message):
    (tmp_path / DEVKIT_DATA).mkdir(parents=True)
    for name, content in files().items():
        (tmp_path / DEVKIT_DATA / name).write_bytes(content)
    with pytest.raises(AttnlabError, match=message):
        read_devkit(tmp_path)


def test_without_scipy(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(AttnlabError, match="pip install scipy"):
        extract_val(root, root / "val")
