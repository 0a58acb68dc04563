"""Looking at images together with their masks, all of them decoded in full."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attnlab.data.check_memory import CheckMemory
from attnlab.data.checks import look_at_all
from attnlab.data.images import FILE_HINT, read_image
from attnlab.data.segmentation.mask_values import values_of
from attnlab.data.segmentation.sets import LabelledImage, MaskReader
from attnlab.errors import AttnlabError


class Look(NamedTuple):
    """What was found out about an image and its mask.

    Attributes:
        problem: What is wrong with them, or None.
        values: Number of pixels by mask value.
    """

    problem: str | None
    values: dict[int, int]


def look_at_pairs(
    items: Sequence[LabelledImage],
    num_classes: int,
    ignore_index: int,
    reader: MaskReader,
    root: str | Path,
) -> list[Look]:
    """Decode every image and mask, compare their sizes, and count the masks' values.

    In a distributed run each process looks at its share and all learn of all that is found. What was found
    whole is remembered (`CheckMemory`).

    Args:
        items: Images with masks.
        num_classes: Masks may hold 0 … num_classes - 1,
        ignore_index: and this.
        reader: Reads a mask.
        root: The data set's folder, which what was found is remembered by.

    Returns:
        What was found, for each item.
    """

    def look(position: int) -> Look:
        item = items[position]
        try:
            values = counted(item)
        except AttnlabError as error:
            return Look(str(error).removesuffix(FILE_HINT).rstrip(), {})
        return Look(_wrong_values(item.mask, values, num_classes, ignore_index), values)

    def counted(item: LabelledImage) -> dict[int, int]:
        key = memory.key(item.image, item.mask)
        known = memory.recall(key)
        if known is not None:
            pairs = (pair.split(":") for pair in known.split())
            return {int(value): int(count) for value, count in pairs}
        values = _values_of_pair(item, reader)
        memory.keep(key, " ".join(f"{value}:{count}" for value, count in values.items()))
        return values

    with CheckMemory(root, getattr(reader, "__qualname__", repr(reader))) as memory:
        return list(look_at_all(len(items), look).values())


def _values_of_pair(item: LabelledImage, reader: MaskReader) -> dict[int, int]:
    """The mask's values by number of pixels.

    Raises:
        AttnlabError: One of the two cannot be read, or their sizes differ.
    """
    size = read_image(item.image, exif=False).shape[-2:]
    mask = reader(item.mask)
    if mask.shape == size:
        return values_of(mask)
    text = f"The mask '{item.mask}' is {_by(mask.shape)}, its image '{item.image}' is {_by(size)} pixels."
    if read_image(item.image).shape[-2:] == mask.shape:
        text += (
            " They agree once the image is turned as its EXIF orientation says, which is not done for "
            "images with masks: store it upright, without that entry."
        )
    raise AttnlabError(text)


def _wrong_values(mask: Path, values: dict[int, int], num_classes: int, ignore_index: int) -> str | None:
    strange = [value for value in values if value >= num_classes and value != ignore_index]
    if strange:
        listed = ", ".join(map(str, strange[:8])) + (", …" if len(strange) > 8 else "")
        return (
            f"The mask '{mask}' holds the values {listed}; with {num_classes} classes it may hold "
            f"0..{num_classes - 1} and {ignore_index} (ignore)."
        )
    if set(values) == {ignore_index}:
        return f"The mask '{mask}' holds {ignore_index} (ignore) alone: nothing to learn or score."
    return None


def _by(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"
