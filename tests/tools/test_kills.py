"""The kill trials themselves, with few kills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.nightly
def test_a_setting_that_is_killed_twice():
    done = subprocess.run(
        [sys.executable, str(KILLS), "--kills", "2", "classification-w2-p1"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    heading, row = done.stdout.splitlines()
    assert heading.split()[:2] == ["setting", "kills"]
    assert row.split()[:2] == ["classification-w2-p1", "2"]
    assert row.endswith("identical")
