"""The parts of the closing table; the whole of it is read in tests/cli."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from attnlab.callbacks import AtomicCheckpointIO
from attnlab.callbacks.best import BestCheckpoint
from attnlab.callbacks.checkpoint_io import LastCheckpoint
from attnlab.callbacks.report import checkpoint_paths, flat, prefixes


def test_options_become_scalars_under_dotted_names():
    options = {
        "lr": 0.5,
        "on": True,
        "optimizer": {"name": "sgd", "deep": {"x": 3}, "options": {"nesterov": True}},
        "scale": (0.5, 2),
        "nothing": None,
        "num_classes": 21,
        "class_names": ["a"],
    }
    assert flat(options) == {
        "lr": 0.5,
        "on": True,
        "optimizer.name": "sgd",
        "optimizer.deep.x": 3,
        "optimizer.options": "{'nesterov': True}",
        "scale": "(0.5, 2)",
        "nothing": "None",
    }


@pytest.mark.parametrize(
    ("called", "uv", "expected"),
    [
        ("main.py", False, ("", "python main.py")),
        ("up/main.py", True, ("uv run ", "uv run up/main.py")),
        ("/usr/bin/attnlab", False, ("", "attnlab")),
        ("/venv/bin/attnlab", True, ("uv run ", "uv run attnlab")),
        ("pytest", False, ("", "python main.py")),
    ],
)
def test_commands_are_written_as_this_one_was(monkeypatch, called, uv, expected):
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.delenv("UV", raising=False)
    if uv:
        monkeypatch.setenv("UV", "/bin/uv")
    assert prefixes() == expected


def test_only_checkpoints_that_were_written_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best, last = BestCheckpoint(filename="best", monitor="score"), LastCheckpoint(AtomicCheckpointIO())
    best.best_model_path = str(tmp_path / "run/best.ckpt")
    trainer = SimpleNamespace(checkpoint_callbacks=[best, last])
    assert checkpoint_paths(trainer) == [("best checkpoint", "run/best.ckpt")]
