"""One run of each task, short enough to be repeated on the lowest versions of all dependencies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("task", ["segmentation", "classification", "detection"])
def test_the_whole_way(run, tmp_path, task):
    quick = [
        f"--config={CONFIGS / f'quickstart_{task}.yaml'}",
        f"--data.root={tmp_path / 'shapes'}",
        *("--data.num_train=10", "--data.num_val=5", "--data.num_workers=0", "--data.batch_size=4"),
        *(
            "--trainer.accelerator=cpu",
            "--trainer.limit_train_batches=1",
            "--trainer.check_val_every_n_epoch=1",
        ),
    ]
    for epochs, more in ((1, []), (2, ["--ckpt_path=last"])):
        outcome = run("fit", *quick, f"--trainer.max_epochs={epochs}", *more)
        assert outcome.status == 0, outcome.err
    folder = tmp_path / "lightning_logs" / f"quickstart_{task}" / "version_0"
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1
    assert list(folder.glob("events.out.tfevents.*"))
    outcome = run("test", *quick, "--ckpt_path=best")
    assert outcome.status == 0, outcome.err
    assert (folder / "scores.json").is_file()
    Image.new("RGB", (80, 70), "red").save(tmp_path / "photo.png")
    outcome = run("predict", *quick, "--ckpt_path=last", "--data.predict_images=photo.png")
    assert outcome.status == 0, outcome.err
