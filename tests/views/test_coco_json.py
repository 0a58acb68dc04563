"""The results file, read by COCO's own tools."""

import contextlib
import io
import json
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from attnlab.callbacks import Records
from attnlab.views.coco_json import ImageDetections
from attnlab.views.detection import DetectionsFile
from tests.views.conftest import shares

CATEGORY_IDS = [1, 3, 90]
IMAGE_IDS = [139, 285, 9, 581929, 42]


def trainer_of(folder, fn=TrainerFn.TESTING, rank=0):
    return SimpleNamespace(
        logger=SimpleNamespace(log_dir=str(folder)) if folder else None,
        datamodule=SimpleNamespace(category_ids=CATEGORY_IDS),
        is_global_zero=rank == 0,
        state=SimpleNamespace(fn=fn),
    )


def found_of(seed, count=4):
    generator = torch.Generator().manual_seed(seed)
    corner, size = (
        torch.rand(count, 2, generator=generator) * 60,
        torch.rand(count, 2, generator=generator) * 40,
    )
    return {
        "boxes": torch.cat([corner, corner + size], 1),
        "scores": torch.rand(count, generator=generator).sort(descending=True).values,
        "labels": torch.randint(0, 3, (count,), generator=generator),
    }


FOUND = [found_of(0), found_of(1), found_of(2, 0), found_of(3, 7), found_of(4)]


@pytest.fixture
def run(processes):
    """Run the callback's hooks as so many processes would."""

    def call(folder, count=1, stage="test", callback=None, annotated=True):
        fn = TrainerFn.TESTING if stage == "test" else TrainerFn.VALIDATING
        hooks = "test" if stage == "test" else "validation"

        def process(rank):
            one, trainer = callback or Records(DetectionsFile()), trainer_of(folder, fn, rank)
            getattr(one, f"on_{hooks}_start")(trainer, None)
            for share in shares(len(IMAGE_IDS), count, rank):
                target = [{"image_id": torch.tensor(IMAGE_IDS[i])} for i, _ in share]
                if annotated:
                    target = [t | {"boxes": torch.zeros(0, 4)} for t in target]
                batch = {"index": torch.tensor([i for i, _ in share]), "target": target}
                found = {"detections": [FOUND[i] if counts else None for i, counts in share]}
                getattr(one, f"on_{hooks}_batch_end")(trainer, None, found, batch, 0)
            getattr(one, f"on_{hooks}_end")(trainer, None)

        processes(count, process)

    return call


def coco_of(folder):
    """A data set with the images and categories that the detections speak of."""
    truth = {
        "info": {},
        "images": [{"id": i, "width": 100, "height": 100, "file_name": f"{i}.jpg"} for i in IMAGE_IDS],
        "categories": [{"id": c, "name": str(c)} for c in CATEGORY_IDS],
        "annotations": [
            {
                "id": 1 + n,
                "image_id": image_id,
                "category_id": CATEGORY_IDS[int(label)],
                "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])],
                "area": float((b[2] - b[0]) * (b[3] - b[1])),
                "iscrowd": 0,
            }
            for n, (image_id, b, label) in enumerate(
                (image_id, b, label)
                for image_id, found in zip(IMAGE_IDS, FOUND, strict=True)
                for b, label in zip(found["boxes"], found["labels"], strict=True)
            )
        ],
    }
    path = folder / "truth.json"
    path.write_text(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_pycocotools_reads_and_scores_it(tmp_path, run, capsys):
    run(tmp_path)
    path = tmp_path / "detections_test.json"
    assert f"19 detections in 5 images are in {path}" in capsys.readouterr().out
    truth = coco_of(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        scores = COCOeval(truth, truth.loadRes(str(path)), "bbox")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    # Each truth is found by the very same box of its class.
    assert scores.stats[0] == pytest.approx(1)


def test_boxes_scores_and_ids_are_as_given(tmp_path, run):
    run(tmp_path, stage="val")
    rows = json.loads((tmp_path / "detections_val.json").read_text())
    expected = [
        (image_id, CATEGORY_IDS[int(label)], box, score)
        for image_id, found in zip(IMAGE_IDS, FOUND, strict=True)
        for box, score, label in zip(
            found["boxes"].tolist(), found["scores"].tolist(), found["labels"], strict=True
        )
    ]
    assert [(row["image_id"], row["category_id"]) for row in rows] == [row[:2] for row in expected]
    for row, (_, _, (x0, y0, x1, y1), score) in zip(rows, expected, strict=True):
        assert set(row) == {"image_id", "category_id", "bbox", "score"}
        assert row["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=6e-4)
        assert row["score"] == pytest.approx(score, abs=6e-7)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_write_the_file_of_one(tmp_path, run, count, capsys):
    run(tmp_path / "one")
    run(tmp_path / "many", count, annotated=False)
    one, many = (tmp_path / name / "detections_test.json" for name in ("one", "many"))
    assert many.read_bytes() == one.read_bytes()
    assert [path.name for path in (tmp_path / "many").iterdir()] == ["detections_test.json"]
    assert capsys.readouterr().out.count("19 detections in 5 images") == 2  # the first process alone


def test_no_detections_are_an_empty_list(tmp_path):
    callback, trainer = Records(DetectionsFile()), trainer_of(tmp_path)
    batch = {"index": torch.tensor([0]), "target": [{"image_id": torch.tensor(7)}]}
    callback.on_test_batch_end(trainer, None, {"detections": [found_of(0, 0)]}, batch, 0)
    callback.on_test_end(trainer, None)
    assert json.loads((tmp_path / "detections_test.json").read_text()) == []


def test_fit_and_runs_without_a_folder_write_nothing(tmp_path, run, capsys):
    callback, trainer = Records(DetectionsFile()), trainer_of(tmp_path, TrainerFn.FITTING)
    batch = {"index": torch.tensor([0]), "target": [{"image_id": torch.tensor(7)}]}
    callback.on_validation_batch_end(trainer, None, {"detections": [found_of(0)]}, batch, 0)
    assert not callback.record.kept
    callback.on_validation_end(trainer, None)
    run(None)
    run(tmp_path, callback=Records(DetectionsFile(write=False)))
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


def test_what_an_interrupted_run_left_is_forgotten(tmp_path, run):
    callback = Records(DetectionsFile())
    batch = {"index": torch.tensor([0]), "target": [{"image_id": torch.tensor(7)}]}
    callback.on_test_batch_end(trainer_of(tmp_path), None, {"detections": [found_of(9)]}, batch, 0)
    run(tmp_path, callback=callback)
    assert {row["image_id"] for row in json.loads((tmp_path / "detections_test.json").read_text())} == {
        image_id for image_id, found in zip(IMAGE_IDS, FOUND, strict=True) if len(found["scores"])
    }


def test_numbers_that_json_does_not_have_are_left_out_and_told(tmp_path, capsys):
    found = found_of(0)
    found["boxes"][0, 1] = float("nan")
    found["scores"][2] = float("inf")
    callback, trainer = Records(DetectionsFile()), trainer_of(tmp_path)
    batch = {"index": torch.tensor([0]), "target": [{"image_id": torch.tensor(7)}]}
    callback.on_test_batch_end(trainer, None, {"detections": [found]}, batch, 0)
    callback.on_test_end(trainer, None)
    rows = json.loads((tmp_path / "detections_test.json").read_text())
    assert [row["score"] for row in rows] == [
        pytest.approx(float(found["scores"][k]), abs=1e-6) for k in (1, 3)
    ]
    assert "2 detections in 1 images (2 with NaN" in capsys.readouterr().out


def test_it_keeps_little():
    one = ImageDetections.of(found_of(0, 100))
    assert one.boxes.nbytes + one.scores.nbytes + one.labels.nbytes == 100 * 24


def test_nothing_is_kept_once_it_is_written(tmp_path, run):
    callback = Records(DetectionsFile())
    run(tmp_path, callback=callback)
    assert not callback.record.kept
