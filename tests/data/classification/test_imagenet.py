from __future__ import annotations

import tarfile
from pathlib import Path
from typing import ClassVar

import pytest
import timm.data
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from attnlab.data.classification.imagenet import ImageNetDataModule
from attnlab.data.classification.imagenet_archive import (
    DEVKIT_ARCHIVE,
    TRAIN_ARCHIVE,
    VAL_ARCHIVE,
    extract_train,
    extract_val,
)
from attnlab.errors import AttnlabError
from tests.data.classification.conftest import (
    TRAIN_FILES,
    VAL,
    VAL_FILES,
    VAL_PLACED,
    WNIDS,
    Stop,
    jpeg,
    stopping,
)
from tests.data.classification.tester import ClassificationTester


class TestImageNet(ClassificationTester):
    classes: ClassVar = ["tench", "kit fox", "pitcher"]
    folders: ClassVar = sorted(WNIDS.values())
    train_size = 6

    @pytest.fixture(autouse=True, scope="class")
    def _make(self, request, tmp_path_factory):
        """One folder for all: no test leaves it changed."""
        folder = tmp_path_factory.mktemp("imagenet")
        write(folder / "train", TRAIN_FILES)
        write(folder / "val", VAL_PLACED)
        defaults = {"root": str(folder), "batch_size": 4, "num_workers": 0, "crop_size": 32}
        request.cls.make = staticmethod(lambda **options: ImageNetDataModule(**{**defaults, **options}))


SMALL = {"batch_size": 2, "eval_batch_size": 2, "num_workers": 0, "crop_size": 16}


def module(root: Path, **options) -> ImageNetDataModule:
    return ImageNetDataModule(str(root), **SMALL, **options)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def labels(data: ImageNetDataModule, split: str) -> dict[str, str]:
    return {item.name: data.class_folders[item.label] for item in data.items(split)}


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
    assert data.class_folders == sorted(data.class_folders)
    assert (data.class_folders[0], data.class_folders[-1]) == ("n01440764", "n15075141")
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
    with pytest.raises(AttnlabError, match=r"train' is incomplete.*--data\.extract true"):
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
        ("ILSVRC2012_val_00000006.JPEG", "images 1 to 5, not"),
        ("ILSVRC2012_val_6.JPEG", "is not named like"),
        ("ILSVRC2012_val_00000002.png", "several images have the same number"),
        ("n01440764/ILSVRC2012_val_00000002.JPEG", "contains both images .* and folders"),
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
    with pytest.raises(AttnlabError, match=rf"2 of the 5 images in '.*val' belong to classes.*{VAL[0]}"):
        module(root).setup("fit")


def test_real_class_folders(shared_data):
    data = module(shared_data / "imagenet-sample")
    data.setup("validate")
    assert data.num_classes == len(data.items("val")) == 1000
    assert data.class_names[:2] == ["tench", "goldfish"]
