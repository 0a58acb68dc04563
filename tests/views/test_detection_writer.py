"""Predictions in COCO's format, read by COCO's own tools, and drawings."""

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from attnlab.callbacks import DetectionWriter
from attnlab.callbacks import detection_writer as module
from attnlab.callbacks.outputs import OWN
from attnlab.errors import AttnlabError

DATA = SimpleNamespace(
    class_names=["cat", "dog", "cow"],
    category_ids=[17, 18, 21],
    palette=[(0, 200, 0), (255, 120, 0), (0, 80, 255)],
)
PATHS = ["in/z.png", "in/a.jpg", "other/z.png", "in/k.jpg", "in/b.jpg"]


def found_of(position):
    """As many detections as the image's position in the input: none in the first."""
    count = position
    corner = torch.arange(count)[:, None] * torch.tensor([[7.0, 5.0]]) + 10
    return {
        "boxes": torch.cat([corner, corner + torch.tensor([[20.5, 10.25]])], 1),
        "scores": torch.linspace(0.9, 0.1, count),
        "labels": torch.arange(count) % 3,
    }


def predict(folder, monkeypatch, processes=1, paths=PATHS, **options):
    """Run the writer's hooks as the given number of processes would, the first one last."""
    total = -(-len(paths) // processes) * processes
    loader = SimpleNamespace(dataset=SimpleNamespace(paths=paths))
    writers = []
    for rank in range(processes):
        trainer = SimpleNamespace(is_global_zero=rank == 0, datamodule=DATA, predict_dataloaders=loader)
        writer = DetectionWriter(str(folder), **options)
        writer.on_predict_start(trainer, None)
        share = list(range(rank, total, processes))
        for start in range(0, len(share), 2):
            positions = share[start : start + 2]
            index = [position % len(paths) for position in positions]
            counted = [position < len(paths) for position in positions]
            batch = {
                "image": [torch.full((3, 60, 80 + i), 0.5) for i in index],
                "path": [paths[i] for i in index],
                "index": torch.tensor(index),
                "counted": torch.tensor(counted),
            }
            found = [found_of(i) if counts else None for i, counts in zip(index, counted, strict=True)]
            writer.write_on_batch_end(trainer, None, {"detections": found}, None, batch, 0, 0)
        writers.append((writer, trainer))
    parts = [writer._kept for writer, _ in writers]
    monkeypatch.setattr(module, "gathered", lambda item: parts)
    for writer, trainer in reversed(writers):
        writer.on_predict_end(trainer, None)


def test_pycocotools_reads_it(tmp_path, monkeypatch, capsys):
    predict(tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert f"10 detections in 5 images are in {tmp_path / 'predictions.json'}" in printed
    assert f"the drawings lie in {tmp_path}/" in printed
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "predictions.json"))
    assert coco.getCatIds() == [17, 18, 21]
    assert [coco.loadCats(c)[0]["name"] for c in (17, 18, 21)] == DATA.class_names
    images = coco.loadImgs(coco.getImgIds())
    assert [(i["id"], i["file_name"], i["width"], i["height"]) for i in images] == [
        (k + 1, path, 80 + k, 60) for k, path in enumerate(PATHS)
    ]
    assert [len(coco.getAnnIds(imgIds=[k + 1])) for k in range(5)] == [0, 1, 2, 3, 4]
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [a["id"] for a in annotations] == list(range(1, 11))
    last = coco.loadAnns(coco.getAnnIds(imgIds=[5]))[3]
    assert last["bbox"] == [31, 25, 20.5, 10.25]
    assert last["area"] == pytest.approx(20.5 * 10.25, abs=1e-3)
    assert (last["category_id"], last["iscrowd"], last["score"]) == (17, 0, 0.1)


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_write_the_file_of_one(tmp_path, monkeypatch, processes, capsys):
    predict(tmp_path / "one", monkeypatch)
    predict(tmp_path / "many", monkeypatch, processes)
    one, many = (tmp_path / name for name in ("one", "many"))
    names = {"z.jpg", "z_2.jpg", "a.jpg", "k.jpg", "b.jpg", "predictions.json"}
    assert {p.name for p in one.iterdir()} == {p.name for p in many.iterdir()} == names | {OWN}
    for name in names:
        assert (many / name).read_bytes() == (one / name).read_bytes()
    assert capsys.readouterr().out.count("10 detections in 5 images") == 2  # the first process alone


def test_drawings_show_boxes_of_high_scores_alone(tmp_path, monkeypatch):
    predict(tmp_path, monkeypatch, min_score=0.5)
    empty, full = (np.asarray(Image.open(tmp_path / f"{n}.jpg")).astype(int) for n in ("z", "b"))
    assert max(empty.shape) == max(full.shape) == 480
    assert np.abs(empty - 128).max() <= 3
    # Scores 0.9, 0.63, 0.37 and 0.1, of the classes green, orange, blue and green.
    assert colour_in(full, (0, 200, 0))
    assert colour_in(full, (255, 120, 0))
    assert not colour_in(full, (0, 80, 255))


def colour_in(picture, colour):
    return bool((np.abs(picture - np.array(module.bright([colour])[0])).max(-1) <= 25).any())


def test_drawings_can_be_left_out(tmp_path, monkeypatch, capsys):
    predict(tmp_path, monkeypatch, drawings=False)
    assert {p.name for p in tmp_path.iterdir()} == {"predictions.json", OWN}
    assert "drawings lie" not in capsys.readouterr().out


def test_images_that_are_read_are_never_written_over(tmp_path, monkeypatch):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"one's own")
    with pytest.raises(AttnlabError, match="output_dir"):
        predict(tmp_path, monkeypatch, paths=[str(image)])
    assert image.read_bytes() == b"one's own"
    predict(tmp_path, monkeypatch, paths=[str(image)], drawings=False)
    assert image.read_bytes() == b"one's own"
    assert (tmp_path / "predictions.json").exists()


def test_odd_paths_survive(tmp_path, monkeypatch):
    paths = ["a,b.png", 'quo"te.png', "new\nline.png", "caf\udce9.png", "ünï.png"]
    predict(tmp_path, monkeypatch, paths=paths, drawings=False)
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert [image["file_name"] for image in written["images"]] == paths


def test_a_second_prediction_replaces_the_first(tmp_path, monkeypatch):
    predict(tmp_path, monkeypatch)
    predict(tmp_path, monkeypatch, paths=PATHS[:1], drawings=False)
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert len(written["images"]) == 1
    assert written["annotations"] == []


@pytest.mark.parametrize("score", [-0.1, 1.1])
def test_a_score_beyond_its_range_is_refused(score):
    with pytest.raises(AttnlabError, match="min_score"):
        DetectionWriter(min_score=score)
