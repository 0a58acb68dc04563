"""Masks as other tools write them: binary, other numbers, or colours."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attnlab.data.headers import MAX_PIXELS, opened
from attnlab.data.images import content
from attnlab.data.names import listed
from attnlab.data.text_files import read_text
from attnlab.errors import AttnlabError

Colour = tuple[int, int, int]

IGNORED = 255
"""The index for pixels without a class."""

_INDICES = ("P", "L", "1")
_LOSSY = ("JPEG", "MPO")
_HINTS = {
    "index": "Add them to data.label_map or data.ignore, or correct the mask.",
    "binary": "A binary mask holds only 0 and 255: one that was interpolated or saved as JPEG does not.",
    "colours": "Add them to data.colours.",
}


@dataclass(frozen=True)
class CodedMaskReader:
    """Reads masks whose pixels are numbers or colours that stand for classes.

    It can be pickled for loader workers, and its repr covers everything its output depends on.

    Attributes:
        stored: What the pixels are. ``"index"``: numbers, in a palette, grey or 16-bit grey image.
            ``"binary"``: black and white, however stored. ``"colours"``: colours, also of a palette.
        classes: Class index, or 255 for "ignore", by pixel code. A colour's code is 0xRRGGBB.
        unlisted: What to do about other codes: reject the mask, or ignore the pixels.
        max_pixels: The most pixels that a mask may have.
    """

    stored: Literal["index", "binary", "colours"]
    classes: tuple[tuple[int, int], ...]
    unlisted: Literal["error", "ignore"] = "error"
    max_pixels: int = MAX_PIXELS

    def __call__(self, path: Path) -> Tensor:
        """Read a mask.

        Returns:
            (H, W) uint8, class indices, and 255 for ignored pixels.

        Raises:
            AttnlabError: The file is missing, damaged, too large, a JPEG, of another kind, or holds a code
                without a class.
        """
        codes = self._codes(path)
        few = codes.dtype == np.uint8
        found = self._look_up(np.arange(256) if few else codes)
        # As uint8, the -1 of unknown codes is 255.
        labels = found.astype(np.uint8)
        if self.unlisted == "error":
            strange = (found < 0)[codes] if few else found < 0
            if strange.any():
                raise self._unlisted(path, codes[strange])
        return torch.from_numpy(labels[codes] if few else labels)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        pairs = np.array(sorted(self.classes), np.int64)
        return pairs[:, 0].astype(np.int32), pairs[:, 1].astype(np.int16)

    def _look_up(self, codes: np.ndarray) -> np.ndarray:
        """The class of each code, or -1."""
        known, classes = self._sorted
        places = np.searchsorted(known, codes.astype(np.int32, copy=False)).clip(max=len(known) - 1)
        return np.where(known[places] == codes, classes[places], np.int16(-1))

    def _codes(self, path: Path) -> np.ndarray:
        with content(path, "mask") as data, opened(BytesIO(data), path, "mask", self.max_pixels) as picture:
            return self._codes_of(picture, path)

    def _codes_of(self, picture: Image.Image, path: Path) -> np.ndarray:
        """The pixels as numbers: (H, W), uint8 or int32."""
        if picture.format in _LOSSY:
            raise AttnlabError(
                f"The mask '{path}' is a JPEG, whose compression changes pixel values and thus classes. "
                "Save masks as PNG."
            )
        of_many_bits = picture.mode == "I" or picture.mode.startswith("I;16")
        if self.stored == "index":
            if of_many_bits or picture.mode in _INDICES:
                return np.array(picture).astype(np.int32 if of_many_bits else np.uint8, copy=False)
            raise AttnlabError(
                f"The mask '{path}' stores colours (mode {picture.mode}), but none are defined. Set "
                "data.colours or, for a black and white mask, --data.binary true."
            )
        if of_many_bits and self.stored == "binary":
            return np.array(picture).astype(np.int32)
        if of_many_bits or picture.mode == "F":
            raise AttnlabError(
                f"The mask '{path}' stores numbers (mode {picture.mode}), where {self.stored} were expected."
            )
        pixels = np.array(picture.convert("RGB"))
        if self.stored == "binary" and (pixels == pixels[:, :, :1]).all():
            return np.ascontiguousarray(pixels[:, :, 0])
        wide = pixels.astype(np.int32)
        codes = wide[:, :, 0] << 16 | wide[:, :, 1] << 8 | wide[:, :, 2]
        if self.stored == "binary":
            other = (pixels != pixels[:, :, :1]).any(2)
            raise AttnlabError(
                f"The mask '{path}' is not black and white, although data.binary is set: it contains "
                f"{_shown_colours(codes[other])}."
            )
        return codes

    def _unlisted(self, path: Path, codes: np.ndarray) -> AttnlabError:
        if self.stored == "colours":
            holds = _shown_colours(codes)
        else:
            values = [str(value) for value in np.unique(codes).tolist()]
            holds = f"the value{'s' * (len(values) > 1)} {listed(values)}"
        known = _ranges([code for code, label in self.classes if label != IGNORED or code == IGNORED])
        which = "" if self.stored == "colours" else f", but {known} are known"
        return AttnlabError(
            f"The mask '{path}' has {holds} in {len(codes)} pixels, which belong to no class{which}. "
            f"{_HINTS[self.stored]} Or ignore such pixels with --data.unlisted ignore."
        )


def colour_code(colour: Sequence[int]) -> int:
    """A colour as one number, 0xRRGGBB."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def check_colours(colours: Mapping[str, Sequence[int]], where: str) -> dict[str, Colour]:
    """Reject invalid colours, and two names for one.

    Args:
        colours: Colour by name.
        where: The option or the file.

    Raises:
        AttnlabError: A colour is invalid, or two are the same.
    """
    names: dict[Colour, str] = {}
    for name, colour in colours.items():
        if len(colour) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in colour):
            raise AttnlabError(
                f"In {where}, the colour of '{name}' is {list(colour)}; it must be red, green and blue, each "
                "0 to 255."
            )
        red, green, blue = colour
        other = names.setdefault((red, green, blue), name)
        if other != name:
            raise AttnlabError(
                f"In {where}, '{other}' and '{name}' have the same colour, {list(colour)}. Leave one out."
            )
    return {name: colour for colour, name in names.items()}


def read_colours(path: Path) -> dict[str, Colour]:
    """Read a table of colours: one line per class, with its name and its red, green and blue.

    Reads CamVid's ``label_colors.txt`` (``64 128 64<tab>Animal``), comma-separated tables with a header
    (``name,r,g,b``), and CVAT's ``labelmap.txt`` (``name:r,g,b::``). Lines starting with ``#`` are skipped.

    Raises:
        AttnlabError: The file cannot be read, has no such line, or an invalid one.
    """
    found: dict[str, Colour] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = next((match for form in _LINES if (match := form.fullmatch(line.strip()))), None)
        if match is None:
            if not found and not re.search(r"\d", line):
                continue  # The header.
            raise AttnlabError(
                f"In the table of colours '{path}', line {number} is '{line.strip()}'; it must be a name "
                "and its red, green and blue, such as 'road,128,64,128'."
            )
        name = next(csv.reader([match["name"]]), [""])[0].strip()
        if name in found:
            raise AttnlabError(f"The table of colours '{path}' has '{name}' twice, again in line {number}.")
        found[name] = (int(match["r"]), int(match["g"]), int(match["b"]))
    if not found:
        raise AttnlabError(f"The table of colours '{path}' has no line with a name and a colour.")
    return check_colours(found, f"the table of colours '{path}'")


_LINES = (
    re.compile(r"(?P<name>[^:]+):\s*(?P<r>\d+)\s*,\s*(?P<g>\d+)\s*,\s*(?P<b>\d+)\s*(?::.*)?"),
    re.compile(r"(?P<r>\d+)[\s,;]+(?P<g>\d+)[\s,;]+(?P<b>\d+)[\s,;]+(?P<name>\S.*)"),
    re.compile(r"(?P<name>\S.*?)\s*[\s,;]\s*(?P<r>\d+)[\s,;]+(?P<g>\d+)[\s,;]+(?P<b>\d+)"),
)


def _shown_colours(codes: np.ndarray) -> str:
    colours = [f"({code >> 16}, {code >> 8 & 255}, {code & 255})" for code in np.unique(codes).tolist()]
    return f"the colour{'s' * (len(colours) > 1)} {listed(colours, 5)}"


def _ranges(values: Sequence[int]) -> str:
    """Numbers as text, such as ``0..20 and 255``."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    texts = [str(low) if low == high else f"{low}..{high}" for low, high in parts]
    return listed(texts) if len(texts) > 2 else " and ".join(texts)
