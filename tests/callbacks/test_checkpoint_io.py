"""Checkpoints that are whole or not there."""

import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from attnlab.callbacks import AtomicCheckpointIO
from attnlab.callbacks.checkpoint_io import LastCheckpoint
from attnlab.errors import AttnlabError


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "runs" / "a.ckpt"
    for value in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"value": value}, path)
        assert torch.load(path, weights_only=True) == {"value": value}
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]


def test_a_failure_half_way_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"value": 1}, path)

    def half(checkpoint, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(AttnlabError, match=r"No space left on device.*is intact"):
        AtomicCheckpointIO().save_checkpoint({"value": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_takes_no_storage_options(tmp_path):
    with pytest.raises(TypeError):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt", storage_options={"x": 1})


class Net(BoringModel):
    """Its score in each epoch is given."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def validation_step(self, batch, batch_idx):
        self.log("score", self.scores[self.current_epoch])


class Names(Callback):
    """Notes after each epoch's checkpoints whether the two are one file, and of which epochs they are."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch:
            self.look(trainer)

    def on_train_end(self, trainer, pl_module):
        self.look(trainer)

    def look(self, trainer):
        best, last = (Path(trainer.default_root_dir) / f"{name}.ckpt" for name in ("best", "last"))
        epochs = [torch.load(path, weights_only=True)["epoch"] for path in (best, last)]
        self.seen.append((best.samefile(last), *epochs))


def trained(folder, scores, **options):
    io, names = AtomicCheckpointIO(), Names()
    best = ModelCheckpoint(folder, "best", "score", mode="max", enable_version_counter=False, **options)
    last = LastCheckpoint(io)
    last.dirpath = str(folder)
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=len(scores),
        limit_train_batches=2,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[best, last, names],
        plugins=[io],
    )
    trainer.fit(Net(scores))
    return io, names.seen, best


def test_best_and_last_are_written_once_where_they_are_the_same(tmp_path):
    io, seen, best = trained(tmp_path, [0.1, 0.3, 0.2, 0.4], save_on_train_epoch_end=True)
    assert seen == [(True, 0, 0), (True, 1, 1), (False, 1, 2), (True, 3, 3)]
    assert io.saves == 7
    assert not list(tmp_path.glob(".*"))
    whole = torch.load(tmp_path / "last.ckpt", weights_only=True)
    # Training goes on from it with what the best was.
    states = [state for key, state in whole["callbacks"].items() if "'monitor': 'score'" in key]
    assert states[0]["best_model_score"] == best.best_model_score


def test_what_was_written_before_the_end_of_the_epoch_is_not_taken_for_the_last(tmp_path):
    """Within an epoch, or at its validation, the loops stand elsewhere."""
    _, seen, _ = trained(tmp_path, [0.1, 0.3], save_on_train_epoch_end=False)
    assert seen == [(False, 0, 0), (False, 1, 1)]


def test_of_weights_alone_last_is_no_second_name(tmp_path):
    _, seen, _ = trained(tmp_path, [0.1, 0.3], save_on_train_epoch_end=True, save_weights_only=True)
    assert seen == [(False, 0, 0), (False, 1, 1)]
    assert "optimizer_states" in torch.load(tmp_path / "last.ckpt", weights_only=True)


def test_where_there_are_no_second_names_last_is_a_copy(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    _, seen, _ = trained(tmp_path, [0.1], save_on_train_epoch_end=True)
    assert seen == [(False, 0, 0)]
    assert (tmp_path / "best.ckpt").read_bytes() == (tmp_path / "last.ckpt").read_bytes()
