from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import timm.data
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from attnlab.data.classification import imagenet_archive
from attnlab.data.classification.imagenet import ImageNetDataModule
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
from tests.data.test_classification import ClassificationTester

# Sorted order and the order of the devkit's numbers differ, as ImageNet's do.
WNIDS = {1: "n02119789", 2: "n01440764", 3: "n03950228"}
WORDS = {"n02119789": "kit fox", "n01440764": "tench, Tinca tinca", "n03950228": "pitcher, ewer"}
TRAIN_NUMBERS = {"n01440764": (10026, 7), "n02119789": (3,), "n03950228": (11, 12, 13)}
TRUTH = [3, 2, 2, 1, 3]
VAL = [WNIDS[number] for number in TRUTH]


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


TRAIN_FILES = {
    f"{wnid}/{wnid}_{number}.JPEG": jpeg(number)
    for wnid, numbers in TRAIN_NUMBERS.items()
    for number in numbers
}
VAL_FILES = {f"ILSVRC2012_val_{k + 1:08d}.JPEG": jpeg(100 + k) for k in range(len(TRUTH))}


def make_tar(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def train_tar(**extra: dict) -> bytes:
    """The training archive; ``extra`` are members that a class's archive has besides."""
    return make_tar(
        {
            f"{wnid}.tar": make_tar(
                {
                    name.split("/")[1]: content
                    for name, content in TRAIN_FILES.items()
                    if name.startswith(wnid)
                }
                | extra.get(wnid, {})
            )
            for wnid in sorted(TRAIN_NUMBERS)
        }
    )


def meta_mat() -> bytes:
    """The devkit's table: the classes, and below them the synsets that group them."""
    savemat = pytest.importorskip("scipy.io", reason="scipy writes the devkit's table").savemat
    fields = [
        *("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"),
        *("wordnet_height", "num_train_images"),
    ]
    rows = np.empty((len(WNIDS) + 1, 1), dtype=[(field, object) for field in fields])
    for row, (number, wnid) in zip(rows[:, 0], WNIDS.items(), strict=False):
        values = (number, wnid, WORDS[wnid], "a gloss", 0, np.zeros((1, 0)), 0, 1300)
        for field, value in zip(fields, values, strict=True):
            row[field] = value
    group = (4, "n00001740", "entity", "a gloss", 3, np.array([[1, 2, 3]]), 18, 0)
    for field, value in zip(fields, group, strict=True):
        rows[-1, 0][field] = value
    file = io.BytesIO()
    savemat(file, {"synsets": rows})
    return file.getvalue()


def devkit_files(truth: list[int] = TRUTH) -> dict[str, bytes]:
    return {
        "ILSVRC2012_validation_ground_truth.txt": "".join(f"{number}\n" for number in truth).encode(),
        "meta.mat": meta_mat(),
    }


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Puts an archive of some content into place, and takes it for the official one."""

    def put(name: str, content: bytes) -> Path:
        monkeypatch.setitem(imagenet_archive.CHECKSUMS, name, hashlib.md5(content).hexdigest())
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return put


@pytest.fixture
def root(tmp_path, put) -> Path:
    """The three archives."""
    put(TRAIN_ARCHIVE, train_tar())
    put(VAL_ARCHIVE, make_tar(VAL_FILES))
    put(DEVKIT_ARCHIVE, make_tar({f"{DEVKIT_DATA}/{n}": c for n, c in devkit_files().items()}, "w:gz"))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


VAL_PLACED = {f"{wnid}/{name}": content for wnid, (name, content) in zip(VAL, VAL_FILES.items(), strict=True)}


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
        with pytest.raises(AttnlabError, match=f"images 1 to 5, and not that of '{name}'"):
            devkit.wnid(name)
    with pytest.raises(AttnlabError, match=r"'cat\.JPEG' is not named like"):
        devkit.wnid("cat.JPEG")


class TestImageNet(ClassificationTester):
    classes: ClassVar = ["tench", "kit fox", "pitcher"]
    folders: ClassVar = sorted(WNIDS.values())
    train_size = 6

    @pytest.fixture(autouse=True)
    def _make(self, tmp_path):
        for split, files in (("train", TRAIN_FILES), ("val", VAL_PLACED)):
            for name, content in files.items():
                (tmp_path / split / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / split / name).write_bytes(content)
        defaults = {"root": str(tmp_path), "batch_size": 4, "num_workers": 0, "crop_size": 32}
        self.make = lambda **options: ImageNetDataModule(**{**defaults, **options})


class Stop(Exception):
    pass


def stopping(function, after: int):
    """The function, interrupted on its call number ``after`` (from 0)."""
    calls = iter(range(after + 1))

    def call(*args, **options):
        if next(calls) == after:
            raise Stop
        return function(*args, **options)

    return call


def spied(monkeypatch, owner, name: str) -> list[tuple]:
    """The arguments of the calls to a function that are made from here on."""
    calls, original = [], getattr(owner, name)

    def call(*args, **options):
        calls.append(args)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, call)
    return calls


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
    with pytest.raises(AttnlabError, match=rf"{name}'.*there.*put it there.*account"):
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
    with pytest.raises(AttnlabError, match=r"is not unpacked: its member"):
        (extract_val if where == "val" else extract_train)(root, root / "deep/out")
    new = {path for path in set(root.rglob("*")) - before if path.is_file() or path.is_symlink()}
    notes = {"out.lock", f"{TRAIN_ARCHIVE}.verified", f"{VAL_ARCHIVE}.verified"}
    assert {path.name for path in new} - notes <= {name.split("/")[1] for name in TRAIN_FILES}
    assert not Path("/tmp/attnlab-evil.JPEG").exists()


def test_no_room_is_found_before_it_is_filled(root, monkeypatch):
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(AttnlabError, match=r"0\.0 GB free: make room"):
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
        with pytest.raises(AttnlabError, match=r"No space left on device.*is kept in '.*train\.part'"):
            extract_train(root, root / "train")
    assert len(contents(root / "train.part")) == 3
    extract_train(root, root / "train")
    assert contents(root / "train") == TRAIN_FILES


def test_damaged_archives_with_the_right_checksum(root, put):
    put(TRAIN_ARCHIVE, train_tar()[:6000])
    with pytest.raises(AttnlabError, match="cannot be read"):
        extract_train(root, root / "train")
    put(DEVKIT_ARCHIVE, make_tar({"other": b""}, "w:gz"))
    with pytest.raises(AttnlabError, match=rf"{DEVKIT_ARCHIVE}' cannot be read.*ground_truth|meta\.mat"):
        read_devkit(root)


def test_archives_that_do_not_belong_together(root, put):
    put(VAL_ARCHIVE, make_tar(dict(list(VAL_FILES.items())[:4])))
    with pytest.raises(AttnlabError, match="holds 4 images, but the devkit's ground truth has 5"):
        extract_val(root, root / "val")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda: {"meta.mat": meta_mat()}, "not complete.*ground_truth"),
        (lambda: devkit_files([]), "ground_truth.txt is empty"),
        (lambda: devkit_files([1, 4]), "names a class, 4, that"),  # A group, not a class.
        (lambda: devkit_files() | {"meta.mat": b"no such file"}, "meta.mat cannot be understood"),
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


SMALL = {"batch_size": 2, "eval_batch_size": 2, "num_workers": 0, "crop_size": 16}


def module(root: Path, **options) -> ImageNetDataModule:
    return ImageNetDataModule(str(root), **SMALL, **options)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def labels(data: ImageNetDataModule, split: str) -> dict[str, str]:
    return {item.name: data.synsets[item.label] for item in data.items(split)}


@pytest.fixture
def few_synsets(monkeypatch):
    """An ImageNet of the classes that the archives made here have."""
    monkeypatch.setattr(timm.data.ImageNetInfo, "label_names", lambda _: list(WNIDS.values()))


NAMES = ["tench", "kit fox", "pitcher"]


def test_from_archives_to_batches(root, few_synsets):
    data = module(root, extract=True)
    assert data.class_names == NAMES
    data.prepare_data()
    data.prepare_data()
    data.setup("fit")
    assert labels(data, "train") == {name: name.split("/")[0] for name in TRAIN_FILES}
    assert labels(data, "val") == {name: name.split("/")[0] for name in VAL_PLACED}
    assert len(list(data.train_dataloader())) == 3
    names = [name for batch in data.val_dataloader() for name in batch["name"]]
    assert sorted(names) == sorted(VAL_PLACED)
    again = module(root)
    again.setup()
    assert again.class_names == NAMES


def test_before_the_archives_are_extracted_there_are_1000_classes(root):
    data = module(root, extract=True)
    assert data.num_classes == len(set(data.class_names)) == 1000
    assert data.synsets == sorted(data.synsets)
    assert (data.synsets[0], data.synsets[-1]) == ("n01440764", "n15075141")
    assert not (root / "train").exists()


def test_evaluation_extracts_no_training_images(root, few_synsets):
    data = module(root, extract=True)
    data.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    data.trainer.state.fn = TrainerFn.VALIDATING
    data.prepare_data()
    assert not (root / "train").exists()
    data.setup("validate")
    assert labels(data, "val") == {name: name.split("/")[0] for name in VAL_PLACED}


def test_nothing_is_extracted_unless_asked(root):
    data = module(root)
    data.prepare_data()
    assert {path.name for path in root.iterdir()} == {TRAIN_ARCHIVE, VAL_ARCHIVE, DEVKIT_ARCHIVE}
    with pytest.raises(AttnlabError, match=rf"no '.*train', but '.*{TRAIN_ARCHIVE}'.*--data\.extract true"):
        data.setup("fit")


def test_an_unfinished_extraction_is_named(root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", stopping(tarfile.TarFile.extract, 2))
        with pytest.raises(Stop):
            extract_train(root, root / "train")
    extract_val(root, root / "val")
    with pytest.raises(AttnlabError, match=r"train' is not complete.*--data\.extract true"):
        module(root).setup("fit")


def test_what_to_do_where_nothing_is(tmp_path):
    for extract in (False, True):
        for root in (tmp_path, tmp_path / "nowhere"):
            data = module(root, extract=extract)
            data.prepare_data()
            with pytest.raises(AttnlabError) as caught:
                data.setup("fit")
            archives = (TRAIN_ARCHIVE, VAL_ARCHIVE, DEVKIT_ARCHIVE)
            for part in (*archives, str(root / "val"), "--data.extract true", "account"):
                assert part in str(caught.value)


def test_without_the_training_archive(root):
    (root / TRAIN_ARCHIVE).unlink()
    data = module(root, extract=True)
    data.prepare_data()
    with pytest.raises(AttnlabError, match=rf"no '.*train'.*{TRAIN_ARCHIVE}"):
        data.setup("fit")
    module(root).setup("validate")


def test_flat_validation_folder(root):
    write(root / "train", TRAIN_FILES)
    write(root / "val", VAL_FILES)
    data = module(root)
    data.setup()
    assert data.class_names == NAMES
    assert labels(data, "val") == labels(data, "test") == dict(zip(VAL_FILES, VAL, strict=True))
    batches = list(data.val_dataloader())
    assert [name for batch in batches for name in batch["name"]] == [*VAL_FILES]
    assert [label for batch in batches for label in batch["label"].tolist()] == [2, 0, 0, 1, 2]


def test_a_part_of_a_flat_folder_without_training_images(root):
    names = [*VAL_FILES][1:3]
    write(root / "val", {name: VAL_FILES[name] for name in names})
    data = module(root)
    data.setup("validate")
    assert data.class_names == NAMES
    assert labels(data, "val") == {names[0]: VAL[1], names[1]: VAL[2]}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("ILSVRC2012_val_00000006.JPEG", "images 1 to 5, and not that of"),
        ("ILSVRC2012_val_6.JPEG", "is not named like"),
        ("ILSVRC2012_val_00000002.png", "several images have the same number"),
        ("n01440764/ILSVRC2012_val_00000002.JPEG", "holds both images .* and folders"),
    ],
)
def test_flat_folders_that_cannot_be_understood(root, more, message):
    write(root / "val", VAL_FILES | {more: jpeg(0)})
    with pytest.raises(AttnlabError, match=message):
        module(root).setup("validate")


def test_a_flat_folder_needs_the_devkit(root):
    write(root / "val", VAL_FILES)
    (root / DEVKIT_ARCHIVE).unlink()
    with pytest.raises(AttnlabError, match=rf"{DEVKIT_ARCHIVE}.*validation images"):
        module(root).setup("validate")


def test_a_flat_folder_of_other_classes_than_training(root):
    write(root / "train", {name: content for name, content in TRAIN_FILES.items() if name[:9] != VAL[0]})
    write(root / "val", VAL_FILES)
    with pytest.raises(AttnlabError, match=rf"2 of the 5 images in '.*val' are of classes.*{VAL[0]}"):
        module(root).setup("fit")


def test_real_class_folders(shared_data):
    data = module(shared_data / "imagenet-sample")
    data.setup("validate")
    assert data.num_classes == len(data.items("val")) == 1000
    assert data.class_names[:2] == ["tench", "goldfish"]
