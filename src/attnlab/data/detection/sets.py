"""Data sets of images with boxes, and their batches.

Boxes are float32 NumPy arrays from the annotation to loss and metrics: in half precision every float tensor
of a batch is rounded, boxes by a pixel or more, but arrays are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from attnlab.data.detection.items import OF_OBJECTS, DetectionItems
from attnlab.data.headers import MAX_PIXELS
from attnlab.data.sampling import SampleKey, seeded
from attnlab.data.sets import marks
from attnlab.errors import AttnlabError

_LEAST_SIDE = 1.0
_XYXY = tv_tensors.BoundingBoxFormat.XYXY


class DetectionSample(NamedTuple):
    """An image and its objects.

    Attributes:
        image: (3, h, w) uint8.
        boxes: (N, 4) float32, x0, y0, x1, y1 in pixels, 0 <= x0 < x1 <= w and 0 <= y0 < y1 <= h.
        labels: (N,) int64, 0 … K - 1.
    """

    image: Tensor
    boxes: np.ndarray
    labels: np.ndarray


Mixing = Callable[[int, int, Callable[[int], DetectionSample], Random], DetectionSample]
"""Makes one training sample from several; called like `MosaicMixup`."""


class TrainSet(Dataset[dict[str, Any]]):
    """Images with their objects, augmented together.

    Args:
        items: From `DetectionItems.for_training`.
        transforms: Applied in turn to a dict of ``image`` (tv_tensors.Image), ``boxes``
            (tv_tensors.BoundingBoxes, XYXY) and ``labels`` (N,). Afterwards boxes are clipped to the image,
            and those with a side below one pixel dropped.
        seed: The run's seed. A sample's random numbers depend only on it, the epoch and the index.
        mixing: Makes one sample from several, before the transforms.
        strong_epochs: The number of epochs, from the first, in which ``mixing`` is used; None means all.
        max_pixels: The most pixels that an image may have.
    """

    def __init__(
        self,
        items: DetectionItems,
        transforms: Sequence[nn.Module],
        seed: int,
        mixing: Mixing | None = None,
        strong_epochs: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.items = items
        self.transforms = list(transforms)
        self.seed = seed
        self.mixing = mixing
        self.strong_epochs = strong_epochs
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> DetectionSample:
        """An image and its objects as stored."""
        objects = self.items.objects(index)
        image = self.items.read(index, self.max_pixels)
        return DetectionSample(image, self.items.boxes[objects], self.items.labels[objects])

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | SampleKey]) -> list[dict[str, Any]]:
        """The samples of a batch; an image used several times is decoded once."""
        load = cache(self.load)
        return [self._sample(SampleKey.of(key), load) for key in keys]

    def _sample(self, key: SampleKey, load: Callable[[int], DetectionSample]) -> dict[str, Any]:
        strong = self.strong_epochs is None or key.epoch < self.strong_epochs
        if self.mixing is not None and strong:
            # A stream apart from the transforms', which has the same three numbers.
            rng = Random(f"mixing {self.seed} {key.epoch} {key.index}")
            sample = self.mixing(key.index, len(self), load, rng)
        else:
            sample = load(key.index)
        sample = without_slivers(self._changed(sample, key))
        return _answer(self.items, key, sample.image, {"boxes": sample.boxes, "labels": sample.labels})

    def _changed(self, sample: DetectionSample, key: SampleKey) -> DetectionSample:
        """The sample after the transforms, with its stream's random numbers."""
        if not self.transforms:
            return sample
        size = tuple(sample.image.shape[-2:])
        changed: Any = {
            "image": tv_tensors.Image(sample.image),
            "boxes": tv_tensors.BoundingBoxes(torch.tensor(sample.boxes), format=_XYXY, canvas_size=size),
            "labels": torch.tensor(sample.labels),
        }
        with seeded(self.seed, key.epoch, key.index):
            for transform in self.transforms:
                changed = transform(changed)
        if len(changed["boxes"]) != len(changed["labels"]):
            raise AttnlabError(
                f"data.train_transforms or data.augment leaves {len(changed['boxes'])} boxes but "
                f"{len(changed['labels'])} labels for the image '{self.items.names[key.index]}'. A "
                "transform that drops boxes must drop their labels, too."
            )
        boxes = v2.functional.convert_bounding_box_format(changed["boxes"], new_format=_XYXY)
        return DetectionSample(
            changed["image"].as_subclass(Tensor),
            boxes.as_subclass(Tensor).float().numpy(),
            changed["labels"].numpy(),
        )


class EvalSet(Dataset[dict[str, Any]]):
    """Images as stored, with their full annotations.

    Args:
        items: The images; without annotations, targets hold only ``image_id``.
        max_pixels: The most pixels that an image may have.
    """

    def __init__(self, items: DetectionItems, max_pixels: int = MAX_PIXELS) -> None:
        self.items = items
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        image = self.items.read(key.index, self.max_pixels)
        return _answer(self.items, key, image, self.target(key.index))

    def target(self, index: int) -> dict[str, np.ndarray]:
        """The annotation of an image, without decoding it."""
        objects = self.items.objects(index)
        known = OF_OBJECTS if self.items.annotated else ()
        return {name: getattr(self.items, name)[objects].copy() for name in known}


def _answer(
    items: DetectionItems, key: SampleKey, image: Tensor, target: dict[str, np.ndarray]
) -> dict[str, Any]:
    """A data set's item for a key."""
    return {
        "image": image,
        "target": {**target, "image_id": int(items.image_ids[key.index])},
        "index": key.index,
        "counted": key.counted,
        "name": items.names[key.index],
    }


def without_slivers(sample: DetectionSample) -> DetectionSample:
    """The sample with boxes clipped to the image, without those with a side below one pixel."""
    height, width = sample.image.shape[-2:]
    boxes = sample.boxes.clip(0, np.array([width, height, width, height], np.float32))
    wide = (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(1)
    return DetectionSample(sample.image, boxes[wide], sample.labels[wide])


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of samples; images may differ in size.

    Args:
        samples: From one of the data sets above, or `PredictSet`.

    Returns:
        ``image``, a list of (3, h, w); ``target``, a list of dicts with NumPy arrays, if the samples have
        one; and the batch's `marks`.
    """
    batch = {"image": [sample["image"] for sample in samples], **marks(samples)}
    if "target" in samples[0]:
        batch["target"] = [sample["target"] for sample in samples]
    return batch
