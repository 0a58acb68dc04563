from __future__ import annotations

from pathlib import Path

import pytest

from attnlab.data import (
    ShapesClassificationDataModule,
    ShapesDetectionDataModule,
    ShapesSegmentationDataModule,
)
from attnlab.errors import AttnlabError

SHAPES = {
    ShapesSegmentationDataModule: "VOCSegmentationDataModule",
    ShapesClassificationDataModule: "ImageFolderDataModule",
    ShapesDetectionDataModule: "COCODetectionDataModule",
}


@pytest.mark.parametrize("kind", SHAPES)
class TestDrawnIntoWhoseFolder:
    def make(self, kind, root: Path):
        return kind(str(root), num_train=6, num_val=6, image_size=32)

    def test_ones_own_is_refused_and_left_alone(self, kind, tmp_path):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos/a.jpg").write_bytes(b"x")
        (tmp_path / "0123456789ab").mkdir()
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(AttnlabError, match=rf"contains 0123456789ab, photos and.*{SHAPES[kind]}"):
            self.make(kind, tmp_path).prepare_data()
        for root in (tmp_path / "photos/a.jpg", tmp_path / "photos/a.jpg/below"):
            with pytest.raises(AttnlabError, match=rf"a\.jpg' is a file.*{SHAPES[kind]}"):
                self.make(kind, root).prepare_data()
        assert sorted(tmp_path.rglob("*")) == before

    def test_new_and_empty_roots_are_marked(self, kind, tmp_path):
        empty = tmp_path / "empty"
        empty.mkdir()
        for name in (".DS_Store", ".gitkeep", "README.md"):
            (empty / name).write_bytes(b"")
        for root in (tmp_path / "new/one", empty):
            data = self.make(kind, root)
            data.prepare_data()
            data.setup("validate")
            assert (root / ".attnlab-shapes").is_file()

    def test_roots_of_earlier_versions_are_known(self, kind, tmp_path):
        self.make(kind, tmp_path).prepare_data()
        (tmp_path / ".attnlab-shapes").unlink()
        kind(str(tmp_path), num_train=7, num_val=6, image_size=32).prepare_data()
        assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2
        # A stamp of something else under such a name is nobody's proof.
        for path in tmp_path.iterdir():
            (path / "scenes.json").write_text("{}")
        with pytest.raises(AttnlabError, match="not made by attnlab"):
            self.make(kind, tmp_path).prepare_data()
