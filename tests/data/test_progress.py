"""Without a terminal: lines, by a clock that the test moves; none for what is soon done."""

from __future__ import annotations

import io

from rich.console import Console

from attnlab.data.progress import Steps


def lines(seconds: float, in_bytes: bool, steps: int, total: int, at_once: int = 1) -> list[str]:
    text, now = io.StringIO(), [0.0]
    with Steps(in_bytes, Console(file=text, force_terminal=False, width=20), lambda: now[0]) as progress:
        task = progress.add_task("Downloading VOCtrainval_11-May-2012.tar", total=total)
        for _ in range(steps):
            now[0] += seconds
            progress.advance(task, at_once)
    return text.getvalue().splitlines()


def test_a_line_every_half_minute_on_one_line_each():
    assert lines(10, True, 7, 100_000_000, 10_000_000) == [
        "Downloading VOCtrainval_11-May-2012.tar: 30 of 100 MB (30%)",
        "Downloading VOCtrainval_11-May-2012.tar: 60 of 100 MB (60%)",
    ]
    assert lines(16, False, 2, 8) == ["Downloading VOCtrainval_11-May-2012.tar: 2 of 8 (25%)"]


def test_what_was_said_to_run_is_said_to_have_ended():
    assert lines(10, False, 4, 4) == [
        "Downloading VOCtrainval_11-May-2012.tar: 3 of 4 (75%)",
        "Downloading VOCtrainval_11-May-2012.tar: 4 of 4 (100%), 0:00:40",
    ]
    # Cut off: it has not ended.
    assert len(lines(10, False, 4, 5)) == 1


def test_what_is_soon_done_says_nothing():
    assert lines(0.1, True, 100, 100) == []
