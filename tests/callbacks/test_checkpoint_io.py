"""Checkpoints that are whole or not there."""

import pytest
import torch

from attnlab.callbacks import AtomicCheckpointIO
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
