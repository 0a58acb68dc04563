"""Lists of names in VOC's layout, as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnlab.data import (
    VOCDetectionDataModule,
)
from attnlab.data.vocfolder import VOCFolder
from attnlab.errors import AttnlabError
from tests.data.conftest import VOC_BOXES, silently
from tests.data.segmentation.conftest import voc_data


class TestLists:
    def names(self, folder: Path, lines: str, encoding: str = "utf-8") -> list[str]:
        (folder / "ImageSets/Segmentation/val.txt").write_text(lines, encoding=encoding)
        return VOCFolder(folder).names("val")

    def test_spaces_in_names(self, voc_folder):
        for name in ("my", "my photo 1", "photo"):
            (voc_folder / f"JPEGImages/{name}.jpg").write_bytes(b"")
        assert self.names(voc_folder, "my photo 1\nphoto \n") == ["my photo 1", "photo"]
        assert self.names(voc_folder, "my photo 1.jpg\nt1.png\n") == ["my photo 1", "t1"]
        # Of one that is missing another one is no substitute.
        assert self.names(voc_folder, "my photo 2\nphoto\n") == ["my photo 2", "photo"]
        assert self.names(voc_folder, "photo 1\nmy\n") == ["photo 1", "my"]
        paths = "/JPEGImages/my photo 1.jpg /Masks/my photo 1.png\n"
        assert self.names(voc_folder, paths) == ["my photo 1"]

    def test_lists_of_one_class(self, voc_folder):
        assert self.names(voc_folder, "t0  1\nt1 -1\nt2  0\n") == ["t0", "t1", "t2"]
        assert self.names(voc_folder, "JPEGImages/t0 Masks/t0\nt1\tmask\n") == ["t0", "t1"]

    def test_marks_and_other_encodings(self, voc_folder):
        for encoding in ("utf-8-sig", "utf-16", "utf-32"):
            assert self.names(voc_folder, "blüte\r\nt1\r\n", encoding) == ["blüte", "t1"]
        for encoding in ("latin-1", "utf-16-le"):
            with pytest.raises(AttnlabError, match=r"val\.txt'.*Save it as UTF-8"):
                self.names(voc_folder, "t1\nblüte\n", encoding)

    @pytest.mark.parametrize("name", ["valid.txt", "validation.txt", "val.TXT", "Val.txt"])
    def test_val_called_otherwise(self, voc_folder, name):
        lists = voc_folder / "ImageSets/Segmentation"
        (lists / "val.txt").rename(lists / name)
        (lists / "._val.txt").write_bytes(b"x")
        data = voc_data(voc_folder)
        silently(data)
        assert len(data.datasets["val"]) == 3

    def test_suffixes_in_capitals(self, voc_boxes_folder):
        for kind in ("JPEGImages", "SegmentationClass", "Annotations"):
            for path in (voc_boxes_folder / kind).iterdir():
                path.rename(path.with_suffix(path.suffix.upper()))
        silently(voc_data(voc_boxes_folder))
        names = sorted({name for boxes in VOC_BOXES.values() for name, *_ in boxes})
        silently(VOCDetectionDataModule(str(voc_boxes_folder), class_names=names, num_workers=0))
