from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from attnlab.data import VOCDetectionDataModule, YOLODetectionDataModule
from tests.data.conftest import SHARED, write_yaml
from tests.data.detection.conftest import NAMES, maker_of_yolo, write_small_yolo
from tests.data.detection.tester import DetectionDataModuleTester


class TestYOLO(DetectionDataModuleTester):
    classes: ClassVar = NAMES
    category_ids: ClassVar = [0, 1, 2]
    reads_headers = True

    @pytest.fixture(autouse=True, scope="class")
    def _make(self, request, tmp_path_factory):
        """One folder for all: no test leaves it changed."""
        folder = write_small_yolo(tmp_path_factory.mktemp("bugs"))
        request.cls.make = staticmethod(maker_of_yolo(folder))


def write_as_yolo(voc: Path, names: Sequence[str], root: Path, classes: Sequence[str]) -> None:
    """Pascal VOC's boxes as its usual converters write them, with all digits."""
    import xml.etree.ElementTree as ET

    for folder in ("images", "labels"):
        (root / folder / "val").mkdir(parents=True)
    for name in names:
        shutil.copy(voc / f"JPEGImages/{name}.jpg", root / "images/val")
        tree = ET.parse(voc / f"Annotations/{name}.xml")
        width, height = (int(tree.findtext(f"size/{side}")) for side in ("width", "height"))
        lines = []
        for entry in tree.iter("object"):
            x0, y0, x1, y1 = (float(entry.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
            x0, y0 = x0 - 1, y0 - 1
            shares = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            lines.append(" ".join(map(repr, (classes.index(entry.findtext("name")), *shares))))
        (root / f"labels/val/{name}.txt").write_text("\n".join(lines))
    write_yaml(root / "data.yaml", train="images/val", val="images/val", names=list(classes))


@pytest.mark.real_data
@pytest.mark.usefixtures("shared_data")
def test_real_images_have_the_boxes_of_pascal_voc(tmp_path):
    voc = VOCDetectionDataModule(str(SHARED), num_workers=0)
    given = voc.items("val")
    write_as_yolo(SHARED / "VOCdevkit/VOC2012", list(given.names)[:40], tmp_path / "y", voc.class_names)
    data = YOLODetectionDataModule(str(tmp_path / "y"), check="full", num_workers=0)
    data.setup("validate")
    found = data.items("val")
    expected = {Path(given.paths[k]).name: k for k in range(len(given))}
    assert len(found) == 40
    for k, name in enumerate(found.names):
        theirs, ours = given.objects(expected[name]), found.objects(k)
        assert np.array_equal(found.sizes[k], given.sizes[expected[name]])
        assert np.array_equal(found.labels[ours], given.labels[theirs])
        assert np.array_equal(found.boxes[ours], given.boxes[theirs])
