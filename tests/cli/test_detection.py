"""The detection task through the command line: the whole way, bad input, several processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from tests.cli.conftest import Outcome, checkpoint, csv_logger, scalars

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Options of a run that takes seconds."""
    return [
        "--task=detection",
        "--model.network=yolox_nano",
        "--model.network_options.size=64",
        "--model.attention=ela_t",
        f"--data.root={tmp_path / 'shapes'}",
        "--data.num_train=8",
        "--data.num_val=5",
        "--data.image_size=64",
        "--data.batch_size=4",
        "--data.num_workers=0",
        "--trainer.max_epochs=1",
        *QUIET,
    ]


class TestOneRun:
    def test_the_whole_way(self, run, small, tmp_path):
        outcome = run("fit", *small)
        assert outcome.status == 0, outcome.err
        assert "best val/AP" in outcome.out
        assert "ela_t at 7 sites" in outcome.out
        pictures = tmp_path / "lightning_logs/version_0/pictures"
        assert {"val.png", "val_precision_recall.png"} <= {path.name for path in pictures.iterdir()}

        outcome = run("fit", *small, "--ckpt_path=last", "--trainer.max_epochs=2")
        assert outcome.status == 0, outcome.err
        assert torch.load(checkpoint(tmp_path), weights_only=True)["epoch"] == 1

        # From here on the checkpoint alone knows task, network, attention and data.
        outcome = run("test", "--ckpt_path=best", "--model.network_options.score_threshold=0", *QUIET)
        assert outcome.status == 0, outcome.err
        assert "test VOC AP50" in outcome.out
        results = next((tmp_path / "lightning_logs").glob("version_*/detections_test.json"))
        assert {"image_id", "category_id", "bbox", "score"} == set(json.loads(results.read_text())[0])

        Image.fromarray(np.zeros((70, 50, 3), np.uint8)).save(tmp_path / "photo.png")
        outcome = run("predict", "--ckpt_path=last", "--data.predict_images=photo.png", *QUIET)
        assert outcome.status == 0, outcome.err
        found = COCO(tmp_path / "predictions/predictions.json")
        assert [(i["width"], i["height"]) for i in found.imgs.values()] == [(50, 70)]
        assert [category["name"] for category in found.cats.values()][:2] == ["disc", "ring"]

    def test_all_options_have_a_help_text(self, run):
        outcome = run("fit", "--task=detection", "--help")
        assert outcome.status == 0
        assert "--model.network_options" in outcome.out
        assert "--data=COCODetectionDataModule" in outcome.out


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Six noisy pictures and their json, in COCO's layout."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        images, annotations = [], []
        for k in range(6):
            name = f"{k:03}.jpg"
            Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(
                root / f"{split}2017" / name
            )
            images.append({"id": 10 + k, "file_name": name, "width": 80, "height": 60})
            box = {"bbox": [5, 6, 30, 40], "area": 1200, "iscrowd": 0}
            annotations.append({"id": k + 1, "image_id": 10 + k, "category_id": 3 if k % 2 else 7, **box})
        write(root, split, {"images": images, "annotations": annotations, "categories": CATEGORIES})
    return root


CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def write(root: Path, split: str, content: dict) -> None:
    (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))


def read(root: Path, split: str) -> dict:
    content: dict = json.loads((root / f"annotations/instances_{split}2017.json").read_text())
    return content


@pytest.fixture
def small_coco(coco: Path) -> list[str]:
    return [
        "--task=detection",
        "--model.network=yolox_nano",
        "--model.network_options.size=64",
        "--data=COCODetectionDataModule",
        f"--data.root={coco}",
        "--data.batch_size=3",
        "--data.num_workers=0",
        "--trainer.max_epochs=1",
        *QUIET,
    ]


class TestBadInput:
    def refused(self, outcome: Outcome, tmp_path: Path, *parts: str) -> None:
        assert outcome.status == 2, outcome.out[-1500:] + outcome.err[-1500:]
        assert "Traceback" not in outcome.err
        assert outcome.err.count("error: ") == 1
        assert not list(tmp_path.rglob("*.ckpt"))
        for part in parts:
            assert part in outcome.err

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            (lambda c: c["images"][0].update(file_name="gone.jpg"), ["gone.jpg"]),
            (lambda c: c["images"].append(dict(c["images"][0])), ["10"]),
            (lambda c: c["annotations"].append(dict(c["annotations"][0])), ["1"]),
            (lambda c: c["annotations"][0].update(category_id=99), ["99"]),
            (lambda c: c["annotations"][0].update(image_id=999), ["999"]),
            (lambda c: c["annotations"][0].update(bbox=[1, 2, "x", 4]), ["bbox"]),
            (lambda c: c["annotations"].clear(), ["nothing to train on"]),
            (lambda c: c.pop("categories"), ["categories"]),
        ],
        ids=["file", "image twice", "box twice", "category", "image", "no number", "empty", "no categories"],
    )
    def test_a_json_that_is_wrong(self, run, small_coco, coco, tmp_path, change, parts):
        content = read(coco, "train")
        change(content)
        write(coco, "train", content)
        self.refused(run("fit", *small_coco), tmp_path, *parts)

    def test_no_json(self, run, small_coco, coco, tmp_path):
        (coco / "annotations/instances_val2017.json").write_text('{"images": [')
        self.refused(run("fit", *small_coco), tmp_path, "instances_val2017.json")

    def test_boxes_without_area_are_dropped_with_a_count(self, run, small_coco, coco):
        content = read(coco, "train")
        content["annotations"][0]["bbox"] = [5, 5, 0, 10]
        content["annotations"][1]["bbox"] = [200, 5, 10, 10]
        write(coco, "train", content)
        with pytest.warns(UserWarning, match="2 "):
            outcome = run("fit", *small_coco)
        assert outcome.status == 0, outcome.err

    def test_a_loss_that_is_no_number(self, run, small_coco, tmp_path):
        outcome = run("fit", *small_coco, "--model.optimizer=SGD", "--model.optimizer.lr=1e30")
        if outcome.status == 0:  # The only steps of one epoch may still be numbers.
            outcome = run(
                "fit",
                *small_coco,
                "--model.optimizer=SGD",
                "--model.optimizer.lr=1e30",
                "--trainer.max_epochs=3",
            )
        assert outcome.status == 2, outcome.err
        assert ".jpg" in outcome.err
        assert "--model.optimizer.lr" in outcome.err

    def test_a_long_thin_picture(self, run, small_coco, coco):
        Image.fromarray(np.zeros((20, 4000, 3), np.uint8)).save(coco / "val2017/000.jpg")
        content = read(coco, "val")
        content["images"][0].update(width=4000, height=20)
        content["annotations"][0]["bbox"] = [100, 2, 3000, 15]
        write(coco, "val", content)
        outcome = run("fit", *small_coco)
        assert outcome.status == 0, outcome.err


def test_a_split_without_annotations_gives_the_submission(run, small_coco, coco, tmp_path):
    assert run("fit", *small_coco).status == 0
    content = read(coco, "val")
    del content["annotations"]
    (coco / "annotations/image_info_test-dev2017.json").write_text(json.dumps(content))
    unlabelled = [
        "--data.test_annotations=annotations/image_info_test-dev2017.json",
        "--data.test_images=val2017",
    ]
    low = "--model.network_options.score_threshold=0"
    outcome = run("test", *small_coco, *unlabelled, low, f"--ckpt_path={checkpoint(tmp_path)}")
    assert outcome.status == 0, outcome.err
    assert "no annotations" in outcome.out
    path = next((tmp_path / "lightning_logs").glob("version_*/detections_test.json"))
    detections = json.loads(path.read_text())
    assert {found["category_id"] for found in detections} <= {3, 7}
    assert {found["image_id"] for found in detections} == set(range(10, 16))


def test_two_processes_train_one_network_and_score_as_one(run, launch, small, tmp_path):
    """Five images over two processes, so that one has a filler."""
    low = "--model.network_options.score_threshold=0"
    launch(2, "fit", *small, "--data.batch_size=2")
    assert torch.load(checkpoint(tmp_path), weights_only=True)["global_step"] == 2  # 8 images, 4 a step
    given = [*small, low, f"--ckpt_path={checkpoint(tmp_path)}"]
    assert run("validate", *given, *csv_logger("one")).status == 0
    launch(2, "validate", *given, *csv_logger("many"))
    one, many = scalars(tmp_path / "logs/one"), scalars(tmp_path / "logs/many")
    assert {"val/AP", "val/VOC_AP50"} <= set(one)
    scored = {key: value for key, value in one.items() if key.startswith("val/")}
    assert {key: many[key] for key in scored} == scored
