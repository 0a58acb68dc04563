"""When runs were started, from stamps in their folders, which hold whatever was copied since."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

CHECKPOINTS = "checkpoints"
STAMP = "started.txt"
# Folders of a run that hold no other run.
_OF_A_RUN = (CHECKPOINTS, "pictures")


def stamp(folder: Path) -> None:
    """Add a line with the present time to a folder's ``started.txt``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / STAMP).open("a", encoding="utf-8") as file:
        file.write(datetime.now(UTC).isoformat() + "\n")


def take_back(folder: Path) -> None:
    """Undo the last `stamp`."""
    path = folder / STAMP
    with suppress(OSError):
        *kept, _ = path.read_text(encoding="utf-8").splitlines() or [""]
        if kept:
            path.write_text("\n".join([*kept, ""]), encoding="utf-8")
        else:
            path.unlink()


def started(run: Path) -> float:
    """When training was last started in a run, in seconds since 1970.

    Args:
        run: The run's folder of checkpoints. The stamp is beside it, or, of a run without a logger, in it.

    Returns:
        The time of the last stamp. Without a stamp, as in runs of earlier versions, the date of the run's
        YAML, or else of its newest checkpoint; 0 without any.
    """
    for path in (run / STAMP, run.parent / STAMP):
        with suppress(OSError, ValueError, IndexError):
            return datetime.fromisoformat(path.read_text(encoding="utf-8").split()[-1]).timestamp()
    dates = [path.stat().st_mtime for path in run.parent.glob("config.yaml")]
    return max(dates or [path.stat().st_mtime for path in run.glob("*.ckpt")], default=0.0)


def runs_below(folder: Path) -> list[Path]:
    """The runs in a folder, at any depth, by when they were last started.

    Args:
        folder: A log folder, existing or not.

    Returns:
        Each run's folder of checkpoints, existing or not; the newest is the last. Of two runs of one time, as
        a copy has, that is the one of the higher version.
    """
    return sorted(_below(folder), key=lambda run: (started(run), *_version(run.parent)))


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if CHECKPOINTS in folders or (STAMP in files):
            yield Path(place) / CHECKPOINTS
        folders[:] = [name for name in folders if name not in _OF_A_RUN]


def _version(folder: Path) -> tuple[int, str]:
    found = re.fullmatch(r"version_(\d+)", folder.name)
    return (int(found[1]) if found else -1), str(folder)
