from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from attnlab.data import MaskFolderDataModule, VOCSegmentationDataModule
from attnlab.data.check_memory import cache_folder
from attnlab.data.segmentation.coded_masks import CodedMaskReader
from attnlab.errors import AttnlabError
from tests.data.conftest import SHARED, write_pairs
from tests.data.segmentation.conftest import NAMES, TRAIN, VAL, maker_of_leaves, write_leaves
from tests.data.segmentation.tester import SegmentationTester


class TestMaskFolder(SegmentationTester):
    classes: ClassVar = NAMES
    train_size = 5

    @pytest.fixture(autouse=True, scope="class")
    def _make(self, request, tmp_path_factory):
        """One folder for all: no test leaves it changed."""
        folder = write_leaves(tmp_path_factory.mktemp("leaves"))
        request.cls.make = staticmethod(maker_of_leaves(folder))


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"class_names": None}, r"data\.class_names must name"),
            ({"binary": True, "label_map": {0: 0}}, r"data\.binary and data\.label_map are both set"),
            ({"binary": True, "class_names": ["a"]}, r"data\.class_names has 1 names"),
            (
                {"binary": True, "ignore": [255]},
                r"data\.ignore contains 255, which is also mapped to class 1",
            ),
            ({"label_map": {5: 2}}, "maps 5 to class 2; with 2 classes it must be 0 to 1, or 255"),
            ({"label_map": {5: 1}, "ignore": [5]}, "ignore contains 5, which is also mapped to class 1"),
            ({"colours": [[0, 0, 0]]}, r"lists 1 colours, but data\.class_names has 2"),
            ({"colours": {"ground": [0, 0, 0]}}, r"Unknown class 'leaf'.*needs a colour"),
            ({"colours": {}, "class_names": None}, r"data\.colours is empty"),
            ({"colours": {"ground": [0, 0], "leaf": [1, 1, 1]}}, r"the colour of 'ground' is \[0, 0\]"),
            ({"colours": [[0, 0, 0], [0, 0, 0]]}, "'ground' and 'leaf' have the same colour"),
            (
                {"colours": [[0, 0, 0], [0, 0, 1]], "ignore": [3]},
                r"data\.ignore lists values, but masks are col",
            ),
            ({"colours": "gone.txt"}, r"Cannot open '.*gone\.txt'"),
            ({"unlisted": "skip"}, r"data\.unlisted is 'skip'"),
            ({"masks": "masks"}, r"must be in both or in neither"),
            (
                {"images": "i", "masks": "m", "test_folder": "test"},
                r"data\.test_folder is 'test', but data\.images has no",
            ),
            ({"val_share": 1.0}, r"val_share is 1\.0"),
            ({"mask_suffix": "_mask.jpg"}, "JPEG compression changes pixel values"),
        ],
    )
    def test_options_that_cannot_work_are_refused(self, make_leaves, options, message):
        with pytest.raises(AttnlabError, match=message):
            make_leaves(**options)

    def test_binary_masks_are_refused_with_the_way_out(self, make_leaves, leaves):
        def black_and_white(rng, size):
            return rng.choice(np.array([0, 255], np.uint8), size)

        for split, names in (("train", TRAIN), ("val", VAL)):
            write_pairs(leaves / "images" / split, leaves / "masks" / split, names, values=black_and_white)
        with pytest.raises(AttnlabError, match=r"only 0 and 255.*set --data\.binary true"):
            make_leaves().setup("fit")
        data = make_leaves(binary=True)
        data.setup("fit")
        values = set()
        for batch in data.val_dataloader():
            values |= set(batch["mask"].unique().tolist())
        assert values == {0, 1}

    @pytest.mark.parametrize("workers", [0, 2])
    def test_coloured_masks_reach_the_batches(self, make_leaves, leaves, workers):
        table = np.array([[0, 0, 0], [10, 200, 30]], np.uint8)

        def coloured(rng, size):
            return table[rng.integers(0, 2, size)]

        for split, names in (("train", TRAIN), ("val", VAL)):
            write_pairs(leaves / "images" / split, leaves / "masks" / split, names, values=coloured)
        data = make_leaves(colours=table.tolist(), num_workers=workers)
        data.setup("fit")
        for batch in data.val_dataloader():
            (name,) = batch["name"]
            stored = np.asarray(Image.open(leaves / f"masks/val/{name}.png"))
            assert np.array_equal(batch["mask"][0].numpy(), (stored[:, :, 1] == 200).astype(np.uint8))
        assert set(next(iter(data.train_dataloader()))["mask"].unique().tolist()) <= {0, 1, 255}

    def test_what_was_found_whole_is_remembered_by_how_masks_are_read(self, make_leaves, leaves, monkeypatch):
        import os

        for path in leaves.rglob("*.*"):
            os.utime(path, (1e9, 1e9))
        make_leaves().setup("fit")
        assert list((cache_folder() / "checked").iterdir())
        read: list[Path] = []
        decode = CodedMaskReader._codes
        monkeypatch.setattr(
            CodedMaskReader, "_codes", lambda self, path: read.append(path) or decode(self, path)
        )
        make_leaves().setup("fit")
        assert read == []
        with pytest.warns(UserWarning, match="no training mask"):
            make_leaves(class_names=["x", "y", "z"], label_map={0: 0, 1: 2}).setup("fit")
        assert len(read) == 8


@pytest.mark.real_data
@pytest.mark.usefixtures("shared_data")
@pytest.mark.parametrize("kind", ["index", "colours"])
def test_real_masks_are_those_of_pascal_voc(tmp_path, kind):
    voc = VOCSegmentationDataModule(str(SHARED), num_workers=0)
    given = voc.items("val")[:12]
    for item in given:
        for folder in ("images/val", "masks/val"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(item.image, tmp_path / "images/val")
        target = tmp_path / f"masks/val/{item.name}.png"
        if kind == "index":
            shutil.copy(item.mask, target)
        else:
            with Image.open(item.mask) as picture:
                picture.convert("RGB").save(target)
    options: dict = {"class_names": voc.class_names}
    if kind == "colours":
        options["colours"] = {**dict(zip(voc.class_names, voc.palette, strict=True)), "void": [224, 224, 192]}
    data = MaskFolderDataModule(str(tmp_path), num_workers=0, **options)
    data.setup("validate")
    found = data.items("val")
    assert [item.name for item in found] == [item.name for item in given]
    for ours, theirs in zip(found, given, strict=True):
        assert np.array_equal(data.read_mask(ours.mask), voc.read_mask(theirs.mask))
