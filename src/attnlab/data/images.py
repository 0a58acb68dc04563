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

from attnlab.data.headers import (
    FILE_HINT,
    MAX_PIXELS,
    jpeg_header,
    opened,
    refuse_too_large,
    refuse_wrong_checksums,
)
from attnlab.errors import AttnlabError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")

# Torchvision warns on import that its decoders will be removed. Without them, Pillow reads all files.
with suppress(ImportError):
    import torchvision.io  # noqa: F401 (registers the operator)
_JPEG_OP: Any = getattr(torch.ops.image, "decode_jpeg", None)
_AS_RGB = 3


def read_image(path: str | Path, exif: bool = True, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read an image of any common format and mode as 8-bit RGB.

    Grey, 1-bit, palette, CMYK and YCbCr images become RGB; 16-bit grey is scaled to 8 bits; transparent
    images are composed on white. Of an animation, the first frame is read.

    Args:
        path: The file; its content, not its name, determines the format.
        exif: Apply the EXIF orientation, so that the image is upright.
        max_pixels: The most pixels that it may have.

    Returns:
        (3, H, W) uint8.

    Raises:
        AttnlabError: The file is missing, truncated, damaged, too large or not an image.
    """
    with content(path, "image") as data:
        image = _decode_plain_jpeg(data, path, exif, max_pixels)
        return _decode(data, path, exif, max_pixels) if image is None else image


def read_mask(path: str | Path, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read an index mask: a palette or grey PNG whose pixel values are class indices.

    Args:
        path: The file.
        max_pixels: The most pixels that it may have.

    Returns:
        (H, W) uint8: the stored indices, whatever the palette's colours.

    Raises:
        AttnlabError: The file is missing, damaged or too large, or stores colours instead of indices.
    """
    with content(path, "mask") as data, opened(BytesIO(data), path, "mask", max_pixels) as picture:
        if picture.mode not in ("P", "L", "1"):
            raise AttnlabError(
                f"The mask '{path}' has the mode {picture.mode}; a mask is a palette or 8-bit grey image "
                "whose pixel values are class indices. Convert its colours to indices."
            )
        return torch.from_numpy(np.array(picture, dtype=np.uint8))


@contextmanager
def content(path: str | Path, what: str) -> Iterator[bytes]:
    """A file's bytes, of a PNG with right checksums; errors in decoding become errors that name the file.

    Args:
        path: The file.
        what: ``"image"`` or ``"mask"``, for the message.

    Raises:
        AttnlabError: The file cannot be opened, a checksum is wrong, or its decoding fails.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise AttnlabError(f"Cannot open '{path}': {error.strerror or error}. {FILE_HINT}") from error
    refuse_wrong_checksums(data, path, what)
    try:
        yield data
    except AttnlabError:
        raise
    except Exception as error:  # Decoders raise errors of any kind, even SyntaxError, on damaged data.
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, UnidentifiedImageError):  # Its own text shows a memory address.
            reason = "it is not an image of a known format, or its header is damaged"
        raise AttnlabError(f"Cannot read the {what} '{path}': {reason}. {FILE_HINT}") from error


def _decode_plain_jpeg(data: bytes, path: str | Path, exif: bool, max_pixels: int) -> Tensor | None:
    """Decode an upright grey or RGB JPEG straight into a tensor: the same pixels as Pillow's, faster.

    None for other or undecodable files, which are left to Pillow.
    """
    header = None if _JPEG_OP is None else jpeg_header(data)
    if header is None or header.components not in (1, 3):
        return None
    refuse_too_large(header.size, path, "image", max_pixels)
    if exif and header.may_be_turned and _turned(data, path, max_pixels):
        return None
    try:
        return _JPEG_OP(torch.frombuffer(bytearray(data), dtype=torch.uint8), _AS_RGB)
    except RuntimeError:
        return None


def _turned(data: bytes, path: str | Path, max_pixels: int) -> bool:
    with opened(BytesIO(data), path, "image", max_pixels) as picture:
        return picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)


def _decode(data: bytes, path: str | Path, exif: bool, max_pixels: int) -> Tensor:
    with opened(BytesIO(data), path, "image", max_pixels) as stored:
        picture: Image.Image = ImageOps.exif_transpose(stored) if exif else stored
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
