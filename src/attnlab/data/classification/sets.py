"""Data sets of images with one label each, and their batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attnlab.data.headers import MAX_PIXELS
from attnlab.data.images import read_image
from attnlab.data.sampling import SampleKey
from attnlab.data.sets import PackedStrings, SampleSet, changed, marks, seen, stacked
from attnlab.data.transforms import RandomResizedCropFlip
from attnlab.errors import AttnlabError


class ImageAndLabel(NamedTuple):
    """An image file and its class.

    Attributes:
        name: Its name in messages: the path relative to the split's folder, separated by ``/``.
        path: The file.
        label: Index of its class.
    """

    name: str
    path: Path
    label: int


class EvalSet(SampleSet):
    """Images for evaluation, with their labels.

    Args:
        items: The files.
        transforms: Applied in turn to the image (tv_tensors.Image).
        max_pixels: The most pixels that an image may have.
    """

    def __init__(
        self,
        items: Sequence[ImageAndLabel],
        transforms: Sequence[nn.Module],
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.names = PackedStrings(item.name for item in items)
        self.paths = PackedStrings(str(item.path) for item in items)
        self.labels = np.array([item.label for item in items], np.int64)
        self.transforms = list(transforms)
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, key: SampleKey) -> dict[str, Any]:
        """An image, its class and its name."""
        image, label = self.image(key, self.paths[key.index]), int(self.labels[key.index])
        return {"image": image, "label": label, "name": self.names[key.index]}

    def image(self, key: SampleKey, path: str) -> Tensor:
        """The image after the transforms."""
        return seen(read_image(path, max_pixels=self.max_pixels), self.transforms, key.index, path)


class TrainSet(EvalSet):
    """Augmented images with their labels.

    Args:
        items: The files.
        transforms: Applied in turn to the image (tv_tensors.Image).
        seed: The run's seed. A sample's random numbers depend only on it, the epoch and the index.
        max_pixels: The most pixels that an image may have.
    """

    def __init__(
        self,
        items: Sequence[ImageAndLabel],
        transforms: Sequence[nn.Module],
        seed: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(items, transforms, max_pixels)
        self.seed = seed

    def image(self, key: SampleKey, path: str) -> Tensor:
        """The image after the transforms, with the key's random numbers."""
        image, transforms = read_image(path, max_pixels=self.max_pixels), self.transforms
        stream = (self.seed, key.epoch, key.index)
        if transforms and isinstance(transforms[0], RandomResizedCropFlip):
            # The default recipe, which is this transform alone, needs no seeding of three libraries.
            image = transforms[0](image, Random("{} {} {}".format(*stream)))
            transforms = transforms[1:]
        return changed(image, transforms, stream)


def collate(samples: list[dict[str, Any]], option: str) -> dict[str, Any]:
    """Stack samples into a batch.

    Args:
        samples: From one of the data sets above, or `PredictSet`.
        option: The option that determines the images' size, for the error.

    Returns:
        ``image`` (B, 3, H, W) after the transforms, ``label`` int64 (B,) if the samples have one, and the
        batch's `marks`.

    Raises:
        AttnlabError: The images are of different sizes.
    """
    shapes = sorted({tuple(sample["image"].shape) for sample in samples})
    if len(shapes) > 1:
        first, last = (f"{shape[-1]} x {shape[-2]}" for shape in (shapes[0], shapes[-1]))
        raise AttnlabError(
            f"data.{option} yields images of different sizes in one batch, e.g. {first} and {last} pixels. "
            "End it with a transform that gives all the same size, e.g. "
            "torchvision.transforms.v2.CenterCrop."
        )
    batch = {"image": stacked([sample["image"] for sample in samples]), **marks(samples)}
    if "label" in samples[0]:
        batch["label"] = torch.tensor([sample["label"] for sample in samples])
    return batch
