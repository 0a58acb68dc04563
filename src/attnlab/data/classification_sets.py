"""Data sets of pictures with one label each, and how their samples become batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors

from attnlab.data.images import read_image
from attnlab.data.sampling import SampleKey, seeded
from attnlab.data.transforms import RandomResizedCropFlip
from attnlab.errors import AttnlabError


class LabelledPicture(NamedTuple):
    """A picture and its class.

    Attributes:
        name: What reports call it by: its path relative to the split's folder, with ``/`` between the parts.
        path: The file.
        label: Index of its class.
    """

    name: str
    path: Path
    label: int


class PackedStrings(Sequence[str]):
    """Strings in one block of memory.

    A list of a million strings is copied, page by page, into every loader process that reads it, because
    reading a Python object writes to its reference count. A block is shared.

    Args:
        strings: File names, or any strings.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        parts = [os.fsencode(string) for string in strings]
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self._block = np.frombuffer(b"".join(parts), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # Slices are of no use here.
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._block[start : self._ends[index]].tobytes())


class TrainSet(Dataset[dict[str, Any]]):
    """Pictures, augmented, with their labels.

    Args:
        items: The files.
        transforms: Applied in turn to the image (tv_tensors.Image).
        seed: The run's seed. A sample's random numbers depend on it, the epoch and the index alone.
    """

    def __init__(self, items: Sequence[LabelledPicture], transforms: Sequence[nn.Module], seed: int) -> None:
        self.paths = PackedStrings(str(item.path) for item in items)
        self.labels = np.array([item.label for item in items], np.int64)
        self.transforms = list(transforms)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        image = read_image(self.paths[key.index])
        stream = (self.seed, key.epoch, key.index)
        transforms = self.transforms
        if transforms and isinstance(transforms[0], RandomResizedCropFlip):
            # Spares the usual recipe, of this alone, the seeding of three libraries' generators.
            image = transforms[0](image, Random("{} {} {}".format(*stream)))
            transforms = transforms[1:]
        return {
            "image": _changed(image, transforms, stream),
            "label": int(self.labels[key.index]),
            "index": key.index,
            "counted": key.counted,
        }


class EvalSet(Dataset[dict[str, Any]]):
    """Pictures as the network is to see them, with their labels.

    Args:
        items: The files.
        transforms: Applied in turn to the image (tv_tensors.Image).
    """

    def __init__(self, items: Sequence[LabelledPicture], transforms: Sequence[nn.Module]) -> None:
        self.names = PackedStrings(item.name for item in items)
        self.paths = PackedStrings(str(item.path) for item in items)
        self.labels = np.array([item.label for item in items], np.int64)
        self.transforms = list(transforms)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        return {
            "image": _seen(self.paths[key.index], self.transforms, key.index),
            "label": int(self.labels[key.index]),
            "index": key.index,
            "counted": key.counted,
            "name": self.names[key.index],
        }


class PredictSet(Dataset[dict[str, Any]]):
    """Pictures without labels.

    Args:
        paths: The files.
        transforms: Applied in turn to the image (tv_tensors.Image).
    """

    def __init__(self, paths: Sequence[Path], transforms: Sequence[nn.Module]) -> None:
        self.paths = PackedStrings(str(path) for path in paths)
        self.transforms = list(transforms)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        path = self.paths[key.index]
        return {
            "image": _seen(path, self.transforms, key.index),
            "path": path,
            "index": key.index,
            "counted": key.counted,
        }


def collate(samples: list[dict[str, Any]], option: str) -> dict[str, Any]:
    """Stack samples into a batch.

    Args:
        samples: Of one of the data sets above.
        option: The option that the images' sizes come from, for the error.

    Returns:
        ``image`` (B, 3, H, W) as the transforms left it, ``index`` int64 (B,), ``counted`` bool (B,), and of
        ``label`` (int64 (B,)), ``name`` and ``path`` (lists of str) what the samples have.

    Raises:
        AttnlabError: The images are of different sizes.
    """
    shapes = sorted({tuple(sample["image"].shape) for sample in samples})
    if len(shapes) > 1:
        first, last = (f"{shape[-1]} x {shape[-2]}" for shape in (shapes[0], shapes[-1]))
        raise AttnlabError(
            f"data.{option} yields images of different sizes in one batch, e.g. {first} and {last} pixels. "
            "End the list with a transform that brings all to one size, e.g. "
            "torchvision.transforms.v2.CenterCrop."
        )
    # Interleaved as decoders leave them; `DataModule.normalise` puts channels first, on the device.
    images = default_collate([sample["image"].permute(1, 2, 0) for sample in samples])
    batch = {
        "image": images.permute(0, 3, 1, 2),
        "index": torch.tensor([sample["index"] for sample in samples]),
        "counted": torch.tensor([sample["counted"] for sample in samples]),
    }
    if "label" in samples[0]:
        batch["label"] = torch.tensor([sample["label"] for sample in samples])
    for key in ("name", "path"):
        if key in samples[0]:
            batch[key] = [sample[key] for sample in samples]
    return batch


def _seen(path: str, transforms: Sequence[nn.Module], index: int) -> Tensor:
    """A picture after the evaluation transforms, the same in every epoch even if one of them is random."""
    image = read_image(path)
    try:
        return _changed(image, transforms, (0, index))
    except AttnlabError as error:
        raise AttnlabError(f"The image '{path}': {error}") from error


def _changed(image: Tensor, transforms: Sequence[nn.Module], stream: tuple[int, ...]) -> Tensor:
    """The image after the transforms, with the random numbers of a stream."""
    if not transforms:
        return image
    changed: Any = tv_tensors.Image(image)
    with seeded(*stream):
        for transform in transforms:
            changed = transform(changed)
    return changed.as_subclass(Tensor)
