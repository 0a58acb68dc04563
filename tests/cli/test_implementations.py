"""A smaller quickstart with ELA as one operation and as its formula: the same training, step by step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from attnlab.data import ShapesSegmentationDataModule
from tests.cli.conftest import Command

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart_segmentation.yaml"
STEPS = 6


@pytest.fixture
def _batches_of_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images become float32 on the device, whatever the trainer's precision; here float64."""
    original = ShapesSegmentationDataModule.on_after_batch_transfer

    def double(self: ShapesSegmentationDataModule, batch: dict[str, Any], index: int) -> dict[str, Any]:
        batch = original(self, batch, index)
        return {**batch, "image": batch["image"].double()}

    monkeypatch.setattr(ShapesSegmentationDataModule, "on_after_batch_transfer", double)


def losses_of(run: Command, folder: Path, implementation: str, precision: str) -> list[float]:
    outcome = run(
        *("fit", "--config", CONFIG, "--data.root", folder / "shapes", "--data.num_train", 4 * STEPS),
        *("--data.num_val", 4, "--data.batch_size", 4, "--data.image_size", 64, "--trainer.max_epochs", 1),
        *("--model.encoder", "tu-test_resnet", "--model.architecture_options.decoder_channels", 16),
        # At stages: the last norms of blocks begin at 0, and attention there does nothing at first.
        *("--model.attention.at", "stage"),
        *("--model.schedule", "constant", "--model.schedule.warmup_steps", 0),
        *("--model.attention.implementation", implementation, "--trainer.precision", precision),
        *("--trainer.log_every_n_steps", 1, "--trainer.logger=CSVLogger"),
        *("--trainer.logger.save_dir", folder, "--trainer.logger.name", implementation),
    )
    assert outcome.status == 0, outcome.err
    with next((folder / implementation).rglob("metrics.csv")).open() as file:
        losses = [float(row["train/loss_step"]) for row in csv.DictReader(file) if row["train/loss_step"]]
    assert len(losses) == STEPS
    return losses


def test_losses_are_the_same_step_by_step(run: Command, tmp_path: Path) -> None:
    fused, formula = (losses_of(run, tmp_path, name, "32-true") for name in ("fused", "formula"))
    assert fused[:2] == pytest.approx(formula[:2], rel=1e-5)
    # AdamW's steps have the size of the learning rate even where a gradient is noise: rounding grows.
    assert fused == pytest.approx(formula, rel=5e-3)


# A learning rate of the attention that is off by a tenth changes these losses by a thousandth.
@pytest.mark.usefixtures("_batches_of_float64")
def test_losses_are_the_same_in_float64(run: Command, tmp_path: Path) -> None:
    fused, formula = (losses_of(run, tmp_path, name, "64-true") for name in ("fused", "formula"))
    assert fused == pytest.approx(formula, rel=1e-6)
