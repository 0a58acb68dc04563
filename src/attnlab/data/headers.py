"""What an image file says of itself before it is decoded: its size, within a limit, and its checksums."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

from PIL import Image

from attnlab.errors import AttnlabError

MAX_PIXELS = 200_000_000
"""Most pixels of an image or a mask, unless ``data.max_pixels`` says otherwise.

200 megapixels are what the largest sensors of cameras have, and take up to 4 GB per process that decodes.
"""

BYTES_PER_PIXEL = 20
JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Baseline, extended and progressive frames. Tables, restart intervals and comments may precede them.
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_SEGMENTS = (0xC4, 0xDB, 0xDD, 0xFE)
# The orientation tag in either byte order, and its name in XMP: without them there is no orientation.
_ORIENTATION_MARKS = (b"\x01\x12", b"\x12\x01", b"Orientation")
# Of most files, holds the header.
_START = 4096


class JPEGHeader(NamedTuple):
    """What precedes the pixels of an 8-bit JPEG with Huffman coding.

    Attributes:
        components: Number of colour components.
        size: Height and width in pixels.
        may_be_turned: Whether it may have an orientation.
    """

    components: int
    size: tuple[int, int]
    may_be_turned: bool


def jpeg_header(data: bytes) -> JPEGHeader | None:
    """Read a JPEG's segments up to the frame's; None for other files, and where ``data`` ends before it."""
    if not data.startswith(JPEG_SIGNATURE):
        return None
    position, may_be_turned = 2, False
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # Fill bytes may precede a marker.
            position += 1
            continue
        length = _number(data, position + 2, 2)
        if marker in _HUFFMAN_FRAMES:
            if data[position + 4] != 8:
                return None
            size = _number(data, position + 5, 2), _number(data, position + 7, 2)
            return JPEGHeader(data[position + 9], size, may_be_turned)
        if marker == 0xE1:
            segment = data[position + 4 : position + 2 + length]
            may_be_turned |= any(mark in segment for mark in _ORIENTATION_MARKS)
        if not (0xE0 <= marker <= 0xEF or marker in _OTHER_SEGMENTS):
            break
        position += 2 + length
    return None


def size_in(data: bytes) -> tuple[int, int] | None:
    """Height and width in the first bytes of a PNG, JPEG or WebP; None if they are not there.

    Pillow makes room for a WebP's pixels when it opens the file, so its size has to be known before.
    """
    if data.startswith(PNG_SIGNATURE) and data[12:16] == b"IHDR" and len(data) >= 24:
        return _number(data, 20, 4), _number(data, 16, 4)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        if data[12:16] == b"VP8X":
            return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
        if data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
        if data[12:16] == b"VP8 ":
            width, height = (int.from_bytes(data[k : k + 2], "little") & 0x3FFF for k in (26, 28))
            return height, width
    header = jpeg_header(data)
    return None if header is None else header.size


def _number(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(data[start : start + length], "big")


def refuse_too_large(size: tuple[int, int], path: str | Path, what: str, max_pixels: float) -> None:
    """Reject an image of more pixels than the limit.

    Args:
        size: Height and width.
        path: The file.
        what: ``"image"`` or ``"mask"``, for the message.
        max_pixels: The limit.

    Raises:
        AttnlabError: It has more.
    """
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        memory = f"{pixels * BYTES_PER_PIXEL / 1e9:.1f} GB of memory"
        raise AttnlabError(
            f"The {what} '{path}' has {size[1]} x {size[0]} = {pixels} pixels, more than the limit of "
            f"{max_pixels}: decoding it may take {memory}. If it is in order, allow it with "
            f"--data.max_pixels {pixels}."
        )


def stated_size(path: str | Path, max_pixels: int, what: str = "image") -> tuple[int, int]:
    """Height and width in an image's header, without decoding it.

    Args:
        path: The file.
        max_pixels: The limit.
        what: ``"image"`` or ``"mask"``, for the message.

    Raises:
        AttnlabError: It has more pixels than the limit.
        Exception: Pillow's errors, of any kind, if the header is damaged.
    """
    with open(path, "rb") as file:  # noqa: PTH123 (half the time of Path.open)
        size = size_in(file.read(_START))
        if size is None:
            with opened(file, path, what, max_pixels) as picture:
                return picture.height, picture.width
    refuse_too_large(size, path, what, max_pixels)
    return size


@contextmanager
def opened(file: BinaryIO, path: str | Path, what: str, max_pixels: float) -> Iterator[Image.Image]:
    """Open an image with Pillow, under attnlab's limit of pixels instead of Pillow's own.

    Args:
        file: The opened file, or its content.
        path: The file, for the message.
        what: ``"image"`` or ``"mask"``, for the message.
        max_pixels: The limit.

    Raises:
        AttnlabError: It has more pixels than the limit.
        Exception: Pillow's errors, of any kind, if the file is damaged.
    """
    file.seek(0)
    size = size_in(file.read(_START))
    if size is not None:
        refuse_too_large(size, path, what, max_pixels)
    with _pillow_allows(math.inf):
        picture = Image.open(file)
    # What is inside a file, such as the tiles of a TIFF, can claim more than the file itself.
    with picture, _pillow_allows(max_pixels):
        refuse_too_large((picture.height, picture.width), path, what, max_pixels)
        yield picture


_lock = Lock()
_allowed: list[float] = []
_before: list[int | None] = []


@contextmanager
def _pillow_allows(pixels: float) -> Iterator[None]:
    """Pillow warns above this many pixels, and refuses twice as many; afterwards it is as before.

    Its limit is one for all threads, so the largest of those in use holds.
    """
    with _lock:
        if not _allowed:
            _before.append(Image.MAX_IMAGE_PIXELS)
        _allowed.append(pixels)
        Image.MAX_IMAGE_PIXELS = max(_allowed)  # type: ignore[assignment]  # A number is compared.
    try:
        yield
    finally:
        with _lock:
            _allowed.remove(pixels)
            Image.MAX_IMAGE_PIXELS = max(_allowed) if _allowed else _before.pop()  # type: ignore[assignment]


def refuse_wrong_checksums(data: bytes, path: str | Path, what: str) -> None:
    """Compare the checksum of each chunk of a PNG, up to its end; other formats pass.

    Decoders skip those of the pixels, of which a changed bit makes others that look right. It takes 2 % of
    the time of decoding.

    Args:
        data: The file's content.
        path: The file.
        what: ``"image"`` or ``"mask"``, for the message.

    Raises:
        AttnlabError: One is wrong, or the file ends before its last chunk.
    """
    if not data.startswith(PNG_SIGNATURE):
        return
    view, position, kind = memoryview(data), len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        end = position + 8 + _number(data, position, 4)
        kind, checksum = data[position + 4 : position + 8], data[end : end + 4]
        if len(checksum) < 4:
            raise AttnlabError(f"The {what} '{path}' is truncated. {FILE_HINT}")
        if zlib.crc32(view[position + 4 : end]) != _number(checksum, 0, 4):
            which = kind.decode("ascii", "replace")
            raise AttnlabError(
                f"The {what} '{path}' is damaged: the checksum of its {which} chunk is wrong. {FILE_HINT}"
            )
        position = end + 4


FILE_HINT = "Get the file again, or remove it from its list."
"""Advice at the end of each message about an unreadable file."""
