"""What lies in folders of people's own, whatever they are called."""

from __future__ import annotations

import os
from pathlib import Path

from attnlab.data.images import IMAGE_SUFFIXES


def files_below(folder: Path) -> list[str]:
    """The files in a folder and in those below it, but for hidden ones; links to folders are followed.

    Returns:
        Paths relative to the folder, with ``/`` between the parts, sorted.
    """
    found: list[str] = []
    top = str(folder)
    for place, folders, files in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        below = place[len(top) :].replace(os.sep, "/").lstrip("/")
        found += [f"{below}/{name}" if below else name for name in files if not name.startswith(".")]
    return sorted(found)


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does, in capitals or not."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def names_in(folder: Path) -> list[str]:
    """The files and folders in a folder, but for hidden ones, folders with a ``/`` at the end; for errors."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name
            for entry in entries
            if not entry.name.startswith(".")
        )
