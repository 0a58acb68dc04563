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

from attnlab.callbacks import Predictions
from attnlab.drawing.boxes import bright
from attnlab.errors import AttnlabError
from attnlab.tasks import DetectionTask
from attnlab.views.detection import DetectionView, DetectionWriter
from attnlab.views.outputs import OWN
from tests.views.conftest import shares, trainer_of

DATA = SimpleNamespace(
    class_names=["cat", "dog", "cow"],
    category_ids=[17, 18, 21],
    palette=[(0, 200, 0), (255, 120, 0), (0, 80, 255)],
)
TASK = DetectionTask.__new__(DetectionTask)
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


@pytest.fixture
def predict(processes):
    """Run the callback's hooks as so many processes would."""

    def call(folder, count=1, paths=PATHS, found=found_of, **options):
        def process(rank):
            trainer = trainer_of(None, DATA, rank=rank, paths=paths)
            callback = Predictions(DetectionWriter(str(folder), **options))
            callback.on_predict_start(trainer, TASK)
            for share in shares(len(paths), count, rank):
                batch = {
                    "image": [torch.full((3, 60, 80 + i), 0.5) for i, _ in share],
                    "path": [paths[i] for i, _ in share],
                    "index": torch.tensor([i for i, _ in share]),
                    "counted": torch.tensor([counts for _, counts in share]),
                }
                step = [found(i) if counts else None for i, counts in share]
                callback.write_on_batch_end(trainer, TASK, step, None, batch, 0, 0)
            callback.on_predict_end(trainer, TASK)

        processes(count, process)

    return call


def test_pycocotools_reads_it(tmp_path, predict, capsys):
    predict(tmp_path)
    printed = capsys.readouterr().out
    assert f"10 detections in 5 images are in {tmp_path / 'predictions.json'}" in printed
    assert f"the drawings are in {tmp_path}/" in printed
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


@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_write_the_file_of_one(tmp_path, predict, count, capsys):
    predict(tmp_path / "one")
    predict(tmp_path / "many", count)
    one, many = (tmp_path / name for name in ("one", "many"))
    names = {"z.jpg", "z_2.jpg", "a.jpg", "k.jpg", "b.jpg", "predictions.json"}
    assert {p.name for p in one.iterdir()} == {p.name for p in many.iterdir()} == names | {OWN}
    for name in names:
        assert (many / name).read_bytes() == (one / name).read_bytes()
    assert capsys.readouterr().out.count("10 detections in 5 images") == 2  # the first process alone


def test_drawings_show_boxes_of_high_scores_alone(tmp_path, predict):
    predict(tmp_path, min_score=0.5)
    empty, full = (np.asarray(Image.open(tmp_path / f"{n}.jpg")).astype(int) for n in ("z", "b"))
    assert max(empty.shape) == max(full.shape) == 480
    assert np.abs(empty - 128).max() <= 3
    # Scores 0.9, 0.63, 0.37 and 0.1, of the classes green, orange, blue and green.
    assert colour_in(full, (0, 200, 0))
    assert colour_in(full, (255, 120, 0))
    assert not colour_in(full, (0, 80, 255))


def colour_in(picture, colour):
    return bool((np.abs(picture - np.array(bright([colour])[0])).max(-1) <= 25).any())


def test_drawings_can_be_left_out(tmp_path, predict, capsys):
    predict(tmp_path, pictures=False)
    assert {p.name for p in tmp_path.iterdir()} == {"predictions.json", OWN}
    assert "drawings are" not in capsys.readouterr().out


def test_images_that_are_read_are_never_written_over(tmp_path, predict):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"one's own")
    with pytest.raises(AttnlabError, match="output_dir"):
        predict(tmp_path, paths=[str(image)])
    assert image.read_bytes() == b"one's own"
    predict(tmp_path, paths=[str(image)], pictures=False)
    assert image.read_bytes() == b"one's own"
    assert (tmp_path / "predictions.json").exists()


def test_odd_paths_survive(tmp_path, predict):
    paths = ["a,b.png", 'quo"te.png', "new\nline.png", "caf\udce9.png", "ünï.png"]
    predict(tmp_path, paths=paths, pictures=False)
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert [image["file_name"] for image in written["images"]] == paths


def test_a_second_prediction_replaces_the_first(tmp_path, predict):
    predict(tmp_path)
    predict(tmp_path, paths=PATHS[:1], pictures=False)
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert len(written["images"]) == 1
    assert written["annotations"] == []


@pytest.mark.parametrize("score", [-0.1, 1.1])
def test_a_score_beyond_its_range_is_refused(score):
    with pytest.raises(AttnlabError, match="min_score"):
        DetectionWriter(min_score=score)


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ({"drawings": True}, True),
        ({"drawings": False}, False),
        ({"drawings": True, "pictures": False}, False),
    ],
)
def test_the_former_name_of_pictures_still_works(tmp_path, predict, options, drawn):
    """The last as a YAML of a former version and a flag of this one say it."""
    predict(tmp_path, **options)
    assert (tmp_path / "z.jpg").exists() == drawn


def test_numbers_that_json_does_not_have_are_left_out_and_told(tmp_path, predict, capsys):
    def broken(position):
        found = found_of(position)
        found["boxes"][:1, 1], found["scores"][1:2] = torch.nan, torch.inf
        return found

    predict(tmp_path, found=broken, pictures=False)
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert [a["image_id"] for a in written["annotations"]] == [4, 5, 5]
    assert "3 detections in 5 images (7 with NaN" in capsys.readouterr().out


def test_half_precision_is_written(tmp_path, predict):
    predict(tmp_path, found=lambda k: {n: v.half() if n != "labels" else v for n, v in found_of(k).items()})
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert written["annotations"][0]["score"] == pytest.approx(0.9, abs=1e-3)


def test_pictures_are_looked_at_only_where_they_are_drawn(tmp_path, predict, monkeypatch):
    predict(tmp_path / "drawn")
    monkeypatch.setattr(DetectionView, "image", None)
    predict(tmp_path, pictures=False)
    files = (folder / "predictions.json" for folder in (tmp_path, tmp_path / "drawn"))
    assert next(files).read_bytes() == next(files).read_bytes()
