"""Data sets of images with index masks, and their batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision import tv_tensors

from attnlab.data.headers import MAX_PIXELS
from attnlab.data.images import read_image, read_mask
from attnlab.data.sampling import SampleKey, seeded
from attnlab.data.sets import SampleSet, marks, seen, stacked
from attnlab.errors import AttnlabError

MaskReader = Callable[[Path], Tensor]
"""Reads a mask file as class indices, (H, W) uint8; must be picklable for loader workers."""


@dataclass(frozen=True)
class IndexMaskReader:
    """Reads index masks; see `read_mask`.

    Args:
        max_pixels: The most pixels that a mask may have.
    """

    max_pixels: int = MAX_PIXELS

    def __call__(self, path: Path) -> Tensor:
        """The class indices, (H, W) uint8; raises what `read_mask` does."""
        return read_mask(path, self.max_pixels)


class ImageAndMask(NamedTuple):
    """An image and its mask.

    Attributes:
        name: Their name in messages.
        image: The image file.
        mask: The mask's file.
    """

    name: str
    image: Path
    mask: Path


class EvalSet(SampleSet):
    """Images for evaluation, and their masks as stored.

    Args:
        items: The files.
        transforms: Applied in turn to the image (tv_tensors.Image).
        reader: Reads the masks.
        max_pixels: The most pixels that an image may have.
    """

    def __init__(
        self,
        items: Sequence[ImageAndMask],
        transforms: Sequence[nn.Module],
        reader: MaskReader = read_mask,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.items = items
        self.transforms = transforms
        self.reader = reader
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, key: SampleKey) -> dict[str, Any]:
        """An image, its mask and their name."""
        item = self.items[key.index]
        image = read_image(item.image, exif=False, max_pixels=self.max_pixels)
        image, mask = self.pair(key, image, self.reader(item.mask))
        return {"image": image, "mask": mask, "name": item.name}

    def pair(self, key: SampleKey, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image and mask after the transforms."""
        return seen(image, self.transforms, key.index, self.items[key.index].image), mask


class TrainSet(EvalSet):
    """Images and masks, augmented together.

    Args:
        items: The files.
        transforms: Applied in turn to a dict of ``image`` (tv_tensors.Image) and ``mask`` (tv_tensors.Mask).
        reader: Reads the masks.
        seed: The run's seed. A sample's random numbers depend only on it, the epoch and the index.
        max_pixels: The most pixels that an image may have.
    """

    def __init__(
        self,
        items: Sequence[ImageAndMask],
        transforms: Sequence[nn.Module],
        reader: MaskReader,
        seed: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(items, transforms, reader, max_pixels)
        self.seed = seed

    def pair(self, key: SampleKey, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image and mask after the transforms, with the key's random numbers."""
        both: Any = {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask)}
        with seeded(self.seed, key.epoch, key.index):
            for transform in self.transforms:
                both = transform(both)
        return both["image"].as_subclass(Tensor), both["mask"].as_subclass(Tensor)


def collate_train(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack equal-sized samples.

    Returns:
        ``image`` (B, 3, H, W) and ``mask`` (B, H, W) after the transforms, and the batch's `marks`.

    Raises:
        AttnlabError: The training transforms yield images or masks of different sizes.
    """
    shapes = {tuple(sample[key].shape[-2:]) for sample in samples for key in ("image", "mask")}
    if len(shapes) > 1:
        raise AttnlabError(
            f"data.train_transforms yields images and masks of sizes {sorted(shapes)} in one batch. End "
            "them with a transform that gives all the same size, e.g. "
            "attnlab.data.transforms.RandomScaleCrop."
        )
    return {
        "image": stacked([sample["image"] for sample in samples]),
        "mask": default_collate([sample["mask"] for sample in samples]),
        **marks(samples),
    }


def collate_padded(samples: list[dict[str, Any]], ignore_index: int) -> dict[str, Any]:
    """Pad images and masks at the right and bottom to the largest in the batch.

    Returns:
        ``image`` (B, 3, H, W) and ``size`` int64 (B, 2), its height and width without padding; the batch's
        `marks`; with masks ``mask`` (B, Hm, Wm), padded with ``ignore_index``, and its ``mask_size``; for
        prediction ``original``, a list of (3, h, w) uint8 RGB images as decoded, and ``original_size`` int64
        (B, 2).
    """
    image, size = _pad([sample["image"] for sample in samples], 0)
    batch = {"image": image, "size": size, **marks(samples)}
    if "mask" in samples[0]:
        batch["mask"], batch["mask_size"] = _pad([sample["mask"] for sample in samples], ignore_index)
    if "original" in samples[0]:
        batch["original"] = [sample["original"] for sample in samples]
        batch["original_size"] = torch.tensor([image.shape[-2:] for image in batch["original"]])
    return batch


def _pad(tensors: list[Tensor], value: int) -> tuple[Tensor, Tensor]:
    """Pad and stack (…, h, w) tensors to (B, …, H, W); also their sizes (h, w), int64 (B, 2)."""
    sizes = torch.tensor([tuple(tensor.shape[-2:]) for tensor in tensors])
    height, width = sizes.amax(0).tolist()
    batch = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), value)
    for row, tensor in zip(batch, tensors, strict=True):
        row[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
    return batch, sizes
