from __future__ import annotations

import shutil
from fractions import Fraction

import numpy as np
import pytest
import yaml
from PIL import Image

from attnlab.errors import AttnlabError
from tests.data.conftest import write_yaml
from tests.data.detection.conftest import label, objects


def test_boxes_are_exact(make_yolo, yolo):
    rng = np.random.default_rng(3)
    lines, expected = [], []
    for _ in range(50):
        words = [f"{value:.6f}" for value in rng.uniform(0.2, 0.4, 4)]
        x, y, w, h = map(Fraction, words)
        corners = ((x - w / 2) * 60, (y - h / 2) * 40, (x + w / 2) * 60, (y + h / 2) * 40)
        expected.append((1, *(float(np.float32(float(corner))) for corner in corners)))
        lines.append(" ".join(["1", *words]))
    label(yolo).write_text("\n".join(lines))
    assert objects(make_yolo())["v0.jpg"] == expected


def test_images_without_objects(make_yolo):
    data = make_yolo()
    found = objects(data)
    assert {name: len(those) for name, those in found.items()} == {
        "v0.jpg": 1,
        "v1.jpg": 0,
        "v2.png": 0,
        "v3.jpg": 1,
    }
    # v2 is the third image: 46 pixels high and 56 wide.
    assert data.items("val").sizes.tolist() == [[40, 60], [43, 58], [46, 56], [49, 54]]
    data.setup("validate")
    assert len(data.dataset("val")) == 4


def test_no_labels_at_all_is_an_error(make_yolo, yolo):
    shutil.rmtree(yolo / "labels/val")
    with pytest.raises(AttnlabError, match=r"None of the 4 'val' images has labels.*labels/val/v0\.txt' and"):
        make_yolo().setup("validate")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 0.5 0.5 0.5 0.5", [(1, 15, 10, 45, 30)]),
        ("1.0 0.5\t0.5  0.5 0.5  ", [(1, 15, 10, 45, 30)]),
        # Out of the picture at the left, and at all sides.
        ("0 0 0.5 0.5 0.5", [(0, 0, 10, 15, 30)]),
        ("0 0.5 0.5 1.005 1.005", [(0, 0, 0, 60, 40)]),
        # A triangle, a quadrangle, and a pentagon that is not in order.
        ("2 0.1 0.2 0.5 0.2 0.3 0.9", [(2, 6, 8, 30, 36)]),
        ("2 0.5 0 1 0.5 0.5 1 0 0.5", [(2, 0, 0, 60, 40)]),
        ("2 0.5 0.5 0.25 0.75 0.75 0.25 0.3 0.3 0.4 0.4", [(2, 15, 10, 45, 30)]),
        ("\n\n1 0.5 0.5 0.5 0.5\n\n", [(1, 15, 10, 45, 30)]),
        ("\ufeff1 0.5 0.5 0.5 0.5\r\n", [(1, 15, 10, 45, 30)]),
    ],
)
def test_lines(make_yolo, yolo, line, expected):
    label(yolo).write_text(line, encoding="utf-8")
    assert objects(make_yolo())["v0.jpg"] == [pytest.approx(entry, abs=1e-5) for entry in expected]


def test_a_confidence_is_passed_over_with_one_warning(make_yolo, yolo):
    label(yolo).write_text("1 0.5 0.5 0.5 0.5 0.93\n0 0.5 0.5 0.5 0.5 0.5\n")
    label(yolo, "v3").write_text("1 0.5 0.5 0.5 0.5 0.1\n")
    data = make_yolo()
    with pytest.warns(UserWarning, match="3 label lines in 2 files have a confidence") as caught:
        data.setup(None)
    assert len([entry for entry in caught if "confidence" in str(entry.message)]) == 1
    assert objects(data)["v0.jpg"] == [(1, 15, 10, 45, 30), (0, 15, 10, 45, 30)]


def test_lines_that_come_twice_count_once_and_keep_their_order(make_yolo, yolo):
    two, one = "2 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.5 0.5"
    label(yolo).write_text(f"{two}\n{one}\n2 0.50 .5 0.5 5e-1\n{one}\n")
    data = make_yolo()
    with pytest.warns(UserWarning, match="2 label lines in 1 files repeat"):
        assert objects(data)["v0.jpg"] == [(2, 15, 10, 45, 30), (1, 15, 10, 45, 30)]


def test_keypoints_are_passed_over(make_yolo, yolo):
    text = yaml.safe_load((yolo / "data.yaml").read_text())
    write_yaml(yolo / "data.yaml", **text, kpt_shape=[2, 3])
    label(yolo).write_text("1 0.5 0.5 0.5 0.5 0.01 0.01 2 0.99 0.99 2\n")
    assert objects(make_yolo())["v0.jpg"] == [(1, 15, 10, 45, 30)]


def test_boxes_without_area_are_dropped_and_counted(make_yolo, yolo):
    label(yolo).write_text("1 0.5 0.5 0.5 0\n0 0.5 0.5 0.5 0.5\n1 0 0.5 0 0.5\n")
    data = make_yolo()
    with pytest.warns(UserWarning, match=r"2 boxes in 1 images have no area .*v0\.jpg"):
        data.setup("validate")
    data.setup("test")
    assert data.dropped_boxes == 2
    assert objects(data)["v0.jpg"] == [(0, 15, 10, 45, 30)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 0.5 0.5 0.5 0.5", "has the class 3, but with 3 names, classes are 0 to 2"),
        ("-1 0.5 0.5 0.5 0.5", "has the class -1"),
        ("0.5 0.5 0.5 0.5 0.5", r"starts with 0\.5, but a class is an integer"),
        ("ant 0.5 0.5 0.5 0.5", "contains 'ant', which is not a number"),
        ("0,0.5,0.5,0.5,0.5", "which is not a number"),
        ("0 0.5 0.5 nan 0.5", "contains 'nan', which is not finite"),
        ("inf 0.5 0.5 0.5 0.5", "contains 'inf', which is not finite"),
        ("0 30 20 10 10", "contains 30, but positions and sizes are fractions.*look like pixels"),
        ("0 1 1 30 20 10 10", "contains 30.*look like pixels"),
        (
            "0 0.5 1.2 0.5 0.5",
            r"contains 1\.2, but positions and sizes are fractions of the image, 0 to 1\. Divide",
        ),
        ("0 0.5 0.5 -0.5 0.5", r"contains -0\.5, but"),
        ("0", "has 0 numbers after the class"),
        ("0 0.5 0.5 0.5", "has 3 numbers after the class"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 7 numbers after the class"),
    ],
)
def test_lines_that_cannot_be_read_are_named(make_yolo, yolo, line, message):
    label(yolo).write_text(f"0 0.5 0.5 0.5 0.5\n\n{line}\n")
    with pytest.raises(
        AttnlabError, match=rf"(?s)1 of 4 files of the 'val'.*labels/val/v0\.txt', line 3 .*{message}"
    ):
        make_yolo().setup("validate")
    data = make_yolo(on_bad_image="skip", check="quick")
    with pytest.warns(UserWarning, match="line 3"):
        data.setup("validate")
    assert data.skipped == ["v0.jpg"]
    assert len(data.dataset("val")) == 3


def test_labels_in_latin_1_are_a_problem_of_their_image(make_yolo, yolo):
    label(yolo).write_bytes("0 0.5 0.5 0.5 0.5 # käfer".encode("latin-1"))
    with pytest.raises(AttnlabError, match=r"1 of 4 .*"):
        make_yolo().setup("validate")


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_images_that_exif_turns_are_refused_if_there_are_boxes(make_yolo, yolo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("v0", "v1"):
        Image.new("RGB", (60, 40)).save(yolo / f"images/val/{name}.jpg", exif=exif)
    with pytest.raises(
        AttnlabError, match=rf"(?s)1 of 4 .*v0\.jpg' has the EXIF orientation {orientation}: YOLO"
    ):
        make_yolo().setup("validate")
    exif[0x0112] = 1
    Image.new("RGB", (60, 40)).save(yolo / "images/val/v0.jpg", exif=exif)
    make_yolo(check="full").setup("validate")


def test_an_image_that_is_none_is_named(make_yolo, yolo):
    (yolo / "images/val/v3.jpg").write_bytes(b"no picture")
    for check in ("quick", "full", "none"):
        with pytest.raises(AttnlabError, match=r"(?s)1 of 4 .*size of the image '.*v3\.jpg'"):
            make_yolo(check=check).setup("validate")
