"""The quickstart with ELA as one operation and as its formula: the same training, step by step."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.cli.conftest import Command

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart_segmentation.yaml"
STEPS = 12


def test_losses_are_the_same_step_by_step(run: Command, tmp_path: Path) -> None:
    losses = {}
    for implementation in ("fused", "formula"):
        outcome = run(
            *("fit", "--config", CONFIG, "--data.root", tmp_path / "shapes", "--data.num_train", 4 * STEPS),
            *("--data.num_val", 4, "--data.batch_size", 4, "--trainer.max_epochs", 1),
            f"--model.attention.implementation={implementation}",
            *("--trainer.log_every_n_steps", 1, "--trainer.logger=CSVLogger"),
            *("--trainer.logger.save_dir", tmp_path, "--trainer.logger.name", implementation),
        )
        assert outcome.status == 0, outcome.err
        with next((tmp_path / implementation).rglob("metrics.csv")).open() as file:
            losses[implementation] = [
                float(row["train/loss_step"]) for row in csv.DictReader(file) if row["train/loss_step"]
            ]
    assert len(losses["fused"]) == STEPS
    assert losses["fused"] == pytest.approx(losses["formula"], rel=2e-4)
