from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from attnlab.data import MaskFolderDataModule, VOCSegmentationDataModule
from attnlab.data.check_memory import cache_folder
from attnlab.data.segmentation.coded_masks import CodedMaskReader, read_colours
from attnlab.errors import AttnlabError
from tests.data.conftest import SHARED, shared_data  # noqa: F401 (a fixture)
from tests.data.test_datamodules import SegmentationTester

NAMES = ["ground", "leaf"]
Values = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def indices(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.choice(np.array([0, 1, 255], np.uint8), size)


def write_pairs(
    images: Path,
    masks: Path,
    names: list[str],
    image_suffix: str = ".jpg",
    mask_suffix: str = ".png",
    values: Values = indices,
) -> None:
    """Noise and masks of different sizes."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        size = (40 + 3 * k, 58 - 2 * k)
        for folder, suffix, pixels in (
            (images, image_suffix, rng.integers(0, 256, (*size, 3), np.uint8)),
            (masks, mask_suffix, values(rng, size)),
        ):
            path = folder / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


TRAIN = [f"t{k}" for k in range(5)]
VAL = ["v0", "v1", "v2"]


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    root = tmp_path / "leaves"
    for split, names in (("train", TRAIN), ("val", VAL)):
        write_pairs(root / "images" / split, root / "masks" / split, names)
    return root


@pytest.fixture
def make(leaves: Path) -> Callable[..., MaskFolderDataModule]:
    defaults = {"root": str(leaves), "class_names": NAMES, "batch_size": 2, "num_workers": 0, "crop_size": 32}
    return lambda **options: MaskFolderDataModule(**{**defaults, **options})


class TestMaskFolder(SegmentationTester):
    classes: ClassVar = NAMES
    train_size = 5

    @pytest.fixture(autouse=True)
    def _make(self, make):
        self.make = make


def names_of(data: MaskFolderDataModule, split: str) -> list[str]:
    return [item.name for item in data.items(split)]


def moved(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


class TestFolders:
    def test_the_default(self, make, leaves):
        item = make().items("val")[1]
        assert item == ("v1", leaves / "images/val/v1.jpg", leaves / "masks/val/v1.png")
        assert names_of(make(), "train") == TRAIN
        assert names_of(make(), "test") == VAL
        assert names_of(make(test_folder="train"), "test") == TRAIN

    def test_camvid(self, make, leaves):
        for split in ("train", "val"):
            moved(leaves / "images" / split, leaves / split)
            moved(leaves / "masks" / split, leaves / f"{split}annot")
        data = make(images="{split}", masks="{split}annot")
        data.setup("fit")
        assert names_of(data, "val") == VAL

    def test_cityscapes(self, make, tmp_path):
        root = tmp_path / "cityscapes"
        names = ["aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "ulm/ulm_000000_000019"]
        for split in ("train", "val"):
            images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
            write_pairs(images, masks, names, "_leftImg8bit.png", "_gtFine_labelTrainIds.png")
            for kind in ("color.png", "instanceIds.png", "labelIds.png", "polygons.json"):
                (masks / f"{names[0]}_gtFine_{kind}").write_bytes(b"another kind of mask")
        data = make(
            root=str(root),
            images="leftImg8bit/{split}",
            masks="gtFine/{split}",
            image_suffix="_leftImg8bit.png",
            mask_suffix="_gtFine_labelTrainIds.png",
        )
        data.setup("fit")
        assert names_of(data, "train") == names
        assert data.items("val")[2].mask == root / "gtFine/val/ulm/ulm_000000_000019_gtFine_labelTrainIds.png"

    def test_images_and_masks_in_one_folder(self, make, tmp_path):
        for split in ("train", "val"):
            write_pairs(tmp_path / "x" / split, tmp_path / "x" / split, VAL, ".png", "_mask.png")
        data = make(root=str(tmp_path / "x"), images="{split}", masks="{split}", mask_suffix="_mask.png")
        data.setup("fit")
        assert [(item.image.name, item.mask.name) for item in data.items("val")] == [
            (f"{name}.png", f"{name}_mask.png") for name in VAL
        ]
        # Without its extension, a suffix stands for any.
        assert data.items("val") == make(
            root=str(tmp_path / "x"), images="{split}", masks="{split}", mask_suffix="_mask"
        ).items("val")

    def test_suffixes_in_capitals_and_files_of_other_kinds(self, make, leaves):
        (leaves / "images/val/v1.jpg").rename(leaves / "images/val/v1.JPEG")
        (leaves / "masks/val/v1.png").rename(leaves / "masks/val/v1.PNG")
        for name in ("notes.txt", ".v0.jpg", "._v0.jpg", ".git/v8.jpg"):
            (leaves / "images/val" / name).parent.mkdir(exist_ok=True)
            (leaves / "images/val" / name).write_text("no picture")
        data = make()
        data.setup("validate")
        assert names_of(data, "val") == VAL

    @pytest.mark.parametrize("called", ["valid", "validation", "dev", "eval"])
    def test_validation_has_many_names(self, make, leaves, called):
        moved(leaves / "images/val", leaves / "images" / called)
        moved(leaves / "masks/val", leaves / "masks" / called)
        assert names_of(make(), "val") == VAL
        shutil.copytree(leaves / "images" / called, leaves / "images" / "eval1")
        if called != "eval":
            shutil.copytree(leaves / "images" / called, leaves / "images/eval")
            with pytest.raises(AttnlabError, match=r"may be meant.*--data\.val_folder"):
                make().items("val")
            assert names_of(make(val_folder=called), "val") == VAL

    def test_missing_folders_say_what_is_there(self, make, leaves):
        shutil.rmtree(leaves / "masks/val")
        with pytest.raises(
            AttnlabError, match=r"no folder '.*masks/val' with the masks .*'val' split.* there are: train/\."
        ):
            make().items("val")
        with pytest.raises(AttnlabError, match=r"no folder 'nowhere/images/train'.*--data\.root"):
            make(root="nowhere").setup("fit")
        with pytest.raises(AttnlabError, match=r"no folder '.*images/exam'"):
            make(test_folder="exam").setup("test")

    def test_no_image_or_no_mask_at_all(self, make, leaves):
        with pytest.raises(
            AttnlabError, match=r"None of the 3 images .* of 'v0\.jpg', .* 'v0_mask\.png'\. It"
        ):
            make(mask_suffix="_mask.png").items("val")
        with pytest.raises(
            AttnlabError, match=r"no image in .* ends with '_rgb\.png'\. It holds 3 files, e\.g"
        ):
            make(image_suffix="_rgb.png").items("val")
        for mask in (leaves / "masks/val").iterdir():
            with Image.open(mask) as picture:
                picture.save(mask.with_suffix(".jpg"))
            mask.unlink()
        with pytest.raises(AttnlabError, match="JPEG changes the values of pixels"):
            make().items("val")

    def test_two_images_of_one_name(self, make, leaves):
        shutil.copy(leaves / "images/val/v0.jpg", leaves / "images/val/v0.webp")
        with pytest.raises(AttnlabError, match=r"v0\.jpg' and .*v0\.webp' are of one name"):
            make().items("val")

    @pytest.mark.parametrize("check", ["full", "quick", "none"])
    def test_images_without_masks(self, make, leaves, check):
        (leaves / "masks/train/t3.png").unlink()
        with pytest.raises(AttnlabError, match=r"(?s)1 of 5 .*t3\.jpg' has no mask: .*t3\.png' is not there"):
            make(check=check).setup("fit")
        if check != "none":
            data = make(check=check, on_bad_image="skip")
            with pytest.warns(UserWarning, match=r"t3\.jpg' has no mask"):
                data.setup("fit")
            assert data.skipped == ["t3"]

    def test_masks_without_images(self, make, leaves):
        (leaves / "images/train/t3.jpg").unlink()
        with pytest.raises(
            AttnlabError, match=r"1 masks in .*masks/train' have no image in .*, e\.g\. t3\.png"
        ):
            make().setup("fit")
        data = make(on_bad_image="skip")
        with pytest.warns(UserWarning, match=r"t3\.png\. They are left out"):
            data.setup("fit")
        assert len(data.dataset("train")) == 4


class TestShare:
    @pytest.fixture
    def one(self, tmp_path, make):
        """Ten images in one folder."""
        write_pairs(tmp_path / "one/images", tmp_path / "one/masks", [f"i{k}" for k in range(10)])
        defaults = {"root": str(tmp_path / "one"), "images": "images", "masks": "masks"}
        return lambda **options: make(**{**defaults, **options})

    def test_it_parts_the_images(self, one):
        data = one(val_share=0.3)
        train, val, test = (names_of(data, split) for split in ("train", "val", "test"))
        assert (len(train), len(val)) == (7, 3)
        assert sorted(train + val) == [f"i{k}" for k in range(10)]
        assert train == sorted(train)
        assert test == val
        data.setup()
        # Stated once and for all: the same on each machine.
        assert val == ["i0", "i6", "i7"]

    def test_it_depends_on_names_and_seed_alone(self, one, tmp_path):
        val = names_of(one(val_share=0.3), "val")
        assert names_of(one(val_share=0.3), "val") == val
        others = [names_of(one(val_share=0.3, val_seed=seed), "val") for seed in range(1, 5)]
        assert any(other != val for other in others)
        # Another image takes the place of one, at most.
        write_pairs(tmp_path / "one/images", tmp_path / "one/masks", ["new"])
        assert len(set(val) & set(names_of(one(val_share=0.3), "val"))) >= len(val) - 1

    @pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.99, 9), (0.5, 5)])
    def test_no_side_is_empty(self, one, share, count):
        assert len(names_of(one(val_share=share), "val")) == count

    def test_where_the_folder_of_validation_is_missing(self, make, leaves):
        with pytest.raises(AttnlabError, match=r"val' is there to validate on: leave one out"):
            make(val_share=0.4).items("train")
        shutil.rmtree(leaves / "images/val")
        with pytest.raises(AttnlabError, match=r"no folder .*images/val'.*--data\.val_share"):
            make().items("val")
        data = make(val_share=0.4, test_folder="train")
        assert len(names_of(data, "val")) == 2
        assert len(names_of(data, "train")) == 3
        assert names_of(data, "test") == TRAIN

    def test_it_is_asked_for(self, one):
        for split in ("train", "val", "test"):
            with pytest.raises(AttnlabError, match=r"no '\{split\}' in data\.images.*--data\.val_share"):
                one().items(split)


@pytest.fixture
def mask(tmp_path: Path) -> Callable[..., Path]:
    """Write a mask of these pixels."""

    def write(pixels: list | np.ndarray, mode: str | None = None, name: str = "m.png") -> Path:
        array = np.array(pixels, np.uint8) if isinstance(pixels, list) else pixels
        picture = Image.fromarray(array)
        if mode is not None:
            picture = picture.convert(mode)
        picture.save(tmp_path / name)
        return tmp_path / name

    return write


def reader(**options) -> CodedMaskReader:
    return MaskFolderDataModule(**{"class_names": ["a", "b", "c"], **options}).read_mask


RGB = {"a": [0, 0, 0], "b": [10, 20, 30], "c": [30, 20, 10]}
COLOURED = np.array([[RGB["a"], RGB["b"]], [RGB["c"], RGB["b"]]], np.uint8)


class TestMasks:
    def test_indices(self, mask):
        assert reader()(mask([[0, 1], [2, 255]])).tolist() == [[0, 1], [2, 255]]
        with pytest.raises(
            AttnlabError, match=r"m\.png' holds the value 3, in 1 pixels, .* 0\.\.2 and 255 are"
        ):
            reader()(mask([[0, 1], [3, 255]]))
        assert reader(unlisted="ignore")(mask([[0, 1], [3, 255]])).tolist() == [[0, 1], [255, 255]]

    def test_a_palette_is_read_by_index(self, mask, tmp_path):
        picture = Image.fromarray(np.array([[2, 0], [1, 255]], np.uint8), "P")
        picture.putpalette([*range(256)] * 3)
        picture.save(tmp_path / "p.png")
        assert reader()(tmp_path / "p.png").tolist() == [[2, 0], [1, 255]]

    @pytest.mark.parametrize("kind", [np.uint16, np.int32])
    def test_many_bits(self, mask, kind):
        name = "m.png" if kind is np.uint16 else "m.tif"
        assert reader()(mask(np.array([[2, 0], [1, 255]], kind), name=name)).tolist() == [[2, 0], [1, 255]]
        with pytest.raises(AttnlabError, match="holds the value 300"):
            reader()(mask(np.array([[2, 0], [1, 300]], kind), name=name))
        found = reader(label_map={300: 2, 1000: 1, 0: 0})(
            mask(np.array([[1000, 0], [300, 255]], kind), name=name)
        )
        assert found.tolist() == [[1, 0], [2, 255]]

    def test_one_bit(self, mask):
        path = mask([[0, 255], [255, 0]], "1")
        assert reader()(path).tolist() == [[0, 1], [1, 0]]
        assert reader(class_names=NAMES, binary=True)(path).tolist() == [[0, 1], [1, 0]]

    def test_label_map_and_ignore(self, mask):
        path = mask([[7, 8], [0, 11]])
        assert reader(label_map={7: 0, 8: 1, 11: 2, 0: 255})(path).tolist() == [[0, 1], [255, 2]]
        assert reader(label_map={7: 0, 8: 1, 11: 2}, ignore=[0])(path).tolist() == [[0, 1], [255, 2]]
        assert reader(label_map={7: 0, 8: 1, 11: 2}, unlisted="ignore")(path).tolist() == [[0, 1], [255, 2]]
        with pytest.raises(AttnlabError, match=r"holds the value 0, .*7, 8, 11, 255|7\.\.8"):
            reader(label_map={7: 0, 8: 1, 11: 2})(path)
        assert reader(ignore=[2, 9])(mask([[0, 1], [2, 9]])).tolist() == [[0, 1], [255, 255]]

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
    def test_black_and_white(self, mask, mode):
        read = reader(class_names=NAMES, binary=True)
        assert read(mask([[0, 255], [255, 0]], mode)).tolist() == [[0, 1], [1, 0]]
        with pytest.raises(AttnlabError, match=r"holds the value 127.*resized"):
            read(mask([[0, 127], [255, 0]], mode))

    def test_black_and_white_of_16_bits_or_with_a_border(self, mask):
        read = reader(class_names=NAMES, binary=True, ignore=[128])
        assert read(mask(np.array([[0, 65535]], np.uint16))).tolist() == [[0, 1]]
        assert read(mask([[0, 128, 255]])).tolist() == [[0, 255, 1]]
        with pytest.raises(
            AttnlabError, match=r"not of black and white.*colours \(10, 20, 30\), \(30, 20, 10\)\."
        ):
            read(mask(COLOURED))

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
    def test_colours(self, mask, mode):
        path = mask(COLOURED)
        with Image.open(path) as picture:
            changed = picture.quantize(4) if mode == "P" else picture.convert(mode)
        changed.save(path)
        assert reader(colours=RGB)(path).tolist() == [[0, 1], [2, 1]]
        assert reader(colours=list(RGB.values()))(path).tolist() == [[0, 1], [2, 1]]
        assert reader(class_names=None, colours=RGB)(path).tolist() == [[0, 1], [2, 1]]
        # In another order, and with a colour that is no class.
        assert reader(class_names=["c", "b"], colours=RGB)(path).tolist() == [[255, 1], [0, 1]]
        two = {name: RGB[name] for name in "ab"}
        with pytest.raises(
            AttnlabError, match=r"m\.png' holds the colour \(30, 20, 10\), in 1 pixels, which stand for no"
        ):
            reader(class_names=None, colours=two)(path)
        found = reader(class_names=None, colours=two, unlisted="ignore")(path)
        assert found.tolist() == [[0, 1], [255, 1]]

    def test_colours_against_a_dictionary(self, mask):
        rng = np.random.default_rng(0)
        colours = {
            f"k{k}": [int(v) for v in colour] for k, colour in enumerate(rng.integers(0, 256, (40, 3)))
        }
        choice = rng.integers(0, 40, (30, 50))
        table = np.array(list(colours.values()), np.uint8)
        found = reader(class_names=None, colours=colours)(mask(table[choice]))
        assert np.array_equal(found.numpy(), choice)

    @pytest.mark.parametrize(
        "text",
        [
            "0 0 0\t\ta\n10 20 30\tb\n30 20 10 c\n",
            "name,r,g,b\na,0,0,0\nb, 10, 20, 30\nc,30,20,10\n",
            "# label:color_rgb:parts:actions\na:0,0,0::\nb:10,20,30::\nc:30,20,10::\n",
        ],
    )
    def test_tables_of_colours(self, tmp_path, mask, text):
        (tmp_path / "colours.txt").write_text(text)
        assert read_colours(tmp_path / "colours.txt") == {name: tuple(colour) for name, colour in RGB.items()}
        data = MaskFolderDataModule(str(tmp_path), colours="colours.txt")
        assert data.class_names == ["a", "b", "c"]
        assert data.palette == list(RGB.values())
        assert data.read_mask(mask(COLOURED)).tolist() == [[0, 1], [2, 1]]
        # A checkpoint needs no file.
        remembered = data.remembered()
        assert remembered == {"class_names": ["a", "b", "c"], "colours": RGB}
        assert MaskFolderDataModule("nowhere", **remembered).read_mask == data.read_mask
        assert MaskFolderDataModule(str(tmp_path), colours=RGB).remembered() == {}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,0,0\n", "line 1 is 'a,0,0'"),
            ("name,r,g,b\n", "has no line"),
            ("a,0,0,0\nb,0,0,0\n", "'a' and 'b' have the same colour"),
            ("a,0,0,0\na,0,0,1\n", "names 'a' twice, again in line 2"),
            ("a,0,0,256\n", r"the colour of 'a' is \[0, 0, 256\]"),
        ],
    )
    def test_tables_that_are_none(self, tmp_path, text, message):
        (tmp_path / "colours.csv").write_text(text)
        with pytest.raises(AttnlabError, match=message):
            MaskFolderDataModule(str(tmp_path), colours="colours.csv")

    def test_what_is_no_mask(self, mask, tmp_path):
        for content, message in ((b"nothing", "no picture"), (b"", "no picture")):
            (tmp_path / "x.png").write_bytes(content)
            with pytest.raises(AttnlabError, match=message):
                reader()(tmp_path / "x.png")
        with pytest.raises(AttnlabError, match=r"Cannot open '.*gone\.png': No such file"):
            reader()(tmp_path / "gone.png")
        path = mask(np.random.default_rng(0).integers(0, 3, (90, 90)).astype(np.uint8))
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(AttnlabError, match="truncated"):
            reader()(path)
        Image.fromarray(COLOURED).save(tmp_path / "lossy.png", format="JPEG")
        for options in ({}, {"colours": RGB}):
            with pytest.raises(AttnlabError, match=r"lossy\.png' is a JPEG.*Write masks as PNG"):
                reader(**options)(tmp_path / "lossy.png")
        with pytest.raises(AttnlabError, match=r"stores colours \(mode RGB\).*data\.colours"):
            reader()(mask(COLOURED))
        with pytest.raises(AttnlabError, match="where colours were expected"):
            reader(colours=RGB)(mask(np.zeros((3, 3), np.uint16)))

    def test_a_reader_travels_and_is_known_by_what_it_does(self, mask):
        path = mask([[0, 1], [2, 255]])
        one = reader()
        one(path)  # What it has worked out is no part of it.
        again = pickle.loads(pickle.dumps(one))
        assert again == one == reader()
        assert repr(again) == repr(one) == repr(reader())
        assert again(path).tolist() == one(path).tolist()
        others = [{"ignore": [0]}, {"unlisted": "ignore"}, {"label_map": {0: 1}}, {"colours": RGB}]
        assert len({repr(reader(**options)) for options in [{}, *others]}) == 5


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"class_names": None}, r"data\.class_names must name"),
            ({"binary": True, "label_map": {0: 0}}, r"data\.binary and data\.label_map are set"),
            ({"binary": True, "class_names": ["a"]}, r"data\.class_names has 1 names"),
            ({"binary": True, "ignore": [255]}, r"data\.ignore has 255, which stands for the class 1"),
            ({"label_map": {5: 2}}, "makes 5 the class 2; with 2 classes it may be 0 to 1, or 255"),
            ({"label_map": {5: 1}, "ignore": [5]}, "ignore has 5, which stands for the class 1"),
            ({"colours": [[0, 0, 0]]}, r"a list of 1 colours, and data\.class_names has 2"),
            ({"colours": {"ground": [0, 0, 0]}}, r"Unknown class 'leaf'.*needs a colour"),
            ({"colours": {}, "class_names": None}, r"data\.colours is empty"),
            ({"colours": {"ground": [0, 0], "leaf": [1, 1, 1]}}, r"the colour of 'ground' is \[0, 0\]"),
            ({"colours": [[0, 0, 0], [0, 0, 0]]}, "'ground' and 'leaf' have the same colour"),
            (
                {"colours": [[0, 0, 0], [0, 0, 1]], "ignore": [3]},
                r"data\.ignore has values, but masks are col",
            ),
            ({"colours": "gone.txt"}, r"Cannot open '.*gone\.txt'"),
            ({"unlisted": "skip"}, r"data\.unlisted is 'skip'"),
            ({"masks": "masks"}, r"must be in both, or in neither"),
            (
                {"images": "i", "masks": "m", "test_folder": "test"},
                r"data\.test_folder is 'test', but there is no",
            ),
            ({"val_share": 1.0}, r"val_share is 1\.0"),
            ({"mask_suffix": "_mask.jpg"}, "JPEG changes the values"),
        ],
    )
    def test_options_that_cannot_work_are_refused(self, make, options, message):
        with pytest.raises(AttnlabError, match=message):
            make(**options)

    def test_binary_masks_are_refused_with_the_way_out(self, make, leaves):
        def black_and_white(rng, size):
            return rng.choice(np.array([0, 255], np.uint8), size)

        for split, names in (("train", TRAIN), ("val", VAL)):
            write_pairs(leaves / "images" / split, leaves / "masks" / split, names, values=black_and_white)
        with pytest.raises(AttnlabError, match=r"nothing but 0 and 255.*set --data\.binary true"):
            make().setup("fit")
        data = make(binary=True)
        data.setup("fit")
        values = set()
        for batch in data.val_dataloader():
            values |= set(batch["mask"].unique().tolist())
        assert values == {0, 1}

    @pytest.mark.parametrize("workers", [0, 2])
    def test_coloured_masks_reach_the_batches(self, make, leaves, workers):
        table = np.array([[0, 0, 0], [10, 200, 30]], np.uint8)

        def coloured(rng, size):
            return table[rng.integers(0, 2, size)]

        for split, names in (("train", TRAIN), ("val", VAL)):
            write_pairs(leaves / "images" / split, leaves / "masks" / split, names, values=coloured)
        data = make(colours=table.tolist(), num_workers=workers)
        data.setup("fit")
        for batch in data.val_dataloader():
            (name,) = batch["name"]
            stored = np.asarray(Image.open(leaves / f"masks/val/{name}.png"))
            assert np.array_equal(batch["mask"][0].numpy(), (stored[:, :, 1] == 200).astype(np.uint8))
        assert set(next(iter(data.train_dataloader()))["mask"].unique().tolist()) <= {0, 1, 255}

    def test_what_was_found_whole_is_remembered_by_how_masks_are_read(self, make, leaves, monkeypatch):
        import os

        for path in leaves.rglob("*.*"):
            os.utime(path, (1e9, 1e9))
        make().setup("fit")
        assert list((cache_folder() / "checked").iterdir())
        read: list[Path] = []
        decode = CodedMaskReader._codes
        monkeypatch.setattr(
            CodedMaskReader, "_codes", lambda self, path: read.append(path) or decode(self, path)
        )
        make().setup("fit")
        assert read == []
        with pytest.warns(UserWarning, match="no training mask"):
            make(class_names=["x", "y", "z"], label_map={0: 0, 1: 2}).setup("fit")
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
