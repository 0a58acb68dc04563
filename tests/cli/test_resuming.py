"""A run that is stopped and resumed ends as one that never was, for every task, with and without workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from attnlab.tasks import BaseTask
from tests.cli.conftest import Command, checkpoint

AVERAGE = {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9, "update_every_n_steps": 1}}
KEPT = {"save_top_k": -1, "monitor": None}
IN_EPOCHS = {"filename": "{step}", "every_n_train_steps": 2, **KEPT}
# The mode only keeps it apart from what writes last.ckpt.
AT_ENDS = {"filename": "{epoch}", "every_n_epochs": 1, "mode": "max", "save_on_train_epoch_end": True, **KEPT}

TASKS = {
    "classification": [
        *("--model=ClassificationTask", "--model.network=timm/test_resnet"),
        *("--model.network_options.drop_rate=0.2", "--model.mixing.mixup_alpha=0.2"),
        "--data=ShapesClassificationDataModule",
    ],
    "detection": [
        *("--model=DetectionTask", "--model.network=yolox_nano", "--model.network_options.size=64"),
        *("--model.network_options.train_sizes=[32, 64]", "--data=ShapesDetectionDataModule"),
        *("--data.mosaic=0.5", "--data.mixup=0.5", "--data.mosaic_size=32", "--data.strong_share=0.7"),
    ],
    "segmentation": [
        *("--model=SegmentationTask", "--model.encoder=tu-test_resnet"),
        *("--model.architecture_options.decoder_channels=16", "--model.optimizer=SGD"),
        *("--model.optimizer.momentum=0.9", "--data=ShapesSegmentationDataModule"),
    ],
}
QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.num_sanity_val_steps=0",
    "--pictures.count=0",
]


def given(task: str, tmp_path: Path, workers: int = 0, epochs: int = 3) -> list[str]:
    """A run of three steps in an epoch."""
    average = [AVERAGE] if task == "classification" else []
    savers = [{"class_path": "ModelCheckpoint", "init_args": args} for args in (IN_EPOCHS, AT_ENDS)]
    return [
        *TASKS[task],
        *("--data.image_size=32", "--data.num_train=12", "--data.num_val=6", "--data.batch_size=4"),
        *(f"--data.root={tmp_path / 'data'}", f"--data.num_workers={workers}"),
        *(*QUIET, f"--trainer.max_epochs={epochs}", f"--trainer.callbacks={json.dumps(average + savers)}"),
    ]


def same(one: object, other: object) -> bool:
    """Whether nested dicts and lists are equal, tensors to the last bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def differing(one: Path, other: Path) -> list[str]:
    """Which parts of two checkpoints differ."""
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    parts = ["epoch", "global_step", "state_dict", "current_model_state", "optimizer_states", "lr_schedulers"]
    return [part for part in parts if not same(first.get(part), second.get(part))]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.nightly), 2])
@pytest.mark.parametrize("task", TASKS)
def test_resumed_from_an_epochs_end_and_from_within_one(run: Command, tmp_path, caplog, task, workers):
    """With workers, the first epoch after it once had the order and augmentation of epoch 0."""
    assert run("fit", *given(task, tmp_path)).status == 0
    whole = checkpoint(tmp_path)
    ends = {path.stem: path for path in whole.parent.glob("*=*.ckpt")}
    for version, name in enumerate(("epoch=0", "step=4"), 1):
        outcome = run("fit", *given(task, tmp_path, workers), f"--ckpt_path={ends[name]}")
        assert outcome.status == 0, outcome.err
        assert differing(whole, checkpoint(tmp_path, version=version)) == [], name
        told = "from within epoch 1: going on after batch 1; nothing is repeated" in caplog.text + outcome.err
        assert told == (name == "step=4")
        assert "ended before the epoch ended" not in outcome.err
        caplog.clear()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.nightly), 2])
def test_with_loaders_that_are_made_anew(run: Command, tmp_path, workers):
    reloading = [*given("classification", tmp_path, workers), "--trainer.reload_dataloaders_every_n_epochs=1"]
    assert run("fit", *reloading).status == 0
    ends = {path.stem: path for path in checkpoint(tmp_path).parent.glob("*=*.ckpt")}
    for version, name in enumerate(("epoch=0", "step=4"), 1):
        assert run("fit", *reloading, f"--ckpt_path={ends[name]}").status == 0
        assert differing(checkpoint(tmp_path), checkpoint(tmp_path, version=version)) == [], name


@pytest.mark.slow
def test_one_of_an_epochs_last_step_says_what_is_left_out(run: Command, tmp_path, caplog):
    words = given("classification", tmp_path, 2)
    assert run("fit", *words).status == 0
    step = checkpoint(tmp_path, "epoch=1-step=6").parent / "step=6.ckpt"
    outcome = run("fit", *words, f"--ckpt_path={step}")
    assert outcome.status == 0
    assert "the last batch of epoch 1, before its end" in caplog.text + outcome.err
    weights = [torch.load(checkpoint(tmp_path, version=v), weights_only=True)["state_dict"] for v in (0, 1)]
    assert same(*weights)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.nightly), 2])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.slow
def test_interrupted_and_resumed_in_its_folder(run: Command, tmp_path, monkeypatch, task, workers):
    words = given(task, tmp_path, workers)
    assert run("fit", *words).status == 0
    start = BaseTask.on_train_epoch_start

    def stop(self: BaseTask) -> None:
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        start(self)

    monkeypatch.setattr(BaseTask, "on_train_epoch_start", stop)
    outcome = run("fit", *words)
    assert outcome.status == 130
    assert outcome.out.count("To resume from") == 1
    assert "Traceback" not in outcome.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert torch.load(checkpoint(tmp_path, version=1), weights_only=True)["epoch"] == 1
    assert run("fit", *words, "--ckpt_path=last").status == 0
    for name in ("last", "best"):
        assert differing(*(checkpoint(tmp_path, name, version) for version in (0, 1))) == []
