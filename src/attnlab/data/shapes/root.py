"""The folder that drawn data sets are written into: attnlab's own, or empty; never one of the user's."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from attnlab.data.names import listed
from attnlab.errors import AttnlabError

MARKER = ".attnlab-shapes"
"""The file by which a root is known again as attnlab's."""

STAMP = "scenes.json"
"""The file in a drawn data set that spells out what it was drawn from."""

_MARKER_TEXT = "attnlab draws data sets into this folder. They are drawn anew if they are removed.\n"
# What stands in folders that people call empty: notes about them, and what a file system keeps for itself.
_NO_CONTENT = re.compile(r"\..*|readme(\.\w+)?|lost\+found|desktop\.ini|thumbs\.db", re.IGNORECASE)


def stamped_folder(root: str, stamp: dict[str, Any]) -> Path:
    """The folder below ``root`` for a drawn data set: named by a hash of all that its content depends on."""
    return Path(root) / _hash(stamp)


def refuse_foreign(root: str, own_data: str) -> bool:
    """Refuse a root that holds files of the user's and nothing that attnlab has drawn.

    Hidden files and a README do not count as content.

    Args:
        root: Where drawn data sets are to be.
        own_data: What reads data of one's own, for the error.

    Returns:
        Whether the root is new: not there, or without content.

    Raises:
        AttnlabError: It is such a folder, or no folder.
    """
    folder = Path(root)
    existing = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), folder)
    if not existing.is_dir() and os.path.lexists(existing):
        raise AttnlabError(
            f"data.root is '{root}', but '{existing}' is a file: scenes are drawn into a folder. "
            f"{_advice(own_data)}"
        )
    try:
        there = sorted(os.listdir(folder)) if existing == folder else []  # noqa: PTH208 (names alone)
    except OSError as error:
        raise AttnlabError(f"Cannot look into data.root '{root}': {error.strerror}.") from error
    content = [name for name in there if not _NO_CONTENT.fullmatch(name)]
    if not content:
        return True
    if MARKER not in there and not any(_is_drawn(folder / name) for name in content):
        raise AttnlabError(
            f"data.root is '{root}', which holds {listed(content, 5)} and was not made by attnlab: nothing "
            f"is drawn into a folder of your own. {_advice(own_data)}"
        )
    return False


def leave_marker(root: str) -> None:
    """Mark a root as attnlab's."""
    marker = Path(root) / MARKER
    if not marker.exists():
        marker.write_text(_MARKER_TEXT, encoding="utf-8")


def _advice(own_data: str) -> str:
    return (
        f"Pictures of your own are read by {own_data}. For drawn ones, leave data.root out, or name a new "
        "folder."
    )


def _hash(stamp: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()[:12]


def _is_drawn(folder: Path) -> bool:
    """Whether a folder is a drawn data set: its name is the hash of what the stamp in it says."""
    try:
        return _hash(json.loads((folder / STAMP).read_bytes())) == folder.name
    except (OSError, ValueError):
        return False
