"""Parts of the data sets and batches of all tasks."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors

from attnlab.data.headers import MAX_PIXELS
from attnlab.data.images import read_image
from attnlab.data.sampling import SampleKey, seeded
from attnlab.errors import AttnlabError


class PackedStrings(Sequence[str]):
    """Strings in one block of memory.

    A list of a million strings would be copied, page by page, into every loader worker, because reading a
    Python object writes to its reference count. A block is shared.

    Args:
        strings: File names, or any strings.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        parts = [os.fsencode(string) for string in strings]
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self._block = np.frombuffer(b"".join(parts), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # Slices are not needed.
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._block[start : self._ends[index]].tobytes())


class SampleSet(Dataset[dict[str, Any]]):
    """A data set indexed by a `SampleKey` or a bare index."""

    @abstractmethod
    def sample(self, key: SampleKey) -> dict[str, Any]:
        """The sample without its key."""

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        return {**self.sample(key), "index": key.index, "counted": key.counted}


class PredictSet(SampleSet):
    """Images to predict on.

    Args:
        paths: The files.
        transforms: Applied in turn to the image (tv_tensors.Image).
        with_original: Also return the image as read, as ``original``.
        max_pixels: The most pixels that an image may have.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        transforms: Sequence[nn.Module] = (),
        with_original: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.paths = PackedStrings(str(path) for path in paths)
        self.transforms = list(transforms)
        self.with_original = with_original
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def sample(self, key: SampleKey) -> dict[str, Any]:
        """An image and its path."""
        path = self.paths[key.index]
        original = read_image(path, max_pixels=self.max_pixels)
        sample = {"image": seen(original, self.transforms, key.index, path), "path": path}
        return {**sample, "original": original} if self.with_original else sample


def changed(image: Tensor, transforms: Sequence[nn.Module], stream: Sequence[int]) -> Tensor:
    """An image (3, h, w) after transforms, with a stream's random numbers."""
    if not transforms:
        return image
    result: Any = tv_tensors.Image(image)
    with seeded(*stream):
        for transform in transforms:
            result = transform(result)
    return result.as_subclass(Tensor)


def seen(image: Tensor, transforms: Sequence[nn.Module], index: int, path: str | Path) -> Tensor:
    """An image after the evaluation transforms, the same in every epoch even if one is random."""
    try:
        return changed(image, transforms, (0, index))
    except AttnlabError as error:
        raise AttnlabError(f"The image '{path}': {error}") from error


def marks(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fields of every batch about its samples.

    Returns:
        ``index`` int64 (B,), ``counted`` bool (B,), and the lists of str ``name`` and ``path``, if the
        samples have them.
    """
    batch: dict[str, Any] = {
        "index": torch.tensor([sample["index"] for sample in samples]),
        "counted": torch.tensor([sample["counted"] for sample in samples]),
    }
    for key in ("name", "path"):
        if key in samples[0]:
            batch[key] = [sample[key] for sample in samples]
    return batch


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Images (3, H, W) of one size as a batch (B, 3, H, W), channels innermost in memory as decoded.

    `DataModule.normalise` makes it contiguous on the device.
    """
    return default_collate([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
