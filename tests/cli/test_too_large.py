"""Images of too many pixels, through the command line: one limit for all tasks, which a flag raises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attnlab
from attnlab.checkpoints import OF_DATA
from attnlab.errors import AttnlabError
from tests.cli.conftest import checkpoint

TASKS = {
    "segmentation": (
        *("--task=segmentation", "--model.architecture=DeepLabV3Plus", "--model.encoder=tu-test_resnet"),
        "--data.crop_size=64",
    ),
    "classification": ("--task=classification", "--model.network=timm/test_resnet"),
    "detection": ("--task=detection", "--model.network=yolox_nano", "--model.network_options.size=64"),
}
PIXELS = 64 * 64


@pytest.fixture(params=TASKS)
def words(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    return [
        *TASKS[request.param],
        *("--data.num_train=6", "--data.num_val=6", "--data.image_size=64", "--data.batch_size=6"),
        *("--data.num_workers=1", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"),
        *("--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=0"),
        f"--data.root={tmp_path / 'shapes'}",
    ]


def photo(path: Path, width: int) -> Path:
    Image.fromarray(np.zeros((64, width, 3), np.uint8)).save(path)
    return path


def test_one_limit_for_all_that_is_read(run, words, tmp_path):
    for check in ("quick", "full", "none"):
        outcome = run("fit", *words, f"--data.max_pixels={PIXELS - 1}", f"--data.check={check}")
        assert outcome.status == 2
        assert outcome.err.count("error: ") == 1
        assert f"64 x 64 = {PIXELS} pixels, more than the limit of {PIXELS - 1}" in outcome.err
        assert f"--data.max_pixels {PIXELS}" in outcome.err
        # Found by the check, before the first step.
        assert ("'train' images cannot be used" in outcome.err) == (check != "none")
    assert run("fit", *words, f"--data.max_pixels={PIXELS}").status == 0

    # The checkpoint remembers it, for predictions, too.
    path = checkpoint(tmp_path)
    assert torch.load(path, weights_only=True)[OF_DATA]["max_pixels"] == PIXELS
    photo(tmp_path / "small.png", 64), photo(tmp_path / "large.png", 65)
    given = [f"--ckpt_path={path}", "--trainer.accelerator=cpu", "--data.predict_images=large.png"]
    outcome = run("predict", *given)
    assert outcome.status == 2
    assert "large.png' has 65 x 64 = 4160 pixels, more than the limit of 4096" in outcome.err
    assert run("predict", *given, "--data.max_pixels=5000").status == 0
    net = attnlab.load(path)
    net.predict("small.png")
    with pytest.raises(AttnlabError, match="more than the limit of 4096"):
        net.predict("large.png")
    net.data.max_pixels = 5000
    assert net.predict("large.png").image.shape == (3, 64, 65)


def test_it_is_at_least_one(run, words):
    outcome = run("fit", *words, "--data.max_pixels=0")
    assert outcome.status == 2
    assert "data.max_pixels is 0; it must be at least 1" in outcome.err
