from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnlab.data import MaskFolderDataModule
from attnlab.data.segmentation.coded_masks import CodedMaskReader, read_colours
from attnlab.errors import AttnlabError
from tests.data.segmentation.conftest import COLOURED, NAMES, RGB


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


class TestMasks:
    def test_indices(self, mask):
        assert reader()(mask([[0, 1], [2, 255]])).tolist() == [[0, 1], [2, 255]]
        with pytest.raises(AttnlabError, match=r"m\.png' has the value 3 in 1 pixels, .* 0\.\.2 and 255 are"):
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
        with pytest.raises(AttnlabError, match="has the value 300"):
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
        with pytest.raises(AttnlabError, match=r"has the value 127.*interpolated"):
            read(mask([[0, 127], [255, 0]], mode))

    def test_black_and_white_of_16_bits_or_with_a_border(self, mask):
        read = reader(class_names=NAMES, binary=True, ignore=[128])
        assert read(mask(np.array([[0, 65535]], np.uint16))).tolist() == [[0, 1]]
        assert read(mask([[0, 128, 255]])).tolist() == [[0, 255, 1]]
        with pytest.raises(
            AttnlabError, match=r"not black and white.*colours \(10, 20, 30\), \(30, 20, 10\)\."
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
            AttnlabError, match=r"m\.png' has the colour \(30, 20, 10\) in 1 pixels, which belong to no"
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
            ("a,0,0,0\na,0,0,1\n", "has 'a' twice, again in line 2"),
            ("a,0,0,256\n", r"the colour of 'a' is \[0, 0, 256\]"),
        ],
    )
    def test_tables_that_are_none(self, tmp_path, text, message):
        (tmp_path / "colours.csv").write_text(text)
        with pytest.raises(AttnlabError, match=message):
            MaskFolderDataModule(str(tmp_path), colours="colours.csv")

    def test_what_is_no_mask(self, mask, tmp_path):
        for content, message in ((b"nothing", "not an image"), (b"", "not an image")):
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
            with pytest.raises(AttnlabError, match=r"lossy\.png' is a JPEG.*Save masks as PNG"):
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
