"""Reading pictures and index masks right, whatever mode their files are in."""

from __future__ import annotations

from collections.abc import Iterable
from glob import glob, has_magic
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attnlab.errors import AttnlabError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")

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
    data = _read_bytes(path)
    try:
        return _decode(data, path, exif)
    except AttnlabError:
        raise
    except Exception as error:  # Decoders raise whatever they like, even SyntaxError, on damaged data.
        raise AttnlabError(f"Cannot read the image '{path}': {_first_line(error)}. {FILE_HINT}") from error


def read_mask(path: str | Path) -> Tensor:
    """Read an index mask: a palette or grey PNG whose pixel values are class indices.

    Returns:
        (H, W) uint8: the stored indices; the palette's colours do not matter.

    Raises:
        AttnlabError: The file is missing or damaged, or stores colours instead of indices.
    """
    data = _read_bytes(path)
    try:
        with Image.open(BytesIO(data)) as picture:
            if picture.mode not in ("P", "L", "1"):
                raise AttnlabError(
                    f"The mask '{path}' is a picture of mode {picture.mode}; a mask is a palette or 8-bit "
                    "grey picture whose pixel values are class indices. Convert its colours to indices."
                )
            return torch.from_numpy(np.array(picture, dtype=np.uint8))
    except AttnlabError:
        raise
    except Exception as error:
        raise AttnlabError(f"Cannot read the mask '{path}': {_first_line(error)}. {FILE_HINT}") from error


def find_images(sources: str | Iterable[str]) -> list[Path]:
    """List picture files.

    Args:
        sources: Files, folders (searched with all folders below them) and patterns such as ``"shots/*.jpg"``.

    Returns:
        The files, each source's in order of name, none twice.

    Raises:
        AttnlabError: A source is not there or holds no picture.
    """
    found: dict[Path, None] = {}
    for source in [sources] if isinstance(sources, str) else sources:
        path = Path(source)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        elif has_magic(source):
            names = glob(source, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
            files = sorted(Path(name) for name in names if Path(name).is_file())
        else:
            raise AttnlabError(f"No such file or folder of images: '{source}'.")
        if not files:
            kinds = " ".join(IMAGE_SUFFIXES)
            raise AttnlabError(f"No images in '{source}'. Looked for files that end in {kinds}.")
        found.update(dict.fromkeys(files))
    return list(found)


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


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AttnlabError(f"Cannot open '{path}': {error.strerror or error}. {FILE_HINT}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
