"""Reading pictures and index masks right, whatever mode their files are in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from attnlab.errors import AttnlabError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")

JPEG_SIGNATURE = b"\xff\xd8\xff"

# Torchvision announces the end of its decoders, in a warning that the operator itself does not repeat. Where
# it is gone, Pillow reads all files.
with suppress(ImportError):
    import torchvision.io  # noqa: F401 (registers the operator)
_JPEG_OP: Any = getattr(torch.ops.image, "decode_jpeg", None)
_AS_RGB = 3

# Baseline, extended and progressive frames. Tables, restart intervals and comments may come before them.
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_SEGMENTS = (0xC4, 0xDB, 0xDD, 0xFE)
# The orientation's tag in either byte order, and its name in XMP: without them a file holds none.
_ORIENTATION_MARKS = (b"\x01\x12", b"\x12\x01", b"Orientation")

FILE_HINT = "Fetch the file again, or take it off its list."
"""What to do about a file that cannot be read; it ends each message about one."""


def read_image(path: str | Path, exif: bool = True) -> Tensor:
    """Read a picture of any common format and mode as 8-bit RGB.

    Grey, 1-bit, palette, CMYK and YCbCr pictures become RGB; 16-bit grey is scaled to 8 bit; transparent
    pictures are laid on white, the ground that they are mostly made for. Of an animation it is the first
    frame.

    Args:
        path: The file. Its content decides on the format, not its name.
        exif: Turn the picture as its EXIF orientation says, so that it is upright.

    Returns:
        (3, H, W) uint8.

    Raises:
        AttnlabError: The file is missing, cut short, damaged, or no picture; the message names it.
    """
    with content(path, "image") as data:
        image = _decode_plain_jpeg(data, exif)
        return _decode(data, path, exif) if image is None else image


def read_mask(path: str | Path) -> Tensor:
    """Read an index mask: a palette or grey PNG whose pixel values are class indices.

    Returns:
        (H, W) uint8: the stored indices; the palette's colours do not matter.

    Raises:
        AttnlabError: The file is missing or damaged, or stores colours instead of indices.
    """
    with content(path, "mask") as data, Image.open(BytesIO(data)) as picture:
        if picture.mode not in ("P", "L", "1"):
            raise AttnlabError(
                f"The mask '{path}' is a picture of mode {picture.mode}; a mask is a palette or 8-bit grey "
                "picture whose pixel values are class indices. Convert its colours to indices."
            )
        return torch.from_numpy(np.array(picture, dtype=np.uint8))


@contextmanager
def content(path: str | Path, what: str) -> Iterator[bytes]:
    """A file's bytes; whatever their decoding raises becomes an error that names the file.

    Args:
        path: The file.
        what: What it is called: ``"image"`` or ``"mask"``.

    Raises:
        AttnlabError: The file cannot be opened, or its decoding fails.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise AttnlabError(f"Cannot open '{path}': {error.strerror or error}. {FILE_HINT}") from error
    try:
        yield data
    except AttnlabError:
        raise
    except Exception as error:  # Decoders raise whatever they like, even SyntaxError, on damaged data.
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, UnidentifiedImageError):  # Its own text shows a buffer's address.
            reason = "it is no picture of a known format, or damaged at its start"
        raise AttnlabError(f"Cannot read the {what} '{path}': {reason}. {FILE_HINT}") from error


def _decode_plain_jpeg(data: bytes, exif: bool) -> Tensor | None:
    """Decode an upright grey or RGB JPEG straight into a tensor: the same pixels as Pillow's, sooner.

    None for what is not such a file, or cannot be decoded: Pillow is to decide.
    """
    components, may_be_turned = (0, False) if _JPEG_OP is None else _jpeg_header(data)
    if components not in (1, 3) or (exif and may_be_turned and _turned(data)):
        return None
    try:
        return _JPEG_OP(torch.frombuffer(bytearray(data), dtype=torch.uint8), _AS_RGB)
    except RuntimeError:
        return None


def _jpeg_header(data: bytes) -> tuple[int, bool]:
    """A JPEG's number of colour components, and whether it may hold an orientation.

    The number is 0 if it is no JPEG of 8 bits and Huffman coding. The segments up to the frame's are read.
    """
    if not data.startswith(JPEG_SIGNATURE):
        return 0, False
    position, may_be_turned = 2, False
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # Fill bytes may stand before a marker.
            position += 1
            continue
        length = data[position + 2] << 8 | data[position + 3]
        if marker in _HUFFMAN_FRAMES:
            return data[position + 9] if data[position + 4] == 8 else 0, may_be_turned
        if marker == 0xE1:
            segment = data[position + 4 : position + 2 + length]
            may_be_turned |= any(mark in segment for mark in _ORIENTATION_MARKS)
        if not (0xE0 <= marker <= 0xEF or marker in _OTHER_SEGMENTS):
            break
        position += 2 + length
    return 0, False


def _turned(data: bytes) -> bool:
    with Image.open(BytesIO(data)) as picture:
        return picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)


def _decode(data: bytes, path: str | Path, exif: bool) -> Tensor:
    with Image.open(BytesIO(data)) as opened:
        picture: Image.Image = ImageOps.exif_transpose(opened) if exif else opened
        if picture.mode.startswith("I;16"):
            values = np.array(picture).astype(np.uint32)
            grey = torch.from_numpy(((values * 255 + 32767) // 65535).astype(np.uint8))
            return grey.expand(3, -1, -1)
        if picture.mode in ("I", "F"):
            raise AttnlabError(
                f"The image '{path}' stores numbers of no fixed range (mode {picture.mode}), so it is not "
                "known which of them is white. Convert it to 8 or 16 bit."
            )
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
