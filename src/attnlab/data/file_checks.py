"""Checking the files of a classification data set, up to millions of them, before the first step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from attnlab.data.checks import look_at_all
from attnlab.data.detection_sets import DetectionItems, size_mismatch
from attnlab.data.images import FILE_HINT, JPEG_SIGNATURE, read_image
from attnlab.data.transforms import too_small
from attnlab.errors import AttnlabError

MANY_FILES = 20_000
"""With more files than this, a progress bar is shown."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
# Cameras and editors leave a few bytes after a picture's end.
_TAIL = 64


def find_bad_files(
    paths: Sequence[Path], depth: Literal["quick", "full"], crop_size: int | None = None
) -> dict[int, str]:
    """Find the picture files that cannot be used.

    ``"full"`` decodes every file, which takes as long as an epoch's loading without training.

    ``"quick"`` reads a few bytes of each JPEG and PNG: the signature at its start, and the mark of its end in
    the last 64 bytes. Files without either, and all of other formats, are decoded in full, and that decides.
    So files that are empty, cut short, filled up with zeros, or no pictures at all are found. What it cannot
    see is damage between the two ends of a file: a part in the middle that is overwritten or left out. Such
    a file is an error when its turn comes, or, as with any decoder, decodes to wrong pixels.

    In a distributed run each process looks at its share, and all learn of all that is found.

    Args:
        paths: The files.
        depth: How closely to look.
        crop_size: If given, the pictures, of which then the headers are read too, must be at least so high
            and wide, in pixels.

    Returns:
        What is wrong, by position in ``paths``, of those with which something is.
    """

    def look(position: int) -> str | None:
        path = paths[position]
        try:
            whole = _looks_whole(path)
            if depth == "full" or not whole:
                height, width = read_image(path).shape[-2:]
                if not whole and _filled_up(path):
                    return f"The image '{path}' is cut short, and filled up with zeros."
            elif crop_size is not None:
                height, width = _size(path)
            else:
                return None
        except AttnlabError as error:
            return str(error).removesuffix(FILE_HINT).rstrip()
        if crop_size is not None and min(height, width) < crop_size:
            return f"The image '{path}': {too_small(height, width, crop_size)}"
        return None

    title = f"Checking {len(paths)} files" if len(paths) > MANY_FILES else None
    return look_at_all(len(paths), look, title)


def find_wrong_sizes(items: DetectionItems) -> dict[int, str]:
    """The images whose files are not of the size that their annotations state, by position."""

    def look(position: int) -> str | None:
        path = items.paths[position]
        try:
            with Image.open(path) as picture:
                return size_mismatch(path, (picture.height, picture.width), items.sizes[position].tolist())
        except Exception:  # What cannot be opened is found, and said, by the check of the files.
            return None

    return look_at_all(len(items), look)


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


def _size(path: Path) -> tuple[int, int]:
    """Height and width that a picture's header names."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except Exception as error:  # Decoders raise whatever they like on damaged data.
        raise AttnlabError(f"Cannot read the header of the image '{path}': {error}.") from error
