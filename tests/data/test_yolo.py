from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

from attnlab.data import VOCDetectionDataModule, YOLODetectionDataModule
from attnlab.errors import AttnlabError
from tests.data.conftest import SHARED, shared_data  # noqa: F401 (a fixture)
from tests.data.detection_tester import DetectionDataModuleTester

NAMES = ["ant", "bee", "cat"]
Files = dict[str, str | None]
"""Lines of labels by image; None for an image without a file of them."""


def write_images(folder: Path, names: Sequence[str], size: tuple[int, int] = (40, 60)) -> None:
    """Noise of (height, width), two pixels narrower and three higher from one to the next."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size[0] + 3 * k, size[1] - 2 * k, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write_split(images: Path, labels: Path, files: Files) -> None:
    write_images(images, list(files))
    for name, text in files.items():
        if text is not None:
            path = labels / Path(name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


TRAIN: Files = {f"t{k}.jpg": f"{k % 3} 0.5 0.5 0.5 0.25\n1 0.25 0.5 0.25 0.5\n" for k in range(7)}
VAL: Files = {"v0.jpg": "2 0.5 0.5 1 1\n", "v1.jpg": "", "v2.png": None, "v3.jpg": "0 0.3 0.4 0.2 0.1\n"}


def write_yaml(file: Path, /, **content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not ...}))


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Ultralytics' layout: images/train beside labels/train. Of the validation images two have objects."""
    root = tmp_path / "bugs"
    for split, files in (("train", TRAIN), ("val", VAL)):
        write_split(root / "images" / split, root / "labels" / split, files)
    write_yaml(root / "data.yaml", path=".", train="images/train", val="images/val", names=NAMES, nc=3)
    return root


@pytest.fixture
def make(yolo: Path) -> Callable[..., YOLODetectionDataModule]:
    defaults = {"root": str(yolo), "batch_size": 4, "num_workers": 0}
    return lambda **options: YOLODetectionDataModule(**{**defaults, **options})


class TestYOLO(DetectionDataModuleTester):
    classes: ClassVar = NAMES
    category_ids: ClassVar = [0, 1, 2]
    reads_headers = True

    @pytest.fixture(autouse=True)
    def _make(self, make):
        self.make = make


def names_of(data: YOLODetectionDataModule, split: str) -> list[str]:
    return list(data.items(split).names)


def objects(data: YOLODetectionDataModule, split: str = "val") -> dict[str, list]:
    """Label and box of each object, by image."""
    items = data.items(split)
    return {
        items.names[k]: [
            (label, *box)
            for label, box in zip(
                items.labels[items.objects(k)].tolist(), items.boxes[items.objects(k)].tolist(), strict=True
            )
        ]
        for k in range(len(items))
    }


def label(yolo: Path, name: str = "v0") -> Path:
    return yolo / f"labels/val/{name}.txt"


def test_boxes_are_exact(make, yolo):
    rng = np.random.default_rng(3)
    lines, expected = [], []
    for _ in range(50):
        words = [f"{value:.6f}" for value in rng.uniform(0.2, 0.4, 4)]
        x, y, w, h = map(Fraction, words)
        corners = ((x - w / 2) * 60, (y - h / 2) * 40, (x + w / 2) * 60, (y + h / 2) * 40)
        expected.append((1, *(float(np.float32(float(corner))) for corner in corners)))
        lines.append(" ".join(["1", *words]))
    label(yolo).write_text("\n".join(lines))
    assert objects(make())["v0.jpg"] == expected


def test_images_without_objects(make):
    data = make()
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


def test_no_labels_at_all_is_an_error(make, yolo):
    shutil.rmtree(yolo / "labels/val")
    with pytest.raises(AttnlabError, match=r"None of the 4 'val' images has labels.*labels/val/v0\.txt' and"):
        make().setup("validate")


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
def test_lines(make, yolo, line, expected):
    label(yolo).write_text(line, encoding="utf-8")
    assert objects(make())["v0.jpg"] == [pytest.approx(entry, abs=1e-5) for entry in expected]


def test_a_confidence_is_passed_over_with_one_warning(make, yolo):
    label(yolo).write_text("1 0.5 0.5 0.5 0.5 0.93\n0 0.5 0.5 0.5 0.5 0.5\n")
    label(yolo, "v3").write_text("1 0.5 0.5 0.5 0.5 0.1\n")
    data = make()
    with pytest.warns(UserWarning, match="3 lines of labels have a confidence.*in 2 files") as caught:
        data.setup(None)
    assert len([entry for entry in caught if "confidence" in str(entry.message)]) == 1
    assert objects(data)["v0.jpg"] == [(1, 15, 10, 45, 30), (0, 15, 10, 45, 30)]


def test_lines_that_come_twice_count_once_and_keep_their_order(make, yolo):
    two, one = "2 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.5 0.5"
    label(yolo).write_text(f"{two}\n{one}\n2 0.50 .5 0.5 5e-1\n{one}\n")
    data = make()
    with pytest.warns(UserWarning, match="2 lines of labels are the same.*in 1 files"):
        assert objects(data)["v0.jpg"] == [(2, 15, 10, 45, 30), (1, 15, 10, 45, 30)]


def test_keypoints_are_passed_over(make, yolo):
    text = yaml.safe_load((yolo / "data.yaml").read_text())
    write_yaml(yolo / "data.yaml", **text, kpt_shape=[2, 3])
    label(yolo).write_text("1 0.5 0.5 0.5 0.5 0.01 0.01 2 0.99 0.99 2\n")
    assert objects(make())["v0.jpg"] == [(1, 15, 10, 45, 30)]


def test_boxes_without_area_are_dropped_and_counted(make, yolo):
    label(yolo).write_text("1 0.5 0.5 0.5 0\n0 0.5 0.5 0.5 0.5\n1 0 0.5 0 0.5\n")
    data = make()
    with pytest.warns(UserWarning, match=r"2 boxes have no area .*v0\.jpg"):
        data.setup("validate")
    data.setup("test")
    assert data.dropped_boxes == 2
    assert objects(data)["v0.jpg"] == [(0, 15, 10, 45, 30)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 0.5 0.5 0.5 0.5", "is of class 3, but there are 3 names: classes are 0 to 2"),
        ("-1 0.5 0.5 0.5 0.5", "is of class -1"),
        ("0.5 0.5 0.5 0.5 0.5", r"begins with 0\.5, but a class is a whole number"),
        ("ant 0.5 0.5 0.5 0.5", "holds 'ant', which is no number"),
        ("0,0.5,0.5,0.5,0.5", "which is no number"),
        ("0 0.5 0.5 nan 0.5", "holds 'nan', which is no finite number"),
        ("inf 0.5 0.5 0.5 0.5", "holds 'inf', which is no finite number"),
        ("0 30 20 10 10", "holds 30, but places and sizes are shares.*look like pixels"),
        ("0 1 1 30 20 10 10", "holds 30.*look like pixels"),
        ("0 0.5 1.2 0.5 0.5", r"holds 1\.2, but places and sizes are shares of the picture, 0 to 1\. Divide"),
        ("0 0.5 0.5 -0.5 0.5", r"holds -0\.5, but"),
        ("0", "has 0 numbers after the class"),
        ("0 0.5 0.5 0.5", "has 3 numbers after the class"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 7 numbers after the class"),
    ],
)
def test_lines_that_cannot_be_read_are_named(make, yolo, line, message):
    label(yolo).write_text(f"0 0.5 0.5 0.5 0.5\n\n{line}\n")
    with pytest.raises(
        AttnlabError, match=rf"(?s)1 of 4 files of the 'val'.*labels/val/v0\.txt', line 3 .*{message}"
    ):
        make().setup("validate")
    data = make(on_bad_image="skip", check="quick")
    with pytest.warns(UserWarning, match="line 3"):
        data.setup("validate")
    assert data.skipped == ["v0.jpg"]
    assert len(data.dataset("val")) == 3


def test_labels_in_latin_1_are_a_problem_of_their_image(make, yolo):
    label(yolo).write_bytes("0 0.5 0.5 0.5 0.5 # käfer".encode("latin-1"))
    with pytest.raises(AttnlabError, match=r"1 of 4 .*"):
        make().setup("validate")


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_images_that_exif_turns_are_refused_if_there_are_boxes(make, yolo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("v0", "v1"):
        Image.new("RGB", (60, 40)).save(yolo / f"images/val/{name}.jpg", exif=exif)
    with pytest.raises(
        AttnlabError, match=rf"(?s)1 of 4 .*v0\.jpg' is stored turned .*orientation, {orientation}, says"
    ):
        make().setup("validate")
    exif[0x0112] = 1
    Image.new("RGB", (60, 40)).save(yolo / "images/val/v0.jpg", exif=exif)
    make(check="full").setup("validate")


def test_an_image_that_is_none_is_named(make, yolo):
    (yolo / "images/val/v3.jpg").write_bytes(b"no picture")
    for check in ("quick", "full", "none"):
        with pytest.raises(AttnlabError, match=r"(?s)1 of 4 .*size of the image '.*v3\.jpg'"):
            make(check=check).setup("validate")


class TestWhereThingsAre:
    def test_test_is_val_or_its_own(self, make, yolo):
        assert names_of(make(), "test") == names_of(make(), "val") == list(VAL)
        write_yaml(
            yolo / "data.yaml", train="images/train", val="images/val", test="images/train", names=NAMES
        )
        assert names_of(make(), "test") == list(TRAIN)
        write_yaml(yolo / "data.yaml", train="images/train", val="images/val", test=None, names=NAMES)
        assert names_of(make(), "test") == list(VAL)

    def test_no_val_is_an_error_that_says_what_is_there(self, make, yolo):
        write_yaml(yolo / "data.yaml", train="images/train", names=NAMES)
        data = make()
        with pytest.raises(AttnlabError, match=r"'val' split are\. Add a line 'val: .*data\.yaml, images/"):
            data.setup("fit")

    def test_roboflow(self, tmp_path):
        root = tmp_path / "export"
        for folder, files in (("train", TRAIN), ("valid", VAL)):
            write_split(root / folder / "images", root / folder / "labels", files)
        (root / "README.roboflow.txt").write_text("exported")
        write_yaml(
            root / "data.yaml",
            train="../train/images",
            val="../valid/images",
            test="../test/images",
            names=NAMES,
            nc=3,
            roboflow={"license": "CC"},
        )
        data = YOLODetectionDataModule(str(root))
        data.setup("fit")
        assert names_of(data, "train") == list(TRAIN)
        assert names_of(data, "val") == list(VAL)
        # It is named, and there is none.
        with pytest.raises(AttnlabError, match=r"'test' is '\.\./test/images', and there is no such folder"):
            data.setup("test")

    @pytest.mark.parametrize("key", ["val", "valid", "validation"])
    @pytest.mark.parametrize("named", ["val", "valid", "validation"])
    def test_validation_has_many_names(self, make, yolo, key, named):
        (yolo / "images/val").rename(yolo / "images/valid")
        (yolo / "labels/val").rename(yolo / "labels/valid")
        write_yaml(yolo / "data.yaml", train="images/train", names=NAMES, **{key: f"images/{named}"})
        data = make()
        assert names_of(data, "val") == list(VAL)
        assert {name: len(those) for name, those in objects(data).items()}["v0.jpg"] == 1

    def test_two_folders_that_may_be_meant_are_an_error(self, make, yolo):
        for name in ("valid", "dev"):
            shutil.copytree(yolo / "images/val", yolo / "images" / name)
        shutil.rmtree(yolo / "images/val")
        with pytest.raises(AttnlabError, match=r"no folder 'images/val'.*images/valid, .*images/dev may"):
            make().setup("validate")

    def test_labels_beside_the_images(self, tmp_path):
        root = tmp_path / "flat"
        for split, files in (("train", TRAIN), ("val", VAL)):
            write_split(root / split, root / split, files)
        write_yaml(root / "data.yaml", train="train", val="val", names=NAMES)
        data = YOLODetectionDataModule(str(root))
        assert len(objects(data)["v0.jpg"]) == 1
        shutil.rmtree(root / "val")
        write_images(root / "val", ["v0.jpg"])
        with pytest.raises(AttnlabError, match=r"None of the 1 'val' images .*flat/val/v0\.txt'\."):
            data.items("val")

    def test_the_last_folder_called_images_counts(self, tmp_path):
        root = tmp_path / "images" / "set"
        write_split(root / "images/val/deep", root / "labels/val/deep", VAL)
        # Would be taken if the first were replaced, or if it were looked at beside the images, too.
        write_split(root / "images/val/deep", root / "images/val/deep", {"v2.png": "0 0.5 0.5 0.5 0.5\n"})
        write_yaml(root / "data.yaml", val="images/val", names=NAMES)
        data = YOLODetectionDataModule(str(root))
        assert {name: len(those) for name, those in objects(data).items()} == {
            "v0.jpg": 1,
            "v1.jpg": 0,
            "v2.png": 0,
            "v3.jpg": 1,
        }

    def test_pictures_are_found_in_folders_below_and_others_passed_over(self, make, yolo):
        write_split(
            yolo / "images/val", yolo / "labels/val", {"b/x.PNG": "0 0.5 0.5 0.5 0.5", "a/x.jpg": None}
        )
        for name in ("notes.md", ".hidden.jpg", "._v0.jpg"):
            (yolo / "images/val" / name).write_text("no picture")
        assert names_of(make(), "val") == ["a/x.jpg", "b/x.PNG", *VAL]
        assert len(objects(make())["b/x.PNG"]) == 1

    @pytest.mark.parametrize(
        "form", ["./images/val/{}", "images/val/{}", "{root}/images/val/{}", "../bugs/images/val/{}"]
    )
    def test_lists(self, make, yolo, form):
        chosen = ["v3.jpg", "v0.jpg"]
        lines = [form.format(name, root=yolo) for name in chosen]
        (yolo / "some.txt").write_text("\n".join(lines) + "\n\n")
        write_yaml(yolo / "data.yaml", path=str(yolo), train="images/train", val="some.txt", names=NAMES)
        data = make()
        assert names_of(data, "val") == chosen
        assert [len(those) for those in objects(data).values()] == [1, 1]
        data.setup("validate")

    def test_a_list_in_a_folder_of_its_own(self, make, yolo):
        """Its lines are relative to ``path``, if not to the list."""
        (yolo / "lists").mkdir()
        (yolo / "lists/some.txt").write_text(
            "images/val/v3.jpg\nimages\\val\\v0.jpg\ndata/images/val/v2.png\n"
        )
        write_yaml(yolo / "data.yaml", train="images/train", val="lists/some.txt", names=NAMES)
        assert names_of(make(), "val") == ["v3.jpg", "v0.jpg", "v2.png"]

    def test_what_a_list_names_and_is_not_there_is_a_problem(self, make, yolo):
        (yolo / "some.txt").write_text("./images/val/v0.jpg\n./images/val/gone.jpg\n")
        write_yaml(yolo / "data.yaml", train="images/train", val="some.txt", names=NAMES)
        for check in ("quick", "none"):
            with pytest.raises(AttnlabError, match=r"(?s)1 of 2 .*images/val/gone\.jpg' is not there"):
                make(check=check).setup("validate")
        data = make(on_bad_image="skip")
        with pytest.warns(UserWarning, match="gone"):
            data.setup("validate")
        assert len(data.dataset("val")) == 1

    def test_several_folders_and_lists(self, make, yolo):
        (yolo / "some.txt").write_text("./images/val/v3.jpg\n")
        write_yaml(yolo / "data.yaml", train="images/train", val=["images/train", "some.txt"], names=NAMES)
        assert names_of(make(), "val") == [*(f"train/{name}" for name in TRAIN), "val/v3.jpg"]
        write_yaml(yolo / "data.yaml", train="images/train", val=["images/val", "some.txt"], names=NAMES)
        with pytest.raises(AttnlabError, match=r"v3\.jpg' more than once in its 'val'"):
            make().setup("validate")

    @pytest.mark.parametrize(
        ("path", "yaml_at"),
        [
            (".", "data.yaml"),
            (..., "data.yaml"),
            ("bugs", "data.yaml"),  # Relative to Ultralytics' folder of data sets.
            ("../datasets/bugs", "data.yaml"),
            ("bugs", "../bugs.yaml"),
            ("/content/drive/bugs", "data.yaml"),  # Of another machine.
            ("/content/drive/bugs", "../bugs.yaml"),
            ("D:\\data\\bugs", "data.yaml"),
            ("..", "cfg/data.yaml"),
        ],
    )
    def test_path(self, yolo, path, yaml_at):
        (yolo / "data.yaml").unlink()
        write_yaml(yolo / yaml_at, path=path, train="images/train", val="images/val", names=NAMES)
        data = YOLODetectionDataModule(str(yolo), data_yaml=yaml_at)
        assert names_of(data, "train") == list(TRAIN)
        assert len(objects(data)["v0.jpg"]) == 1

    @pytest.mark.parametrize("path", ["/content/drive/bugs", "bugs", "../datasets/bugs"])
    def test_a_copy_does_not_read_the_original(self, yolo, path):
        """The original's folder has the name that ``path`` ends with; the copy lies beside it."""
        write_yaml(yolo / "data.yaml", path=path, train="images/train", val="images/val", names=NAMES)
        copy = yolo.with_name("copy")
        shutil.copytree(yolo, copy)
        items = YOLODetectionDataModule(str(copy)).items("val")
        assert all(Path(place).is_relative_to(copy) for place in items.paths)

    @pytest.mark.parametrize(
        "entry",
        [
            "data/bugs/images/val",
            "/content/bugs/images/val",
            "/images/val",
            "C:\\me\\bugs\\images\\val",
            "images\\val",
            "images/val/",
        ],
    )
    def test_folders_of_another_machine_are_found_again(self, make, yolo, entry):
        write_yaml(yolo / "data.yaml", train="images/train", val=entry, names=NAMES)
        assert names_of(make(), "val") == list(VAL)

    def test_a_folder_that_is_not_there_is_named_with_what_was_tried(self, make, yolo):
        # images/ is there, but is not the validation split's.
        write_yaml(yolo / "data.yaml", train="images/train", val="/other/eval/images", names=NAMES)
        with pytest.raises(AttnlabError, match=r"(?s)'val' is '/other/eval/images'.*bugs/eval/images\n"):
            make().setup("validate")

    def test_a_folder_without_images_says_what_it_holds(self, make, yolo):
        write_yaml(yolo / "data.yaml", train="images/train", val="labels/val", names=NAMES)
        with pytest.raises(AttnlabError, match=r"no image in '.*labels/val'.*v0\.txt, v1\.txt"):
            make().setup("validate")

    def test_the_only_yaml_is_taken(self, make, yolo):
        (yolo / "data.yaml").rename(yolo / "bugs.yml")
        assert make().class_names == NAMES
        (yolo / "hyp.yaml").write_text("lr0: 0.01")
        with pytest.raises(AttnlabError, match=r"bugs\.yml, hyp\.yaml may be meant.*--data\.data_yaml"):
            make().setup("fit")
        assert make(data_yaml="bugs.yml").class_names == NAMES
        assert make(root="nowhere", data_yaml=str(yolo / "bugs.yml")).class_names == NAMES

    def test_no_yaml_says_what_is_there(self, make, yolo, tmp_path):
        (yolo / "data.yaml").rename(tmp_path / "x.yaml")
        with pytest.raises(AttnlabError, match=r"no data\.yaml in .*It holds: images/, labels/\. Set --data"):
            make().setup("fit")
        with pytest.raises(AttnlabError, match=r"There is no '.*y\.yaml', which data\.data_yaml names"):
            make(data_yaml="y.yaml").setup("fit")
        with pytest.raises(AttnlabError, match="There is no folder 'nowhere' either"):
            make(root="nowhere").setup("fit")
        with pytest.raises(AttnlabError, match=r"is the file .*--data\.data_yaml x\.yaml"):
            make(root=str(tmp_path / "x.yaml")).setup("fit")

    def test_a_relative_root(self, make, yolo, monkeypatch):
        monkeypatch.chdir(yolo)
        (yolo / "some.txt").write_text(f"{yolo}/images/val/v0.jpg\n./images/val/v3.jpg\n")
        write_yaml(yolo / "data.yaml", train="images/train", val="some.txt", names=NAMES)
        for root in (".", f"..{os.sep}bugs"):
            data = make(root=root)
            data.setup("fit")
            assert len(data.dataset("val")) == 2

    def test_validating_on_training_images_is_said(self, make, yolo):
        write_yaml(yolo / "data.yaml", train="images/train", val="images/train", names=NAMES)
        with pytest.warns(UserWarning, match="7 of the 7 'val' images are trained on too"):
            make().setup("fit")


class TestNames:
    @pytest.mark.parametrize("names", [NAMES, dict(enumerate(NAMES)), {2: "cat", 0: "ant", 1: "bee"}])
    def test_lists_and_numbers(self, make, yolo, names):
        write_yaml(yolo / "data.yaml", train="images/train", val="images/val", names=names)
        assert make().class_names == NAMES

    def test_numbers_as_text_and_names_as_numbers(self, make, yolo):
        (yolo / "data.yaml").write_text("val: images/val\nnames: {'1': 8, '0': 9}\n")
        assert make().class_names == ["9", "8"]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("names: {0: ant, 2: cat}", "has the numbers 0, 2; they must be 0 to 1"),
            ("names: {1: ant, 2: cat}", "has the numbers 1, 2; they must be 0 to 1"),
            ("names: [ant, no]", "class 1 is no text: YAML reads it as False"),
            ("names: [ant, ant]", r"(?s)'names' in '.*data\.yaml' must name each class once"),
            ("names: []", "must name at least one class"),
            ("names: ant", "'names' is 'ant'; it must be a list"),
            ("names: [ant, bee]\nnc: 3", r"'nc' is 3, but 'names' has 2 \(ant, bee\)"),
            ("nc: 3", r"no 'names' of classes.*--data\.class_names"),
            ("names: [ant]\nkpt_shape: 17", "'kpt_shape' is 17"),
            ("nc: many", "'nc' is 'many', which is no number"),
            ("[1, 2]", r"is no data\.yaml: it has no keys"),
            ("names: [ant", "is no YAML"),
            ("names: [ant, bee, cat]\npath: 3", "'path' is 3"),
            ("names: [ant, bee, cat]\nval: 3", "'val' is 3; it must be a folder"),
            ("names: [ant, bee, cat]\nval: data.yaml", "is no folder, and no text file"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, make, yolo, lines, message):
        val = "" if "val:" in lines or lines.startswith("[") else "val: images/val\n"
        (yolo / "data.yaml").write_text(f"{val}{lines}\n")
        with pytest.raises(AttnlabError, match=message):
            make().setup("validate")

    def test_class_names(self, make, yolo):
        assert make().remembered() == {"class_names": NAMES}
        make(class_names=NAMES).setup("validate")
        for names, message in (
            (["ant", "bee"], "Not expected: cat"),
            (["ant", "cat", "bee"], "The order differs"),
            (["ant", "bee", "Cat"], "Missing: Cat"),
        ):
            with pytest.raises(AttnlabError, match=rf"other names than data\.class_names.*{message}"):
                make(class_names=names).setup("validate")
        with pytest.raises(AttnlabError, match=r"data\.class_names must name each class once"):
            make(class_names=["ant", "ant"])
        write_yaml(yolo / "data.yaml", val="images/val", nc=3)
        make(class_names=NAMES).setup("validate")
        with pytest.raises(AttnlabError, match=r"'nc' is 3, but data\.class_names has 2: ant, bee"):
            make(class_names=["ant", "bee"]).setup("validate")


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
