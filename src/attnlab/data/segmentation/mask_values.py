"""Checks the contents of masks, one by one and of a whole split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from attnlab.data.check_memory import CheckMemory
from attnlab.data.checks import look_at_all, size_within
from attnlab.data.headers import FILE_HINT, MAX_PIXELS
from attnlab.data.images import read_image, read_mask
from attnlab.data.names import absent_classes, listed
from attnlab.data.segmentation.sets import ImageAndMask, MaskReader
from attnlab.errors import AttnlabError

Values = Mapping[int, int]
"""Number of pixels by mask value."""

# Shares of ignored pixels, and of masks with only 0 and 255, from which a warning is given.
_MUCH, _MANY = 0.5, 0.1


class Look(NamedTuple):
    """The result of checking an image and its mask.

    Attributes:
        problem: The problem, or None.
        values: Number of pixels by mask value.
    """

    problem: str | None
    values: Values


def look_at_pairs(
    items: Sequence[ImageAndMask],
    num_classes: int,
    ignore_index: int,
    reader: MaskReader,
    root: str | Path,
    max_pixels: int = MAX_PIXELS,
) -> list[Look]:
    """Decode every image and mask, compare their sizes, and count the masks' values.

    In a distributed run each process checks its share, and all get all results. Intact pairs are remembered
    (`CheckMemory`) under the data set's folder.
    """

    def look(position: int) -> Look:
        item = items[position]
        try:
            # Before what is remembered: the limit may have changed.
            size_within(item.image, max_pixels)
            size_within(item.mask, max_pixels, "mask")
            found = memory.found((item.image, item.mask), lambda: _counted(item, reader, max_pixels))
        except AttnlabError as error:
            return Look(str(error).removesuffix(FILE_HINT).rstrip(), {})
        pairs = (pair.split(":") for pair in found.split())
        values = {int(value): int(count) for value, count in pairs}
        return Look(_wrong_values(item.mask, values, num_classes, ignore_index), values)

    with CheckMemory(root, getattr(reader, "__qualname__", repr(reader))) as memory:
        return list(look_at_all(len(items), look).values())


def _counted(item: ImageAndMask, reader: MaskReader, max_pixels: int) -> str:
    """The mask's values with their number of pixels, as stored by `CheckMemory`: ``0:112 15:8``.

    Raises:
        AttnlabError: A file cannot be read, or the sizes differ.
    """
    size = read_image(item.image, exif=False, max_pixels=max_pixels).shape[-2:]
    mask = reader(item.mask)
    if mask.shape == size:
        return " ".join(f"{value}:{count}" for value, count in values_of(mask).items())
    by = [f"{width} x {height}" for height, width in (mask.shape, size)]
    text = f"The mask '{item.mask}' is {by[0]} pixels, but its image '{item.image}' is {by[1]}."
    if read_image(item.image, max_pixels=max_pixels).shape[-2:] == mask.shape:
        text += (
            " They would match with the image's EXIF orientation applied, which is ignored for images with "
            "masks: store it upright, without this entry."
        )
    raise AttnlabError(text)


def _wrong_values(mask: Path, values: Values, num_classes: int, ignore_index: int) -> str | None:
    strange = [value for value in values if value >= num_classes and value != ignore_index]
    if strange:
        return (
            f"The mask '{mask}' has the values {listed([str(value) for value in strange])}; with "
            f"{num_classes} classes only 0..{num_classes - 1} and {ignore_index} (ignore) are allowed."
        )
    if set(values) == {ignore_index}:
        return f"The mask '{mask}' holds only {ignore_index} (ignore): there is nothing to learn or score."
    return None


def values_of(mask: torch.Tensor) -> Values:
    """Number of pixels by value of a mask (H, W) uint8."""
    counts = torch.bincount(mask.flatten(), minlength=256)
    return {value: int(counts[value]) for value in counts.nonzero().flatten().tolist()}


def sampled_values(masks: Sequence[Path], reader: MaskReader = read_mask, most: int = 16) -> list[Values]:
    """The values of a few masks, evenly spread; unreadable ones are skipped."""
    found = []
    for mask in masks[:: max(1, len(masks) // most)]:
        try:
            found.append(values_of(reader(mask)))
        except AttnlabError:
            continue
    return found


class MaskCensus:
    """Finds mistakes in a set of masks that no single mask shows.

    Args:
        masks: The values of each mask.
        ignore_index: The value of ignored pixels.
    """

    def __init__(self, masks: Sequence[Values], ignore_index: int) -> None:
        self.masks = masks
        self.ignore_index = ignore_index
        self.total: Counter[int] = Counter()
        for values in masks:
            self.total.update(values)
        self._ignored = self.total[ignore_index] / max(1, self.total.total())

    def binary(self) -> str | None:
        """The message about masks with only 0 and the ignored value, as most labelling tools write them.

        Returns:
            The message, or None if there is another value, or no ignored pixel.
        """
        ignored = self.ignore_index
        if set(self.total) != {0, ignored}:
            return None
        return (
            f"they hold only 0 and {ignored}, but {ignored} means 'ignore', so {self._ignored:.1%} of their "
            "pixels would count neither in training nor in scores. They look like binary masks: store 1 "
            f"instead of {ignored}."
        )

    def refuse_binary(self, split: str) -> None:
        """Reject binary masks of a split: they would have a single class.

        Raises:
            AttnlabError: They are binary.
        """
        binary = self.binary()
        if binary is not None:
            way_out = " If this is intended, turn the check off with --data.check none." * (split != "train")
            number = len(self.masks)
            raise AttnlabError(f"The {number} '{split}' masks cannot be right: {binary}{way_out}")

    def refuse_single_class(self, class_names: Sequence[str]) -> None:
        """Reject training masks of a single class, which a constant prediction would fit.

        An error rather than a warning, since the results of such a run would be meaningless.

        Raises:
            AttnlabError: The masks have a single class.
        """
        classes = sorted(set(self.total) - {self.ignore_index})
        if len(classes) == 1:
            ignored = f" ({self.ignore_index}, 'ignore', in {self._ignored:.1%})" * (self._ignored > 0)
            raise AttnlabError(
                f"Nothing can be learnt from the {len(self.masks)} 'train' masks: all their pixels{ignored} "
                f"belong to class {classes[0]} ({class_names[classes[0]]}). Masks must hold class indices "
                "0, 1, …: check how they were written, and the list of training images."
            )

    def warnings(self, class_names: Sequence[str]) -> list[str]:
        """Warnings about valid training masks."""
        texts = []
        absent = [name for label, name in enumerate(class_names) if label not in self.total]
        if absent:
            texts.append(absent_classes(absent, len(class_names), "training mask"))
        ignored, number = self.ignore_index, len(self.masks)
        binary = sum(set(values) == {0, ignored} for values in self.masks)
        if self._ignored > _MUCH or binary > _MANY * number:
            some = f", and {binary} of {number} masks hold only 0 and {ignored}" if binary else ""
            texts.append(
                f"{self._ignored:.1%} of the training masks' pixels are {ignored}{some}: this value means "
                f"'ignore' and counts neither in training nor in scores. If {ignored} marks an object, "
                "store its class index instead."
            )
        return texts
