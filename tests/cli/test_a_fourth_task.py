"""A task that attnlab does not have, by its own files alone: how many objects are in a picture."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate
from torchmetrics import MeanAbsoluteError

from attnlab.data import DataModule
from attnlab.data.images import read_image
from attnlab.data.sampling import SampleKey
from attnlab.data.sets import PredictSet, marks
from attnlab.drawing.cards import CaptionLine, Card, sheet
from attnlab.drawing.pixels import Pixels, as_pixels, denormalise
from attnlab.models import build_classifier
from attnlab.tasks import BaseTask
from attnlab.views import Gallery, Picture, View, Writer
from attnlab.views.base import beside, csv_text
from attnlab.views.predictions import Prediction

# --- The task's own files begin here: data, view, task. ---


@dataclass(frozen=True)
class Counted:
    """A picture and the number in its name, ``007_3.png``."""

    path: Path
    count: float

    @property
    def name(self) -> str:
        return self.path.name


class CountSet(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, items: list[Counted]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key, item = SampleKey.of(key), self.items[SampleKey.of(key).index]
        sample = {"index": key.index, "counted": key.counted, "name": item.name, "count": item.count}
        return {**sample, "image": read_image(item.path)}


class CountDataModule(DataModule):
    """Pictures with their counts in their names, in ``train`` and ``val``."""

    def items(self, split: str) -> list[Counted]:
        folder = Path(self.root) / ("val" if split == "test" else split)
        return [Counted(path, float(path.stem.rpartition("_")[2])) for path in sorted(folder.glob("*.png"))]

    def make_dataset(self, split: str, items: Any) -> Any:
        return PredictSet(items) if split == "predict" else CountSet(items)

    def collate(self, split: str) -> Any:
        def collated(samples: list[dict[str, Any]]) -> dict[str, Any]:
            kept = [{k: s[k] for k in ("image", "count") if k in s} for s in samples]
            return {**default_collate(kept), **marks(samples)}

        return collated


@dataclass(frozen=True)
class CountPrediction(Prediction):
    count: float

    def drawn(self) -> Pixels:
        return sheet([Card(as_pixels(self.image), [CaptionLine(f"{self.count:.1f}")])], "")


class CountGallery(Gallery):
    def begin(self, images: int) -> None:
        self.cards: list[Card] = []

    def collect(self, outputs: Any, batch: dict[str, Any], data: Any) -> None:
        for image, guess in zip(batch["image"][:2], outputs[:2], strict=True):
            pixels = as_pixels(denormalise(image, data.mean, data.std))
            self.cards.append(Card(pixels, [CaptionLine(f"{float(guess):.1f}")]))

    def pictures(self, stage: str, result: Any, data: Any) -> Any:
        yield Picture(stage, sheet(self.cards, f"off by {result:.2f}"), f"{stage}/counts")


class CountWriter(Writer):
    def planned(self) -> Any:
        return (), ("counts.csv",)

    def begin(self) -> None:
        self.rows: dict[int, tuple[str, float]] = {}

    def add(self, prediction: Prediction, index: int, name: str, data: Any) -> None:
        self.rows[index] = (str(prediction.path), prediction.count)  # type: ignore[attr-defined]

    def finish(self, data: Any, first: bool) -> str:
        beside(self.output_dir / "counts.csv", csv_text(self.rows[k] for k in sorted(self.rows)))
        return f"{len(self.rows)} pictures counted"


class CountView(View):
    gallery, writer = CountGallery, CountWriter

    def prediction(self, found: Any, image: Tensor, path: Path | None, data: Any) -> CountPrediction:
        return CountPrediction(image, path, [], float(found))

    def image(self, batch: dict[str, Any], position: int, data: Any) -> Tensor:
        return denormalise(batch["image"][position], data.mean, data.std)


class Scores(MeanAbsoluteError):
    def result(self) -> float:
        return float(self.compute())


class CountTask(BaseTask):
    """Counts objects.

    Args:
        network: Any classifier.
        **options: The other options of `NetworkModule`.
    """

    kind = "counting"
    default_data = f"{__name__}.CountDataModule"
    monitor = "val/closeness"
    view = CountView()

    def __init__(self, network: str = "resnet18", **options: Any) -> None:
        super().__init__({"network": network}, **options)

    def configure_network(self) -> None:
        self.network = build_classifier(self.hparams["network"], 1).network
        self.attach_attention()

    @property
    def backbone(self) -> nn.Module:
        return nn.ModuleList(child for name, child in self.network.named_children() if name != "fc")

    def make_scores(self) -> Scores:
        return Scores()

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image.contiguous(memory_format=self.layout))[:, 0]

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": F.smooth_l1_loss(self(batch["image"]), batch["count"].float())}

    def evaluate(self, batch: dict[str, Any], scores: Any, loss: Any) -> Tensor:
        guess, keep = self(batch["image"]).float(), batch["counted"]
        scores.update(guess[keep], batch["count"][keep].float())
        loss.update(F.smooth_l1_loss(guess[keep], batch["count"][keep].float()), int(keep.sum()))
        return guess

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self(batch["image"])

    def figures(self, result: float) -> dict[str, float]:
        return {"error": result, "closeness": 1 / (1 + result)}

    def headline(self, stage: str, result: float) -> list[tuple[str, str]]:
        return [(f"{stage} mean error", f"{result:.4f}")]


# --- The task's own files end here. ---


@pytest.fixture
def counting(tmp_path):
    """The options of the task on pictures of white dots."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 24), ("val", 6)):
        (tmp_path / "dots" / split).mkdir(parents=True)
        for k in range(number):
            picture, dots = Image.new("RGB", (48, 48)), int(rng.integers(1, 6))
            for place in rng.permutation(16)[:dots].tolist():
                x, y = 12 * (place % 4) + 2, 12 * (place // 4) + 2
                ImageDraw.Draw(picture).ellipse((x, y, x + 7, y + 7), fill="white")
            picture.save(tmp_path / "dots" / split / f"{k:03}_{dots}.png")
    return [
        f"--model={__name__}.CountTask",
        "--data.root=dots",
        "--data.batch_size=8",
        "--data.eval_batch_size=4",
        "--data.num_workers=1",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=2",
        "--model.attention=ela_t",
    ]


def test_a_fourth_task_is_fitted_resumed_tested_and_predicted(run, counting, tmp_path):
    outcome = run("fit", *counting, "--model.freeze_backbone_epochs=1")
    assert outcome.status == 0, outcome.err
    folder = tmp_path / "lightning_logs/version_0"
    assert (folder / "pictures/val.png").is_file()
    assert "val mean error" in outcome.out
    assert "channels_last (auto)" in outcome.out

    outcome = run("fit", *counting, "--trainer.max_epochs=3", "--ckpt_path=last")
    assert outcome.status == 0, outcome.err
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (2, 9)
    assert last["hyper_parameters"]["_class_path"] == f"{__name__}.CountTask"

    # Which task, network and data it is, the checkpoint says, if its code is trusted.
    outcome = run("test", "--ckpt_path=best", "--trust_checkpoint=true", "--trainer.accelerator=cpu")
    assert outcome.status == 0, outcome.err
    error = float(re.search(r"test mean error *│ ([\d.]+)", outcome.out)[1])
    scores = yaml.safe_load((folder / "scores.json").read_text())
    assert {entry["metric"] for entry in scores} == {"error", "closeness", "loss"}
    assert next(e["value"] for e in scores if e["metric"] == "error") == pytest.approx(error, abs=1e-4)

    outcome = run("predict", *counting[:2], "--ckpt_path=best", "--data.predict_images=dots/val")
    assert outcome.status == 0, outcome.err
    assert "6 pictures counted" in outcome.out
    rows = list(csv.reader(Path("predictions/counts.csv").read_text().splitlines()))
    errors = [abs(float(guess) - float(Path(path).stem.rpartition("_")[2])) for path, guess in rows]
    assert np.mean(errors) == pytest.approx(error, abs=1e-3)


def test_a_fourth_task_has_the_options_of_all(run, counting):
    page = run("fit", *counting, "--help").out
    for option in ("channels_last", "compile", "bn_momentum", "freeze_backbone_bn", "freeze_backbone_epochs"):
        assert f"--model.{option}" in page
    outcome = run("fit", *counting, "--model.optimizer.lr=1e30", "--model.schedule=constant")
    assert outcome.status == 2
    assert "The loss is not finite" in outcome.err
    assert re.search(r"\d{3}_\d\.png", outcome.err)
