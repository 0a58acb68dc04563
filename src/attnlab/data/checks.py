"""Checks every file of a data set before the first step, so that a bad one does not end a long run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import torch.distributed as dist

from attnlab.data.check_memory import CheckMemory
from attnlab.data.headers import FILE_HINT, JPEG_SIGNATURE, MAX_PIXELS, PNG_SIGNATURE, stated_size
from attnlab.data.images import read_image
from attnlab.data.progress import Steps
from attnlab.data.transforms import too_small
from attnlab.errors import AttnlabError

CHECKS = ("quick", "full", "none")
"""How thoroughly files can be checked."""

MANY_FILES = 20_000
"""With more files than this, a progress bar is shown."""

_JOB = 64
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
# Cameras and editors leave a few bytes after an image's end.
_TAIL = 64

Found = TypeVar("Found")


def find_bad_files(
    paths: Sequence[Path],
    depth: Literal["quick", "full"],
    least_size: int | None = None,
    root: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> dict[int, str]:
    """Find unusable image files: the problem, by position in ``paths``; see `look_at_all`.

    At any depth the headers are read, and nothing that states more pixels than ``max_pixels`` is decoded.

    ``"full"`` decodes every file, which takes as long as an epoch's loading without training. Intact ones are
    remembered (`CheckMemory`).

    ``"quick"`` reads a few bytes of each JPEG and PNG: the signature at the start and the end marker in the
    last 64 bytes. Files that lack one, and all other formats, are decoded. This finds files that are empty,
    truncated, padded with zeros or not images. It misses damage in the middle of a file, which fails when the
    file is used or, as with any decoder, gives wrong pixels.

    Args:
        paths: The files.
        depth: How thoroughly to check.
        least_size: Smallest height and width in pixels, if any.
        root: The data set's folder, under which results are remembered; None remembers nothing.
        max_pixels: The most pixels that an image may have.
    """

    def look(position: int) -> str | None:
        path = paths[position]
        try:
            size = size_of(path)
        except AttnlabError as error:
            return str(error).removesuffix(FILE_HINT).rstrip()
        if least_size is not None and min(size) < least_size:
            return f"The image '{path}': {too_small(*size, least_size)}"
        return None

    def size_of(path: Path) -> tuple[int, int]:
        """Height and width of an intact image."""
        # Before what is remembered: the limit may have changed.
        size = size_within(path, max_pixels)
        if depth == "full":
            height, width = memory.found([path], lambda: "{} {}".format(*decoded(path))).split()
            return int(height), int(width)
        return size if size is not None and _looks_whole(path) else decoded(path)

    def decoded(path: Path) -> tuple[int, int]:
        return _decoded_size(path, max_pixels)

    title = f"Checking {len(paths)} files" if len(paths) > MANY_FILES else None
    with CheckMemory(root if depth == "full" else None) as memory:
        return look_at_all(len(paths), look, title)


def look_at_all(
    count: int, look: Callable[[int], Found | None], title: str | None = None
) -> dict[int, Found]:
    """Check things 0 … count - 1 in threads; in a distributed run, each process checks its share.

    Args:
        count: The number of things.
        look: Returns the finding for one, e.g. its problem, or None. Called from many threads.
        title: Title of a progress bar, shown by the first process.

    Returns:
        The findings of all processes by position, in ascending order, without None.
    """
    shared = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    share = range(rank, count, world)
    # A few hundred per job: a million jobs would take gigabytes, and more time to submit than to run.
    parts = [share[start : start + _JOB] for start in range(0, len(share), _JOB)]

    def look_at(part: range) -> dict[int, Found]:
        said = ((position, look(position)) for position in part)
        return {position: what for position, what in said if what is not None}

    found: dict[int, Found] = {}
    with ThreadPoolExecutor() as pool, Steps(shown=title is not None and rank == 0) as progress:
        task = progress.add_task(title or "", total=len(share))
        # Decoders release the GIL, so threads suffice.
        for part, said in zip(parts, pool.map(look_at, parts), strict=True):
            found |= said
            progress.advance(task, len(part))
    if shared:
        of_all: list[dict[int, Found]] = [{} for _ in range(world)]
        dist.all_gather_object(of_all, found)
        found = {position: what for said in of_all for position, what in said.items()}
    return dict(sorted(found.items()))


def summary(problems: Sequence[str], total: int, what: str, shown: int = 5) -> str:
    """The first problems, one per line, under a line with their number."""
    lines = [f"{len(problems)} of {total} files {what} cannot be used:"]
    lines += [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  … and {len(problems) - shown} more.")
    return "\n".join(lines)


def size_within(path: Path, max_pixels: int, what: str = "image") -> tuple[int, int] | None:
    """Height and width in an image's header; None if it cannot be read, for decoding to say why.

    Args:
        path: The file.
        max_pixels: The limit.
        what: ``"image"`` or ``"mask"``, for the message.

    Raises:
        AttnlabError: It has more pixels than the limit.
    """
    try:
        return stated_size(path, max_pixels, what)
    except AttnlabError:
        raise
    except Exception:  # Pillow raises errors of any kind on damaged data.
        return None


def _decoded_size(path: Path, max_pixels: int) -> tuple[int, int]:
    """Height and width of an image, decoded in full."""
    height, width = read_image(path, max_pixels=max_pixels).shape[-2:]
    if not _looks_whole(path) and _filled_up(path):
        raise AttnlabError(f"The image '{path}' is truncated and padded with zeros.")
    return height, width


def _looks_whole(path: Path) -> bool:
    """Whether a file starts and ends like a JPEG or PNG; False if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (half the time of Path.open)
            start = file.read(len(PNG_SIGNATURE))
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            tail = file.read(_TAIL)
    except OSError:
        return False
    if start.startswith(JPEG_SIGNATURE):
        return _JPEG_END in tail
    return start == PNG_SIGNATURE and _PNG_END in tail


def _filled_up(path: Path) -> bool:
    """Whether a JPEG's data turns into zeros before its end, which decoders show as a grey area."""
    data = path.read_bytes()
    body = data.rstrip(b"\0")
    return (
        data.startswith(JPEG_SIGNATURE) and len(data) - len(body) >= _TAIL and _JPEG_END not in body[-_TAIL:]
    )
