"""NaN and infinity through the command line: never saved, never scored as a class, always said."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attnlab
from attnlab.errors import AttnlabError
from tests.cli.conftest import checkpoint, csv_logger, scalars, weights_of

OF_ALL = (
    *("--data.num_train=8", "--data.num_val=6", "--data.image_size=64", "--data.batch_size=4"),
    *("--data.num_workers=0", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"),
    *(
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--model.attention=ela_t",
    ),
)
TASKS = {
    "segmentation": (
        *("--task=segmentation", "--model.architecture=DeepLabV3Plus", "--model.encoder=tu-test_resnet"),
        "--data.crop_size=64",
    ),
    "classification": ("--task=classification", "--model.network=timm/test_resnet"),
    "detection": ("--task=detection", "--model.network=yolox_nano", "--model.network_options.size=64"),
}
SCORE = {"segmentation": "mIoU", "classification": "top1", "detection": "AP"}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where drawn data and trained networks stay."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def words(task: str, kept: Path) -> list[str]:
    return [*TASKS[task], *OF_ALL, f"--data.root={kept / task}"]


@pytest.fixture
def trained(run, words, task, kept, tmp_path) -> Path:
    """A checkpoint of one epoch, in the working folder."""
    there = kept / f"{task}.ckpt"
    if not there.exists():
        assert run("fit", *words, "--trainer.limit_val_batches=0").status == 0
        shutil.copy(checkpoint(tmp_path), there)
        shutil.rmtree(tmp_path / "lightning_logs")
    return Path(shutil.copy(there, tmp_path / "a.ckpt"))


def change(path: Path, ending: str, value: float) -> None:
    """Set one number of the first tensor of that name."""
    content = torch.load(path, weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith(ending))
    tensor = content["state_dict"][name]
    tensor[(0,) * tensor.dim()] = value
    torch.save(content, path)


def photo(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder / "photo.png"


def test_a_checkpoint_with_nan_is_one_error(run, words, trained, tmp_path):
    for command, ending, value in (
        ("predict", "running_var", math.inf),
        ("test", ".weight", math.nan),
        ("fit", ".weight", math.nan),
    ):
        change(trained, ending, value)
        images = [f"--data.predict_images={photo(tmp_path)}"] if command == "predict" else []
        outcome = run(command, *words, f"--ckpt_path={trained}", *images)
        assert outcome.status == 2
        assert outcome.err.count("error: ") == 1
        assert "The checkpoint's weights are not finite: " in outcome.err
    assert not list(tmp_path.glob("predictions/*"))
    assert not list(tmp_path.glob("lightning_logs/*/scores.json"))
    with pytest.raises(AttnlabError, match="weights are not finite"):
        attnlab.load(trained)


def test_outputs_that_are_not_finite_are_no_class(run, words, trained, task, tmp_path):
    """Every weight is finite here, but one layer's product with its input is not."""
    content = torch.load(trained, weights_only=True)
    for value in content["state_dict"].values():
        if value.dim() == 4:
            value.fill_(3e38)
    torch.save(content, trained)
    given = [*words, f"--ckpt_path={trained}"]
    with pytest.warns(UserWarning, match="NaN or infinite for 6 of 6 'val' images"):
        outcome = run("validate", *given, *csv_logger("nan"))
    assert outcome.status == 0, outcome.err
    assert "images without output" in outcome.out
    values = scalars(tmp_path / "logs/nan")
    assert values[f"val/{SCORE[task]}"] == 0
    assert all(value == 0 for name, value in values.items() if name.startswith("val_iou/"))
    assert task == "detection" or not math.isfinite(values["val/loss"])

    photo(tmp_path)
    with pytest.warns(UserWarning, match=r"NaN or infinite for 1 of 1 images \(photo\.png\)"):
        outcome = run("predict", *given, "--data.predict_images=photo.png")
    assert outcome.status == 0, outcome.err
    found = tmp_path / "predictions"
    if task == "segmentation":
        assert (np.asarray(Image.open(found / "photo.png")) == 255).all()
    elif task == "classification":
        assert set(list(csv.reader((found / "predictions.csv").open()))[1][1:]) == {""}
    else:
        assert json.loads((found / "predictions.json").read_text())["annotations"] == []
    with pytest.warns(UserWarning, match="NaN or infinite for 1 of 1 images"):
        attnlab.load(trained).predict(photo(tmp_path))


CALLBACKS = '''
import torch
from lightning.pytorch import Callback


class Weights(Callback):
    """Breaks a weight after the last step of an epoch, whose loss was finite."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and trainer.is_last_batch:
            with torch.no_grad():
                next(pl_module.backbone.parameters()).fill_(float("nan"))


class Statistics(Callback):
    """Breaks BatchNorm's statistics, of the last process alone, after the last step of an epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_rank == trainer.world_size - 1 and trainer.is_last_batch:
            next(pl_module.batchnorms()).running_mean[0] = float("nan")


class Loss(Callback):
    """Breaks the images of the last process alone."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == trainer.world_size - 1 and trainer.global_step == 1:
            batch["image"][0].fill_(float("nan"))
'''


@pytest.fixture
def callbacks(tmp_path: Path) -> str:
    (tmp_path / "breaking.py").write_text(CALLBACKS)
    return "--trainer.callbacks=breaking."


def test_weights_that_break_in_the_last_step_are_never_saved(run, words, callbacks, tmp_path):
    """No loss shows it: the one of that step was taken before, and the run ends."""
    images = ["--trainer.max_epochs=2", "--checkpoint.monitor=epoch"]
    outcome = run("fit", *words, *images, f"{callbacks}Weights", "--trainer.limit_val_batches=1")
    assert outcome.status == 2, outcome.out
    assert "error: " in outcome.err
    assert "--model.optimizer.lr" in outcome.err
    for name in ("best", "last"):
        assert torch.load(checkpoint(tmp_path, name), weights_only=True)["epoch"] == 0
        assert all(value.isfinite().all() for value in weights_of(checkpoint(tmp_path, name)).values())


def test_without_validation_either(run, words, callbacks, tmp_path):
    images = ["--trainer.max_epochs=2", "--trainer.limit_val_batches=0"]
    outcome = run("fit", *words, *images, f"{callbacks}Weights")
    assert outcome.status == 2, outcome.out
    assert "The weights are not finite after epoch 1, step 4: 1 of " in outcome.err
    assert torch.load(checkpoint(tmp_path), weights_only=True)["epoch"] == 0


@pytest.mark.parametrize("broken", ["Loss", "Statistics"])
@pytest.mark.parametrize("task", ["classification"], indirect=True)
def test_every_process_ends_where_one_has_nan(launch, words, callbacks, tmp_path, broken):
    """The others would wait for its gradients, or at the barrier of the checkpoint."""
    # Without validation, which would give all processes the first one's statistics.
    less = ["--data.batch_size=2", "--trainer.limit_val_batches=0"]
    said = launch(2, "fit", *words, *less, f"{callbacks}{broken}", status=2)
    what = "The loss is not finite in epoch 0, step 1" if broken == "Loss" else "The weights are not finite"
    assert all(text.count("error: ") == 1 and what in text for text in said), said
    assert not checkpoint(tmp_path).exists()
