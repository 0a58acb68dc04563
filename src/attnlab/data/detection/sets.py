"""Data sets of images with boxes, and how their samples become batches.

Boxes are NumPy arrays of float32 from the annotation to the loss and to the score: a run of half precision
rounds every floating tensor of a batch, which for boxes is a pixel or more, and leaves arrays alone.
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
from attnlab.data.sampling import SampleKey, seeded
from attnlab.data.sets import marks
from attnlab.errors import AttnlabError

_LEAST_SIDE = 1.0
_XYXY = tv_tensors.BoundingBoxFormat.XYXY


class DetectionSample(NamedTuple):
    """An image and the objects in it.

    Attributes:
        image: (3, h, w) uint8.
        boxes: (N, 4) float32, x0, y0, x1, y1 in pixels, 0 <= x0 < x1 <= w and 0 <= y0 < y1 <= h.
        labels: (N,) int64, 0 … K - 1.
    """

    image: Tensor
    boxes: np.ndarray
    labels: np.ndarray


Mixing = Callable[[int, int, Callable[[int], DetectionSample], Random], DetectionSample]
"""Makes one training sample of several, such as a mosaic; called as `MosaicMixup` is."""


class TrainSet(Dataset[dict[str, Any]]):
    """Images with their objects, augmented together.

    Args:
        items: As `DetectionItems.for_training` leaves them.
        transforms: Applied in turn to a dict of ``image`` (tv_tensors.Image), ``boxes``
            (tv_tensors.BoundingBoxes, XYXY) and ``labels`` (N,). Afterwards boxes are clipped to the image,
            and those with a side of less than a pixel are left out.
        seed: The run's seed. A sample's random numbers depend on it, the epoch and the index alone.
        mixing: Makes one sample of several, before the transforms.
        strong_epochs: The number of epochs, from the first, in which ``mixing`` is used; None means all.
    """

    def __init__(
        self,
        items: DetectionItems,
        transforms: Sequence[nn.Module],
        seed: int,
        mixing: Mixing | None = None,
        strong_epochs: int | None = None,
    ) -> None:
        self.items = items
        self.transforms = list(transforms)
        self.seed = seed
        self.mixing = mixing
        self.strong_epochs = strong_epochs

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> DetectionSample:
        """An image and its objects as stored."""
        objects = self.items.objects(index)
        return DetectionSample(self.items.read(index), self.items.boxes[objects], self.items.labels[objects])

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | SampleKey]) -> list[dict[str, Any]]:
        """The samples of a batch; an image that several of them need is decoded once."""
        load = cache(self.load)
        return [self._sample(SampleKey.of(key), load) for key in keys]

    def _sample(self, key: SampleKey, load: Callable[[int], DetectionSample]) -> dict[str, Any]:
        strong = self.strong_epochs is None or key.epoch < self.strong_epochs
        if self.mixing is not None and strong:
            # Apart from the transforms' stream, which is of the same three numbers.
            rng = Random(f"mixing {self.seed} {key.epoch} {key.index}")
            sample = self.mixing(key.index, len(self), load, rng)
        else:
            sample = load(key.index)
        sample = without_slivers(self._changed(sample, key))
        return _answer(self.items, key, sample.image, {"boxes": sample.boxes, "labels": sample.labels})

    def _changed(self, sample: DetectionSample, key: SampleKey) -> DetectionSample:
        """The sample after the transforms, with the random numbers of its stream."""
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
                f"data.train_transforms or data.augment leaves {len(changed['boxes'])} boxes and "
                f"{len(changed['labels'])} labels of the image '{self.items.names[key.index]}'. A transform "
                "that takes boxes away must do so to 'labels' too."
            )
        boxes = v2.functional.convert_bounding_box_format(changed["boxes"], new_format=_XYXY)
        return DetectionSample(
            changed["image"].as_subclass(Tensor),
            boxes.as_subclass(Tensor).float().numpy(),
            changed["labels"].numpy(),
        )


class EvalSet(Dataset[dict[str, Any]]):
    """Images as stored, with all that is known of their objects.

    Args:
        items: Images; where they are not annotated, a target is the image's id alone.
    """

    def __init__(self, items: DetectionItems) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = SampleKey.of(key)
        return _answer(self.items, key, self.items.read(key.index), self.target(key.index))

    def target(self, index: int) -> dict[str, np.ndarray]:
        """What is known of an image's objects, without decoding it."""
        objects = self.items.objects(index)
        known = OF_OBJECTS if self.items.annotated else ()
        return {name: getattr(self.items, name)[objects].copy() for name in known}


def _answer(
    items: DetectionItems, key: SampleKey, image: Tensor, target: dict[str, np.ndarray]
) -> dict[str, Any]:
    """What a data set answers to a key."""
    return {
        "image": image,
        "target": {**target, "image_id": int(items.image_ids[key.index])},
        "index": key.index,
        "counted": key.counted,
        "name": items.names[key.index],
    }


def without_slivers(sample: DetectionSample) -> DetectionSample:
    """The sample with its boxes clipped to the image, without those that have a side below a pixel then."""
    height, width = sample.image.shape[-2:]
    boxes = sample.boxes.clip(0, np.array([width, height, width, height], np.float32))
    wide = (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(1)
    return DetectionSample(sample.image, boxes[wide], sample.labels[wide])


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of samples, whose images may be of different sizes.

    Args:
        samples: Of one of the data sets above, or of `PredictSet`.

    Returns:
        ``image``, a list of (3, h, w); ``target``, a list of dicts with NumPy arrays, if the samples have
        one; and the batch's `marks`.
    """
    batch = {"image": [sample["image"] for sample in samples], **marks(samples)}
    if "target" in samples[0]:
        batch["target"] = [sample["target"] for sample in samples]
    return batch
