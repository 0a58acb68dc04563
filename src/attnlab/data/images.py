"""Reading images and index masks of any file mode."""

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

# Torchvision warns on import that its decoders will be removed. Without them, Pillow reads all files.
with suppress(ImportError):
    import torchvision.io  # noqa: F401 (registers the operator)
_JPEG_OP: Any = getattr(torch.ops.image, "decode_jpeg", None)
_AS_RGB = 3

# Baseline, extended and progressive frames. Tables, restart intervals and comments may precede them.
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_SEGMENTS = (0xC4, 0xDB, 0xDD, 0xFE)
# The orientation tag in either byte order, and its name in XMP: without them there is no orientation.
_ORIENTATION_MARKS = (b"\x01\x12", b"\x12\x01", b"Orientation")

FILE_HINT = "Get the file again, or remove it from its list."
"""Advice at the end of each message about an unreadable file."""


def read_image(path: str | Path, exif: bool = True) -> Tensor:
    """Read an image of any common format and mode as 8-bit RGB.

    Grey, 1-bit, palette, CMYK and YCbCr images become RGB; 16-bit grey is scaled to 8 bits; transparent
    images are composed on white. Of an animation, the first frame is read.

    Args:
        path: The file; its content, not its name, determines the format.
        exif: Apply the EXIF orientation, so that the image is upright.

    Returns:
        (3, H, W) uint8.

    Raises:
        AttnlabError: The file is missing, truncated, damaged or not an image.
    """
    with content(path, "image") as data:
        image = _decode_plain_jpeg(data, exif)
        return _decode(data, path, exif) if image is None else image


def read_mask(path: str | Path) -> Tensor:
    """Read an index mask: a palette or grey PNG whose pixel values are class indices.

    Returns:
        (H, W) uint8: the stored indices, whatever the palette's colours.

    Raises:
        AttnlabError: The file is missing or damaged, or stores colours instead of indices.
    """
    with content(path, "mask") as data, Image.open(BytesIO(data)) as picture:
        if picture.mode not in ("P", "L", "1"):
            raise AttnlabError(
                f"The mask '{path}' has the mode {picture.mode}; a mask is a palette or 8-bit grey image "
                "whose pixel values are class indices. Convert its colours to indices."
            )
        return torch.from_numpy(np.array(picture, dtype=np.uint8))


@contextmanager
def content(path: str | Path, what: str) -> Iterator[bytes]:
    """A file's bytes; errors in decoding become errors that name the file.

    Args:
        path: The file.
        what: ``"image"`` or ``"mask"``, for the message.

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
    except Exception as error:  # Decoders raise errors of any kind, even SyntaxError, on damaged data.
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, UnidentifiedImageError):  # Its own text shows a memory address.
            reason = "it is not an image of a known format, or its header is damaged"
        raise AttnlabError(f"Cannot read the {what} '{path}': {reason}. {FILE_HINT}") from error


def _decode_plain_jpeg(data: bytes, exif: bool) -> Tensor | None:
    """Decode an upright grey or RGB JPEG straight into a tensor: the same pixels as Pillow's, faster.

    None for other or undecodable files, which are left to Pillow.
    """
    components, may_be_turned = (0, False) if _JPEG_OP is None else _jpeg_header(data)
    if components not in (1, 3) or (exif and may_be_turned and _turned(data)):
        return None
    try:
        return _JPEG_OP(torch.frombuffer(bytearray(data), dtype=torch.uint8), _AS_RGB)
    except RuntimeError:
        return None


def _jpeg_header(data: bytes) -> tuple[int, bool]:
    """A JPEG's number of colour components, and whether it may have an orientation.

    The number is 0 unless it is an 8-bit JPEG with Huffman coding. Reads the segments up to the frame's.
    """
    if not data.startswith(JPEG_SIGNATURE):
        return 0, False
    position, may_be_turned = 2, False
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # Fill bytes may precede a marker.
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
                f"The image '{path}' stores numbers without a fixed range (mode {picture.mode}), so white "
                "is unknown. Convert it to 8 or 16 bits."
            )
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
