"""Short flags, written out."""

import inspect

import pytest
import torch

from attnlab.attention import get_attention, list_attentions
from attnlab.cli.shorthand import expand


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--model.attention=cbam"], ["--model.attention.name=cbam", "--model.attention.options={}"]),
        (["--model.attention", "cbam"], ["--model.attention.name=cbam", "--model.attention.options={}"]),
        (
            # The name goes first, so that its empty options do not wipe out the one given.
            ["--model.attention.reduction=8", "--trainer.max_epochs", "3", "--model.attention=cbam"],
            [
                "--model.attention.name=cbam",
                "--model.attention.options={}",
                "--model.attention.options.reduction=8",
                "--trainer.max_epochs",
                "3",
            ],
        ),
        (["--model.attention.mode=rezero"], ["--model.attention.mode=rezero"]),
        (["--model.attention.reduction", "8"], ["--model.attention.options.reduction", "8"]),
        (["--model.attention.options.reduction=8"], ["--model.attention.options.reduction=8"]),
        (["--model.attention={name: eca}"], ["--model.attention={name: eca}"]),
        (["--model.schedule=cosine"], ["--model.schedule.name=cosine"]),
        (
            ["--model.optimizer=SGD", "--model.optimizer.momentum=0.9", "--model.optimizer.lr=0.1"],
            [
                "--model.optimizer.name=SGD",
                "--model.optimizer.options={}",
                "--model.optimizer.options.momentum=0.9",
                "--model.optimizer.lr=0.1",
            ],
        ),
        (["--model.encoder=resnet18", "--data.root", "x"], ["--model.encoder=resnet18", "--data.root", "x"]),
    ],
)
def test_expand(typed, meant):
    assert expand(typed) == meant


def test_no_modules_option_is_taken_for_a_misspelled_key():
    for name in list_attentions():
        for option in get_attention(name).options():
            flag = f"--model.attention.{option.name}=1"
            expected = flag.replace("attention.", "attention.options.")
            assert expand([flag]) == [flag if option.name in ("mode", "shared") else expected]
    for optimizer in (torch.optim.SGD, torch.optim.AdamW, torch.optim.NAdam, torch.optim.Adagrad):
        for option in set(inspect.signature(optimizer).parameters) - {"params", "lr", "weight_decay"}:
            flag = f"--model.optimizer.{option}=1"
            assert expand([flag]) == [flag.replace("optimizer.", "optimizer.options.")]
