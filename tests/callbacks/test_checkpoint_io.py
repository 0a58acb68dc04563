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


def content(value=1.0, **more):
    return {"state_dict": {"w": torch.full((3,), value), "n": torch.tensor(2)}, "epoch": 1, **more}


def test_the_same_content_is_written_once(tmp_path, monkeypatch):
    saver, best, last = AtomicCheckpointIO(), tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    saver.save_checkpoint(content(), best)
    saver.save_checkpoint(content(), last)
    assert best.samefile(last)
    # A name that is written anew has a file of its own; what the other one holds stays.
    saver.save_checkpoint(content(2.0), last)
    assert [float(torch.load(p, weights_only=True)["state_dict"]["w"][0]) for p in (best, last)] == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    "other",
    [
        content(1.0000001),
        content(loops={"batch": 3}),
        {**content(), "epoch": 2},
        {"state_dict": {"w": torch.full((3,), 1.0, dtype=torch.float64), "n": torch.tensor(2)}, "epoch": 1},
        {"state_dict": {"w": torch.full((3, 1), 1.0), "n": torch.tensor(2)}, "epoch": 1},
    ],
)
def test_other_content_is_written_whatever_differs(tmp_path, other):
    saver = AtomicCheckpointIO()
    saver.save_checkpoint(content(), tmp_path / "best.ckpt")
    saver.save_checkpoint(other, tmp_path / "last.ckpt")
    assert not (tmp_path / "best.ckpt").samefile(tmp_path / "last.ckpt")


def test_without_links_or_the_first_file_it_is_written_twice(tmp_path, monkeypatch):
    saver, best, last = AtomicCheckpointIO(), tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    saver.save_checkpoint(content(), best)
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(95, "no links")))
        saver.save_checkpoint(content(), last)
    assert not best.samefile(last)
    last.unlink()
    saver.save_checkpoint(content(), best)
    best.unlink()
    saver.save_checkpoint(content(), last)
    assert torch.load(last, weights_only=True)["epoch"] == 1


def test_takes_no_storage_options(tmp_path):
    with pytest.raises(TypeError):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt", storage_options={"x": 1})
