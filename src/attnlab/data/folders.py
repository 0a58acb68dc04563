"""Listing files in folders; hidden ones are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path

from attnlab.data.images import IMAGE_SUFFIXES
from attnlab.errors import AttnlabError


def files_below(folder: Path, links: bool = True, hidden: bool = False) -> list[str]:
    """The files in a folder, recursively.

    Args:
        folder: The folder.
        links: Follow links to folders.
        hidden: Include hidden files, but not hidden folders.

    Returns:
        Paths relative to the folder, with ``/`` between the parts, sorted.
    """
    found: list[str] = []
    top = str(folder)
    for place, folders, files in os.walk(top, followlinks=links):
        folders[:] = [name for name in folders if not _hidden(name)]
        below = place[len(top) :].replace(os.sep, "/").lstrip("/")
        found += [f"{below}/{name}" if below else name for name in files if hidden or not _hidden(name)]
    return sorted(found)


def is_picture(name: str) -> bool:
    """Whether a file has an image suffix, in any case, and is not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not _hidden(name.rpartition("/")[2])


def listing(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the files and of the folders in a folder, sorted; empty if it does not exist."""
    if not folder.is_dir():
        return [], []
    with os.scandir(folder) as entries:
        there = sorted((entry.name, entry.is_dir()) for entry in entries if not _hidden(entry.name))
    return [name for name, is_dir in there if not is_dir], [name for name, is_dir in there if is_dir]


def names_in(folder: Path) -> list[str]:
    """The files and folders in a folder, folders with a ``/`` at the end, sorted; for errors."""
    files, folders = listing(folder)
    return sorted([*files, *(f"{name}/" for name in folders)])


def find_images(sources: str | Iterable[str]) -> list[Path]:
    """List image files.

    Args:
        sources: Files, folders (searched recursively) and patterns such as ``"shots/*.jpg"``.

    Returns:
        The files, each source's sorted by name, without duplicates.

    Raises:
        AttnlabError: A source does not exist or contains no images.
    """
    found: dict[Path, None] = {}
    for source in [sources] if isinstance(sources, str) else sources:
        path = Path(source)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(path / name for name in files_below(path, links=False) if is_picture(name))
        elif has_magic(source):
            names = glob(source, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
            files = sorted(Path(name) for name in names if Path(name).is_file())
        else:
            raise AttnlabError(f"No such image file or folder: '{source}'.")
        if not files:
            kinds = " ".join(IMAGE_SUFFIXES)
            raise AttnlabError(f"No images in '{source}'. Looked for files ending in {kinds}.")
        found.update(dict.fromkeys(files))
    return list(found)


def _hidden(name: str) -> bool:
    """Whether a file or folder is hidden or macOS metadata."""
    return name.startswith(".") or name == "__MACOSX"
