"""Looking at every file of a data set before the first step, so that a bad one costs no night."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import torch.distributed as dist
from PIL import Image

from attnlab.data.check_memory import CheckMemory
from attnlab.data.images import FILE_HINT, JPEG_SIGNATURE, read_image
from attnlab.data.progress import Steps
from attnlab.data.transforms import too_small
from attnlab.errors import AttnlabError

CHECKS = ("quick", "full", "none")
"""How closely files can be looked at."""

MANY_FILES = 20_000
"""With more files than this, a progress bar is shown."""

_JOB = 64
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
# Cameras and editors leave a few bytes after a picture's end.
_TAIL = 64

Found = TypeVar("Found")


def find_bad_files(
    paths: Sequence[Path],
    depth: Literal["quick", "full"],
    least_size: int | None = None,
    root: str | Path | None = None,
) -> dict[int, str]:
    """Find the picture files that cannot be used: what is wrong, by position in ``paths``; see `look_at_all`.

    ``"full"`` decodes every file, which takes as long as an epoch's loading without training. Those that were
    found whole are remembered (`CheckMemory`).

    ``"quick"`` reads a few bytes of each JPEG and PNG: the signature at its start, and the mark of its end in
    the last 64 bytes. Files without either, and all of other formats, are decoded in full, and that decides.
    So files that are empty, cut short, filled up with zeros, or no pictures at all are found. What it cannot
    see is damage between the two ends of a file: a part in the middle that is overwritten or left out. Such
    a file is an error when its turn comes, or, as with any decoder, decodes to wrong pixels.

    Args:
        paths: The files.
        depth: How closely to look.
        least_size: If given, the pictures, of which then the headers are read too, must be at least so high
            and wide, in pixels.
        root: The data set's folder, which what was found is remembered by; None remembers nothing.
    """

    def look(position: int) -> str | None:
        path = paths[position]
        try:
            size = size_of(path)
        except AttnlabError as error:
            return str(error).removesuffix(FILE_HINT).rstrip()
        if size is not None and least_size is not None and min(size) < least_size:
            return f"The image '{path}': {too_small(*size, least_size)}"
        return None

    def size_of(path: Path) -> tuple[int, int] | None:
        """Height and width of a picture that is whole; None where they are not asked for."""
        if depth == "full":
            height, width = memory.found([path], lambda: "{} {}".format(*_decoded_size(path))).split()
            return int(height), int(width)
        if not _looks_whole(path):
            return _decoded_size(path)
        return None if least_size is None else _stated_size(path)

    title = f"Checking {len(paths)} files" if len(paths) > MANY_FILES else None
    with CheckMemory(root if depth == "full" else None) as memory:
        return look_at_all(len(paths), look, title)


def look_at_all(
    count: int, look: Callable[[int], Found | None], title: str | None = None
) -> dict[int, Found]:
    """Look at things 0 … count - 1, in threads, and in a distributed run each process at its share.

    Args:
        count: The number of things.
        look: Says what is to be known of one, e.g. what is wrong with it, or None. Called from many threads.
        title: Stands before a progress bar, which the first process then shows.

    Returns:
        What was said, in all processes, by position, in rising order, of those of which something was.
    """
    shared = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    share = range(rank, count, world)
    # Some hundred to a job: a million jobs would take gigabytes, and longer to hand out than to do.
    parts = [share[start : start + _JOB] for start in range(0, len(share), _JOB)]

    def look_at(part: range) -> dict[int, Found]:
        said = ((position, look(position)) for position in part)
        return {position: what for position, what in said if what is not None}

    found: dict[int, Found] = {}
    with ThreadPoolExecutor() as pool, Steps(shown=title is not None and rank == 0) as progress:
        task = progress.add_task(title or "", total=len(share))
        # Decoders release the interpreter's lock, so threads do.
        for part, said in zip(parts, pool.map(look_at, parts), strict=True):
            found |= said
            progress.advance(task, len(part))
    if shared:
        of_all: list[dict[int, Found]] = [{} for _ in range(world)]
        dist.all_gather_object(of_all, found)
        found = {position: what for said in of_all for position, what in said.items()}
    return dict(sorted(found.items()))


def summary(problems: Sequence[str], total: int, what: str, shown: int = 5) -> str:
    """The first problems, one a line, under a line that counts them all."""
    lines = [f"{len(problems)} of {total} files {what} cannot be used:"]
    lines += [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  … and {len(problems) - shown} more.")
    return "\n".join(lines)


def _decoded_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, decoded in full."""
    height, width = read_image(path).shape[-2:]
    if not _looks_whole(path) and _filled_up(path):
        raise AttnlabError(f"The image '{path}' is cut short, and filled up with zeros.")
    return height, width


def _looks_whole(path: Path) -> bool:
    """Whether a file starts as a JPEG or PNG does and ends so; False too if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (half the time of Path.open)
            start = file.read(len(_PNG_SIGNATURE))
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            tail = file.read(_TAIL)
    except OSError:
        return False
    if start.startswith(JPEG_SIGNATURE):
        return _JPEG_END in tail
    return start == _PNG_SIGNATURE and _PNG_END in tail


def _filled_up(path: Path) -> bool:
    """Whether a JPEG's data goes over into zeros without an end, which decoders take for a grey area."""
    data = path.read_bytes()
    body = data.rstrip(b"\0")
    return (
        data.startswith(JPEG_SIGNATURE) and len(data) - len(body) >= _TAIL and _JPEG_END not in body[-_TAIL:]
    )


def _stated_size(path: Path) -> tuple[int, int]:
    """Height and width that a picture's header names."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except Exception as error:  # Decoders raise whatever they like on damaged data.
        raise AttnlabError(f"Cannot read the header of the image '{path}': {error}.") from error
