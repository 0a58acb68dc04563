"""What counts as a length of a training, and what of it a checkpoint remembers."""

from __future__ import annotations

import pytest

from attnlab.run_length import is_given, remembered

NOTHING = {"max_epochs": None, "max_steps": -1, "max_time": None, "fast_dev_run": False}


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({}, False),
        ({"max_steps": None}, False),
        ({"max_epochs": 3}, True),
        ({"max_epochs": -1}, True),
        ({"max_steps": 1}, True),
        ({"max_time": "00:01:00:00"}, True),
        ({"fast_dev_run": True}, True),
        ({"fast_dev_run": 2}, True),
    ],
)
def test_epochs_steps_the_clock_and_trials_are_lengths(options, given):
    assert is_given({**NOTHING, **options}) is given
    assert is_given(options) is given


def test_a_checkpoint_remembers_epochs_and_steps_alone():
    assert remembered({**NOTHING, "max_epochs": 3, "max_time": "1:00"}) == {"max_epochs": 3, "max_steps": -1}
    assert remembered({}) == {}
