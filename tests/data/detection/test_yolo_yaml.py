from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from attnlab.data import YOLODetectionDataModule
from attnlab.errors import AttnlabError
from tests.data.conftest import write_images, write_split, write_yaml
from tests.data.detection.conftest import NAMES, TRAIN, VAL, names_of, objects


class TestWhereThingsAre:
    def test_test_is_val_or_its_own(self, make_yolo, yolo):
        assert names_of(make_yolo(), "test") == names_of(make_yolo(), "val") == list(VAL)
        write_yaml(
            yolo / "data.yaml", train="images/train", val="images/val", test="images/train", names=NAMES
        )
        assert names_of(make_yolo(), "test") == list(TRAIN)
        write_yaml(yolo / "data.yaml", train="images/train", val="images/val", test=None, names=NAMES)
        assert names_of(make_yolo(), "test") == list(VAL)

    def test_no_val_is_an_error_that_says_what_is_there(self, make_yolo, yolo):
        write_yaml(yolo / "data.yaml", train="images/train", names=NAMES)
        data = make_yolo()
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
        with pytest.raises(AttnlabError, match=r"'test' is '\.\./test/images', but there is no such folder"):
            data.setup("test")

    @pytest.mark.parametrize("key", ["val", "valid", "validation"])
    @pytest.mark.parametrize("named", ["val", "valid", "validation"])
    def test_validation_has_many_names(self, make_yolo, yolo, key, named):
        (yolo / "images/val").rename(yolo / "images/valid")
        (yolo / "labels/val").rename(yolo / "labels/valid")
        write_yaml(yolo / "data.yaml", train="images/train", names=NAMES, **{key: f"images/{named}"})
        data = make_yolo()
        assert names_of(data, "val") == list(VAL)
        assert {name: len(those) for name, those in objects(data).items()}["v0.jpg"] == 1

    def test_two_folders_that_may_be_meant_are_an_error(self, make_yolo, yolo):
        for name in ("valid", "dev"):
            shutil.copytree(yolo / "images/val", yolo / "images" / name)
        shutil.rmtree(yolo / "images/val")
        with pytest.raises(
            AttnlabError, match=r"names a folder 'images/val'.*images/valid, .*images/dev may"
        ):
            make_yolo().setup("validate")

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

    def test_pictures_are_found_in_folders_below_and_others_passed_over(self, make_yolo, yolo):
        write_split(
            yolo / "images/val", yolo / "labels/val", {"b/x.PNG": "0 0.5 0.5 0.5 0.5", "a/x.jpg": None}
        )
        for name in ("notes.md", ".hidden.jpg", "._v0.jpg"):
            (yolo / "images/val" / name).write_text("no picture")
        assert names_of(make_yolo(), "val") == ["a/x.jpg", "b/x.PNG", *VAL]
        assert len(objects(make_yolo())["b/x.PNG"]) == 1

    @pytest.mark.parametrize(
        "form", ["./images/val/{}", "images/val/{}", "{root}/images/val/{}", "../bugs/images/val/{}"]
    )
    def test_lists(self, make_yolo, yolo, form):
        chosen = ["v3.jpg", "v0.jpg"]
        lines = [form.format(name, root=yolo) for name in chosen]
        (yolo / "some.txt").write_text("\n".join(lines) + "\n\n")
        write_yaml(yolo / "data.yaml", path=str(yolo), train="images/train", val="some.txt", names=NAMES)
        data = make_yolo()
        assert names_of(data, "val") == chosen
        assert [len(those) for those in objects(data).values()] == [1, 1]
        data.setup("validate")

    def test_a_list_in_a_folder_of_its_own(self, make_yolo, yolo):
        """Its lines are relative to ``path``, if not to the list."""
        (yolo / "lists").mkdir()
        (yolo / "lists/some.txt").write_text(
            "images/val/v3.jpg\nimages\\val\\v0.jpg\ndata/images/val/v2.png\n"
        )
        write_yaml(yolo / "data.yaml", train="images/train", val="lists/some.txt", names=NAMES)
        assert names_of(make_yolo(), "val") == ["v3.jpg", "v0.jpg", "v2.png"]

    def test_what_a_list_names_and_is_not_there_is_a_problem(self, make_yolo, yolo):
        (yolo / "some.txt").write_text("./images/val/v0.jpg\n./images/val/gone.jpg\n")
        write_yaml(yolo / "data.yaml", train="images/train", val="some.txt", names=NAMES)
        for check in ("quick", "none"):
            with pytest.raises(AttnlabError, match=r"(?s)1 of 2 .*images/val/gone\.jpg' does not exist"):
                make_yolo(check=check).setup("validate")
        data = make_yolo(on_bad_image="skip")
        with pytest.warns(UserWarning, match="gone"):
            data.setup("validate")
        assert len(data.dataset("val")) == 1

    def test_several_folders_and_lists(self, make_yolo, yolo):
        (yolo / "some.txt").write_text("./images/val/v3.jpg\n")
        write_yaml(yolo / "data.yaml", train="images/train", val=["images/train", "some.txt"], names=NAMES)
        assert names_of(make_yolo(), "val") == [*(f"train/{name}" for name in TRAIN), "val/v3.jpg"]
        write_yaml(yolo / "data.yaml", train="images/train", val=["images/val", "some.txt"], names=NAMES)
        with pytest.raises(AttnlabError, match=r"v3\.jpg' more than once in 'val'"):
            make_yolo().setup("validate")

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
    def test_folders_of_another_machine_are_found_again(self, make_yolo, yolo, entry):
        write_yaml(yolo / "data.yaml", train="images/train", val=entry, names=NAMES)
        assert names_of(make_yolo(), "val") == list(VAL)

    def test_a_folder_that_is_not_there_is_named_with_what_was_tried(self, make_yolo, yolo):
        # images/ is there, but is not the validation split's.
        write_yaml(yolo / "data.yaml", train="images/train", val="/other/eval/images", names=NAMES)
        with pytest.raises(AttnlabError, match=r"(?s)'val' is '/other/eval/images'.*bugs/eval/images\n"):
            make_yolo().setup("validate")

    def test_a_folder_without_images_says_what_it_holds(self, make_yolo, yolo):
        write_yaml(yolo / "data.yaml", train="images/train", val="labels/val", names=NAMES)
        with pytest.raises(AttnlabError, match=r"no images in '.*labels/val'.*v0\.txt, v1\.txt"):
            make_yolo().setup("validate")

    def test_the_only_yaml_is_taken(self, make_yolo, yolo):
        (yolo / "data.yaml").rename(yolo / "bugs.yml")
        assert make_yolo().class_names == NAMES
        (yolo / "hyp.yaml").write_text("lr0: 0.01")
        with pytest.raises(AttnlabError, match=r"bugs\.yml, hyp\.yaml may be meant.*--data\.data_yaml"):
            make_yolo().setup("fit")
        assert make_yolo(data_yaml="bugs.yml").class_names == NAMES
        assert make_yolo(root="nowhere", data_yaml=str(yolo / "bugs.yml")).class_names == NAMES

    def test_no_yaml_says_what_is_there(self, make_yolo, yolo, tmp_path):
        (yolo / "data.yaml").rename(tmp_path / "x.yaml")
        with pytest.raises(
            AttnlabError, match=r"no data\.yaml in .*It contains: images/, labels/\. Set --data"
        ):
            make_yolo().setup("fit")
        with pytest.raises(AttnlabError, match=r"There is no '.*y\.yaml' \(data\.data_yaml\)"):
            make_yolo(data_yaml="y.yaml").setup("fit")
        with pytest.raises(AttnlabError, match="There is no folder 'nowhere' either"):
            make_yolo(root="nowhere").setup("fit")
        with pytest.raises(AttnlabError, match=r"is the file .*--data\.data_yaml x\.yaml"):
            make_yolo(root=str(tmp_path / "x.yaml")).setup("fit")

    def test_a_relative_root(self, make_yolo, yolo, monkeypatch):
        monkeypatch.chdir(yolo)
        (yolo / "some.txt").write_text(f"{yolo}/images/val/v0.jpg\n./images/val/v3.jpg\n")
        write_yaml(yolo / "data.yaml", train="images/train", val="some.txt", names=NAMES)
        for root in (".", f"..{os.sep}bugs"):
            data = make_yolo(root=root)
            data.setup("fit")
            assert len(data.dataset("val")) == 2

    def test_validating_on_training_images_is_said(self, make_yolo, yolo):
        write_yaml(yolo / "data.yaml", train="images/train", val="images/train", names=NAMES)
        with pytest.warns(UserWarning, match="7 of the 7 'val' images are also in the training split"):
            make_yolo().setup("fit")


class TestNames:
    @pytest.mark.parametrize("names", [NAMES, dict(enumerate(NAMES)), {2: "cat", 0: "ant", 1: "bee"}])
    def test_lists_and_numbers(self, make_yolo, yolo, names):
        write_yaml(yolo / "data.yaml", train="images/train", val="images/val", names=names)
        assert make_yolo().class_names == NAMES

    def test_numbers_as_text_and_names_as_numbers(self, make_yolo, yolo):
        (yolo / "data.yaml").write_text("val: images/val\nnames: {'1': 8, '0': 9}\n")
        assert make_yolo().class_names == ["9", "8"]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("names: {0: ant, 2: cat}", "has the numbers 0, 2; they must be 0 to 1"),
            ("names: {1: ant, 2: cat}", "has the numbers 1, 2; they must be 0 to 1"),
            ("names: [ant, no]", "class 1 is not text: YAML reads it as False"),
            ("names: [ant, ant]", r"(?s)'names' in '.*data\.yaml' must name each class once"),
            ("names: []", "must name at least one class"),
            ("names: ant", "'names' is 'ant'; it must be a list"),
            ("names: [ant, bee]\nnc: 3", r"'nc' is 3, but 'names' has 2 \(ant, bee\)"),
            ("nc: 3", r"no class 'names'.*--data\.class_names"),
            ("names: [ant]\nkpt_shape: 17", "'kpt_shape' is 17"),
            ("nc: many", "'nc' is 'many', which is not a number"),
            ("[1, 2]", r"is not a data\.yaml: it has no keys"),
            ("names: [ant", "is not valid YAML"),
            ("names: [ant, bee, cat]\npath: 3", "'path' is 3"),
            ("names: [ant, bee, cat]\nval: 3", "'val' is 3; it must be a folder"),
            ("names: [ant, bee, cat]\nval: data.yaml", "is neither a folder nor a text file"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, make_yolo, yolo, lines, message):
        val = "" if "val:" in lines or lines.startswith("[") else "val: images/val\n"
        (yolo / "data.yaml").write_text(f"{val}{lines}\n")
        with pytest.raises(AttnlabError, match=message):
            make_yolo().setup("validate")

    def test_class_names(self, make_yolo, yolo):
        assert make_yolo().remembered() == {"class_names": NAMES}
        make_yolo(class_names=NAMES).setup("validate")
        for names, message in (
            (["ant", "bee"], "Not expected: cat"),
            (["ant", "cat", "bee"], "The order differs"),
            (["ant", "bee", "Cat"], "Missing: Cat"),
        ):
            with pytest.raises(AttnlabError, match=rf"differ from data\.class_names.*{message}"):
                make_yolo(class_names=names).setup("validate")
        with pytest.raises(AttnlabError, match=r"data\.class_names must name each class once"):
            make_yolo(class_names=["ant", "ant"])
        write_yaml(yolo / "data.yaml", val="images/val", nc=3)
        make_yolo(class_names=NAMES).setup("validate")
        with pytest.raises(AttnlabError, match=r"'nc' is 3, but data\.class_names has 2: ant, bee"):
            make_yolo(class_names=["ant", "bee"]).setup("validate")
