from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from attnlab.errors import AttnlabError
from tests.data.conftest import write_pairs
from tests.data.segmentation.conftest import TRAIN, VAL, names_of


def moved(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


class TestFolders:
    def test_the_default(self, make_leaves, leaves):
        item = make_leaves().items("val")[1]
        assert item == ("v1", leaves / "images/val/v1.jpg", leaves / "masks/val/v1.png")
        assert names_of(make_leaves(), "train") == TRAIN
        assert names_of(make_leaves(), "test") == VAL
        assert names_of(make_leaves(test_folder="train"), "test") == TRAIN

    def test_camvid(self, make_leaves, leaves):
        for split in ("train", "val"):
            moved(leaves / "images" / split, leaves / split)
            moved(leaves / "masks" / split, leaves / f"{split}annot")
        data = make_leaves(images="{split}", masks="{split}annot")
        data.setup("fit")
        assert names_of(data, "val") == VAL

    def test_cityscapes(self, make_leaves, tmp_path):
        root = tmp_path / "cityscapes"
        names = ["aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "ulm/ulm_000000_000019"]
        for split in ("train", "val"):
            images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
            write_pairs(images, masks, names, "_leftImg8bit.png", "_gtFine_labelTrainIds.png")
            for kind in ("color.png", "instanceIds.png", "labelIds.png", "polygons.json"):
                (masks / f"{names[0]}_gtFine_{kind}").write_bytes(b"another kind of mask")
        data = make_leaves(
            root=str(root),
            images="leftImg8bit/{split}",
            masks="gtFine/{split}",
            image_suffix="_leftImg8bit.png",
            mask_suffix="_gtFine_labelTrainIds.png",
        )
        data.setup("fit")
        assert names_of(data, "train") == names
        last = data.items("val")[2].mask
        assert last == root / "gtFine/val/ulm/ulm_000000_000019_gtFine_labelTrainIds.png"

    def test_images_and_masks_in_one_folder(self, make_leaves, tmp_path):
        for split in ("train", "val"):
            write_pairs(tmp_path / "x" / split, tmp_path / "x" / split, VAL, ".png", "_mask.png")
        data = make_leaves(
            root=str(tmp_path / "x"), images="{split}", masks="{split}", mask_suffix="_mask.png"
        )
        data.setup("fit")
        assert [(item.image.name, item.mask.name) for item in data.items("val")] == [
            (f"{name}.png", f"{name}_mask.png") for name in VAL
        ]
        # Without its extension, a suffix stands for any.
        assert data.items("val") == make_leaves(
            root=str(tmp_path / "x"), images="{split}", masks="{split}", mask_suffix="_mask"
        ).items("val")

    def test_suffixes_in_capitals_and_files_of_other_kinds(self, make_leaves, leaves):
        (leaves / "images/val/v1.jpg").rename(leaves / "images/val/v1.JPEG")
        (leaves / "masks/val/v1.png").rename(leaves / "masks/val/v1.PNG")
        for name in ("notes.txt", ".v0.jpg", "._v0.jpg", ".git/v8.jpg"):
            (leaves / "images/val" / name).parent.mkdir(exist_ok=True)
            (leaves / "images/val" / name).write_text("no picture")
        data = make_leaves()
        data.setup("validate")
        assert names_of(data, "val") == VAL

    @pytest.mark.parametrize("called", ["valid", "validation", "dev", "eval"])
    def test_validation_has_many_names(self, make_leaves, leaves, called):
        moved(leaves / "images/val", leaves / "images" / called)
        moved(leaves / "masks/val", leaves / "masks" / called)
        assert names_of(make_leaves(), "val") == VAL
        shutil.copytree(leaves / "images" / called, leaves / "images" / "eval1")
        if called != "eval":
            shutil.copytree(leaves / "images" / called, leaves / "images/eval")
            with pytest.raises(AttnlabError, match=r"may be meant.*--data\.val_folder"):
                make_leaves().items("val")
            assert names_of(make_leaves(val_folder=called), "val") == VAL

    def test_missing_folders_say_what_is_there(self, make_leaves, leaves):
        shutil.rmtree(leaves / "masks/val")
        with pytest.raises(
            AttnlabError, match=r"no folder '.*masks/val' with the masks .*'val' split.* contains: train/\."
        ):
            make_leaves().items("val")
        with pytest.raises(AttnlabError, match=r"no folder 'nowhere/images/train'.*--data\.root"):
            make_leaves(root="nowhere").setup("fit")
        with pytest.raises(AttnlabError, match=r"no folder '.*images/exam'"):
            make_leaves(test_folder="exam").setup("test")

    def test_no_image_or_no_mask_at_all(self, make_leaves, leaves):
        with pytest.raises(
            AttnlabError, match=r"None of the 3 images .* for 'v0\.jpg', .* 'v0_mask\.png'\. It"
        ):
            make_leaves(mask_suffix="_mask.png").items("val")
        with pytest.raises(
            AttnlabError, match=r"no images in .* end in '_rgb\.png'\. It contains 3 files, e\.g"
        ):
            make_leaves(image_suffix="_rgb.png").items("val")
        for mask in (leaves / "masks/val").iterdir():
            with Image.open(mask) as picture:
                picture.save(mask.with_suffix(".jpg"))
            mask.unlink()
        with pytest.raises(AttnlabError, match="JPEG compression changes pixel values"):
            make_leaves().items("val")

    def test_two_images_of_one_name(self, make_leaves, leaves):
        shutil.copy(leaves / "images/val/v0.jpg", leaves / "images/val/v0.webp")
        with pytest.raises(AttnlabError, match=r"v0\.jpg' and .*v0\.webp' have the same name"):
            make_leaves().items("val")

    @pytest.mark.parametrize("check", ["full", "quick", "none"])
    def test_images_without_masks(self, make_leaves, leaves, check):
        (leaves / "masks/train/t3.png").unlink()
        with pytest.raises(
            AttnlabError, match=r"(?s)1 of 5 .*t3\.jpg' has no mask: .*t3\.png' does not exist"
        ):
            make_leaves(check=check).setup("fit")
        if check != "none":
            data = make_leaves(check=check, on_bad_image="skip")
            with pytest.warns(UserWarning, match=r"t3\.jpg' has no mask"):
                data.setup("fit")
            assert data.skipped == ["t3"]

    def test_masks_without_images(self, make_leaves, leaves):
        (leaves / "images/train/t3.jpg").unlink()
        with pytest.raises(
            AttnlabError, match=r"1 masks in .*masks/train' have no image in .*, e\.g\. t3\.png"
        ):
            make_leaves().setup("fit")
        data = make_leaves(on_bad_image="skip")
        with pytest.warns(UserWarning, match=r"t3\.png\. They are skipped"):
            data.setup("fit")
        assert len(data.dataset("train")) == 4


class TestShare:
    @pytest.fixture
    def one(self, tmp_path, make_leaves):
        """Ten images in one folder."""
        write_pairs(tmp_path / "one/images", tmp_path / "one/masks", [f"i{k}" for k in range(10)])
        defaults = {"root": str(tmp_path / "one"), "images": "images", "masks": "masks"}
        return lambda **options: make_leaves(**{**defaults, **options})

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

    def test_where_the_folder_of_validation_is_missing(self, make_leaves, leaves):
        with pytest.raises(AttnlabError, match=r"validation folder '.*val': leave one out"):
            make_leaves(val_share=0.4).items("train")
        shutil.rmtree(leaves / "images/val")
        with pytest.raises(AttnlabError, match=r"no folder .*images/val'.*--data\.val_share"):
            make_leaves().items("val")
        data = make_leaves(val_share=0.4, test_folder="train")
        assert len(names_of(data, "val")) == 2
        assert len(names_of(data, "train")) == 3
        assert names_of(data, "test") == TRAIN

    def test_it_is_asked_for(self, one):
        for split in ("train", "val", "test"):
            with pytest.raises(AttnlabError, match=r"no '\{split\}' in data\.images.*--data\.val_share"):
                one().items(split)
