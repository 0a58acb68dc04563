"""Remembers between runs which files were decoded and found intact."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_LINE = re.compile(r"^([0-9a-f]{32}) ([0-9: ]+)\n", re.MULTILINE)
# To be changed with what a full check refuses: files that an earlier one let pass are looked at again.
_RULES = "PNG checksums"
# Writes within one tick of the file system's clock have the same date.
_SETTLED_SECONDS = 2.0


def cache_folder() -> Path:
    """The cache folder, safe to delete: ``$XDG_CACHE_HOME/attnlab``, or ``~/.cache/attnlab``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnlab"


class CheckMemory:
    """Results of full checks, by the files' paths, sizes and dates.

    Only intact files are remembered; bad ones are checked again. One line per file is appended to the data
    set's own text file in `cache_folder`, by any number of processes; a damaged line or file only costs
    another check. Use it as a context manager: results are written at its end.

    Args:
        root: The data set's folder, from which the text file is named; None remembers nothing.
        what: What is checked, if more than whether files are intact.
    """

    def __init__(self, root: str | Path | None, what: str = "") -> None:
        name = hashlib.sha256(os.fsencode(Path(root or "").absolute())).hexdigest()[:16]
        self.path = cache_folder() / "checked" / f"{name}.txt"
        self._remembers = root is not None
        self._what = what
        self._known: dict[str, str] = {}
        self._new: dict[str, str] = {}
        with suppress(OSError, ValueError):
            self._known |= _LINE.findall(self.path.read_text(encoding="utf-8"))

    def key(self, *files: str | Path) -> str | None:
        """The key of files in their present state; None if one is missing or was changed just now."""
        parts = [_RULES, self._what]
        for file in files:
            try:
                stat = os.stat(file)  # noqa: PTH116 (a third of the time of Path.stat)
            except OSError:
                return None
            if time.time() - stat.st_mtime < _SETTLED_SECONDS:
                return None
            parts.append(f"{os.path.abspath(file)}\n{stat.st_size}\n{stat.st_mtime_ns}")  # noqa: PTH100
        return hashlib.sha256(os.fsencode("\n".join(parts))).hexdigest()[:32]

    def found(self, files: Sequence[str | Path], look: Callable[[], str]) -> str:
        """The result of checking files, now or earlier: digits, colons and spaces. Errors are not kept."""
        key = self.key(*files) if self._remembers else None
        if key is None:
            return look()
        if key not in self._known:
            self._known[key] = self._new[key] = look()
        return self._known[key]

    def __enter__(self) -> CheckMemory:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._new:
            return
        with suppress(OSError):  # A read-only home: the next run checks again.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(f"{key} {text}\n" for key, text in self._new.items()))
