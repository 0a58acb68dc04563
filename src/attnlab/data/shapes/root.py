"""The folder for drawn data sets: attnlab's own or empty, never the user's."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnlab.data.names import listed
from attnlab.errors import AttnlabError

MARKER = ".attnlab-shapes"
"""The file that marks a root as attnlab's."""

STAMP = "scenes.json"
"""The file in a drawn data set that records its options."""

_MARKER_TEXT = "attnlab draws data sets into this folder. They are redrawn if removed.\n"
# Files that may be in an empty folder: notes, and file-system metadata.
_NO_CONTENT = re.compile(r"\..*|readme(\.\w+)?|lost\+found|desktop\.ini|thumbs\.db", re.IGNORECASE)


def stamped_folder(root: str, stamp: dict[str, Any]) -> Path:
    """The folder in ``root`` for a drawn data set, named by a hash of everything it depends on."""
    return Path(root) / _hash(stamp)


def write_once(root: str, stamp: dict[str, Any], write: Callable[[Path], None], own_data: str) -> None:
    """Make a drawn data set in its `stamped_folder`, unless it exists.

    Args:
        root: Folder for the drawn data sets.
        stamp: Everything its content depends on; saved in it as ``scenes.json``.
        write: Writes the data set into an empty folder.
        own_data: The module to suggest if the root contains the user's own data.

    Raises:
        AttnlabError: The root contains the user's files, or cannot be written to.
    """
    is_new = _refuse_foreign(root, own_data)
    folder = stamped_folder(root, stamp)
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Written elsewhere and renamed at the end, so that it is always complete.
        temporary = Path(tempfile.mkdtemp(prefix=".drawing-", dir=folder.parent))
        try:
            write(temporary)
            (temporary / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        marker = folder.parent / MARKER
        if is_new and not marker.exists():
            marker.write_text(_MARKER_TEXT, encoding="utf-8")
    except OSError as error:
        if not folder.is_dir():  # Otherwise another run was faster, with the same scenes.
            raise AttnlabError(
                f"Cannot write the drawn scenes into '{root}': {error.strerror or error}. Choose another "
                "folder with --data.root."
            ) from error


def _refuse_foreign(root: str, own_data: str) -> bool:
    """Reject a root with the user's files; returns whether it is empty."""
    advice = f"To use your own images: {own_data}. For the drawn data set, leave data.root out, or set it to"
    folder = Path(root)
    existing = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), folder)
    if not existing.is_dir() and os.path.lexists(existing):
        raise AttnlabError(
            f"data.root is '{root}', but '{existing}' is a file, not a folder. {advice} a new folder."
        )
    try:
        there = sorted(os.listdir(folder)) if existing == folder else []  # noqa: PTH208 (names alone)
    except OSError as error:
        raise AttnlabError(f"Cannot look into data.root '{root}': {error.strerror}.") from error
    content = [name for name in there if not _NO_CONTENT.fullmatch(name)]
    if content and MARKER not in there and not any(_is_drawn(folder / name) for name in content):
        raise AttnlabError(
            f"data.root is '{root}', which contains {listed(content, 5)} and was not made by attnlab, so "
            f"nothing is drawn into it. {advice} a new folder."
        )
    return not content


def _hash(stamp: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()[:12]


def _is_drawn(folder: Path) -> bool:
    """Whether a folder is a drawn data set: its name is the hash of its stamp."""
    try:
        return _hash(json.loads((folder / STAMP).read_bytes())) == folder.name
    except (OSError, ValueError):
        return False
