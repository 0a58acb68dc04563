"""Data sets of images with index masks, and how their samples become batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors

from attnlab.data.images import read_image, read_mask
from attnlab.data.sampling import SampleKey, seeded
from attnlab.errors import AttnlabError


class LabelledImage(NamedTuple):
    """An image and its mask.

    Attributes:
        name: What reports call the two by.
        image: The image file.
        mask: The index mask's file.
    """

    name: str
    image: Path
    mask: Path


class TrainSet(Dataset[dict[str, Any]]):
    """Images and masks, augmented together.

    Args:
        items: The files.
        transforms: Applied in turn to a dict of ``image`` (tv_tensors.Image) and ``mask`` (tv_tensors.Mask).
        seed: The run's seed. A sample's random numbers depend on it, the epoch and the index alone.
    """

    def __init__(self, items: Sequence[LabelledImage], transforms: Sequence[nn.Module], seed: int) -> None:
        self.items = items
        self.transforms = transforms
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        item = self.items[key.index]
        sample: Any = {
            "image": tv_tensors.Image(read_image(item.image, exif=False)),
            "mask": tv_tensors.Mask(read_mask(item.mask)),
        }
        with seeded(self.seed, key.epoch, key.index):
            for transform in self.transforms:
                sample = transform(sample)
        return {
            "image": sample["image"].as_subclass(Tensor),
            "mask": sample["mask"].as_subclass(Tensor),
            "index": key.index,
            "counted": key.counted,
        }


class EvalSet(Dataset[dict[str, Any]]):
    """Images as the network is to see them, and their masks at the size they were made.

    Args:
        items: The files.
        transforms: Applied in turn to the image (tv_tensors.Image) alone.
    """

    def __init__(self, items: Sequence[LabelledImage], transforms: Sequence[nn.Module]) -> None:
        self.items = items
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        item = self.items[key.index]
        image = _seen(read_image(item.image, exif=False), self.transforms, key)
        mask = read_mask(item.mask)
        return {
            "image": image,
            "mask": mask,
            "index": key.index,
            "counted": key.counted,
            "name": item.name,
        }


class PredictSet(Dataset[dict[str, Any]]):
    """Pictures without masks.

    Args:
        paths: The files.
        transforms: Applied in turn to the image (tv_tensors.Image).
    """

    def __init__(self, paths: Sequence[Path], transforms: Sequence[nn.Module]) -> None:
        self.paths = paths
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        path = self.paths[key.index]
        original = read_image(path)
        return {
            "image": _seen(original, self.transforms, key),
            "original": original,
            "path": str(path),
            "index": key.index,
            "counted": key.counted,
        }


def collate_train(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack equal-sized samples.

    Returns:
        ``image`` (B, 3, H, W), ``mask`` (B, H, W) as the transforms left them, ``index`` int64 (B,),
        ``counted`` bool (B,).

    Raises:
        AttnlabError: The training transforms yield images of different sizes, or masks of another size.
    """
    shapes = {tuple(sample[key].shape[-2:]) for sample in samples for key in ("image", "mask")}
    if len(shapes) > 1:
        raise AttnlabError(
            f"data.train_transforms yields images and masks of sizes {sorted(shapes)} in one batch. "
            "End the list with a transform that brings both to one size, e.g. "
            "attnlab.data.transforms.RandomScaleCrop."
        )
    # Interleaved as decoders leave them; `DataModule.normalise` puts channels first, on the device.
    images = default_collate([sample["image"].permute(1, 2, 0) for sample in samples])
    return {
        "image": images.permute(0, 3, 1, 2),
        "mask": default_collate([sample["mask"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
        "counted": torch.tensor([sample["counted"] for sample in samples]),
    }


def collate_eval(samples: list[dict[str, Any]], ignore_index: int) -> dict[str, Any]:
    """Pad images and masks to the largest in the batch, at the right and the bottom.

    Returns:
        ``image`` (B, 3, H, W) and ``size`` int64 (B, 2), height and width of what is no padding in it;
        ``mask`` (B, Hm, Wm), padded with ``ignore_index``, and its ``mask_size``; ``index``, ``counted``, and
        ``name``, a list of str.
    """
    image, size = _pad([sample["image"] for sample in samples], 0)
    mask, mask_size = _pad([sample["mask"] for sample in samples], ignore_index)
    return {
        "image": image,
        "size": size,
        "mask": mask,
        "mask_size": mask_size,
        "index": torch.tensor([sample["index"] for sample in samples]),
        "counted": torch.tensor([sample["counted"] for sample in samples]),
        "name": [sample["name"] for sample in samples],
    }


def collate_predict(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Pad images to the largest in the batch, and keep the originals beside them.

    Returns:
        ``image`` and ``size`` as in evaluation; ``original``, a list of (3, h, w) uint8 RGB images as
        decoded, ``original_size`` int64 (B, 2), ``path``, a list of str, ``index`` and ``counted``.
    """
    image, size = _pad([sample["image"] for sample in samples], 0)
    originals = [sample["original"] for sample in samples]
    return {
        "image": image,
        "size": size,
        "original": originals,
        "original_size": torch.tensor([tuple(original.shape[-2:]) for original in originals]),
        "path": [sample["path"] for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples]),
        "counted": torch.tensor([sample["counted"] for sample in samples]),
    }


def _seen(image: Tensor, transforms: Sequence[nn.Module], key: SampleKey) -> Tensor:
    """The image after the evaluation transforms, the same in every epoch even if one of them is random."""
    if not transforms:
        return image
    seen: Any = tv_tensors.Image(image)
    with seeded(0, key.index):
        for transform in transforms:
            seen = transform(seen)
    return seen.as_subclass(Tensor)


def _pad(tensors: list[Tensor], value: int) -> tuple[Tensor, Tensor]:
    """Stack (…, h, w) tensors into (B, …, H, W); also their heights and widths, int64 (B, 2)."""
    sizes = torch.tensor([tuple(tensor.shape[-2:]) for tensor in tensors])
    height, width = sizes.amax(0).tolist()
    batch = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), value)
    for row, tensor in zip(batch, tensors, strict=True):
        row[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
    return batch, sizes
