"""Data sets of images with boxes, and how their samples become batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from attnlab.data.classification_sets import PackedStrings
from attnlab.data.images import read_image
from attnlab.data.sampling import SampleKey, seeded
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
    boxes: Tensor
    labels: Tensor


class Mixing(Protocol):
    """What makes one training sample of several, such as a mosaic."""

    def __call__(
        self, sample_index: int, length: int, load: Callable[[int], DetectionSample], rng: Random
    ) -> DetectionSample:
        """Make a sample.

        Args:
            sample_index: Which one is asked for, 0 … length - 1.
            length: The number of samples.
            load: Gives a sample as stored, by its index. What it gives is not to be changed in place.
            rng: Random numbers of this sample alone.
        """
        ...


class AnnotatedImage(NamedTuple):
    """An image file and what its annotation says.

    Attributes:
        name: What reports call it by.
        path: The file.
        image_id: Its number in the data set, different for each image.
        size: Height and width in pixels.
        boxes: (N, 4), x0, y0, x1, y1 in pixels, within the image.
        labels: (N,) class indices.
        area: (N,) in square pixels; None takes the boxes' own.
        iscrowd: (N,) True for a box around a group that is not told apart; None means that there is none.
        difficult: (N,) True for an object that scores pass over; None means that there is none.
    """

    name: str
    path: Path
    image_id: int
    size: tuple[int, int]
    boxes: Sequence[Sequence[float]] | np.ndarray
    labels: Sequence[int] | np.ndarray
    area: Sequence[float] | np.ndarray | None = None
    iscrowd: Sequence[bool] | np.ndarray | None = None
    difficult: Sequence[bool] | np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class DetectionItems:
    """The annotated images of a split, in arrays.

    Loader processes share the arrays' memory. They would each make a copy of Python objects, since reading
    one writes to its reference count: gigabytes for COCO's 118 000 images and 860 000 boxes.

    Attributes:
        names: What reports call the images by (n).
        paths: The files (n).
        image_ids: (n,) int64.
        sizes: (n, 2) int64, height and width.
        ends: (n,) int64: the objects of image k are ``ends[k - 1]`` … ``ends[k] - 1``, from 0 for the first.
        boxes: (M, 4) float32 xyxy in pixels, of all images.
        labels: (M,) int64.
        area: (M,) float32, in square pixels.
        iscrowd: (M,) bool.
        difficult: (M,) bool.
        annotated: False where nobody has said what is in the images, as in COCO's test-dev.
        problems: What is wrong with an image or its annotation, by position, of those that cannot be used.
        dropped: How many boxes of an image were left out, since they have no area within it, by position, of
            those of which any were.
    """

    names: PackedStrings
    paths: PackedStrings
    image_ids: np.ndarray
    sizes: np.ndarray
    ends: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    iscrowd: np.ndarray
    difficult: np.ndarray
    annotated: bool = True
    problems: dict[int, str] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        images: Iterable[AnnotatedImage],
        problems: dict[int, str] | None = None,
        dropped: dict[int, int] | None = None,
    ) -> DetectionItems:
        """Pack images.

        Args:
            images: In the data set's order.
            problems: See the attribute.
            dropped: See the attribute.
        """
        listed = list(images)
        counts = [len(image.labels) for image in listed]
        boxes = _joined([np.asarray(image.boxes, np.float32).reshape(-1, 4) for image in listed], np.float32)
        boxes = boxes.reshape(-1, 4)
        own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        ends = np.cumsum(counts, dtype=np.int64)
        areas = np.split(own, ends[:-1]) if listed else []

        def flags(values: list[Any]) -> np.ndarray:
            given = zip(values, counts, strict=True)
            return _joined([np.zeros(n, bool) if value is None else value for value, n in given], bool)

        return cls(
            names=PackedStrings(image.name for image in listed),
            paths=PackedStrings(str(image.path) for image in listed),
            image_ids=np.array([image.image_id for image in listed], np.int64),
            sizes=np.array([image.size for image in listed], np.int64).reshape(-1, 2),
            ends=ends,
            boxes=boxes,
            labels=_joined([image.labels for image in listed], np.int64),
            area=_joined(
                [
                    part if image.area is None else image.area
                    for image, part in zip(listed, areas, strict=True)
                ],
                np.float32,
            ),
            iscrowd=flags([image.iscrowd for image in listed]),
            difficult=flags([image.difficult for image in listed]),
            problems=problems or {},
            dropped=dropped or {},
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def aspects(self) -> list[float]:
        """Width / height of each image, as its annotation says."""
        return (self.sizes[:, 1] / self.sizes[:, 0]).tolist()

    def objects(self, index: int) -> slice:
        """Where the objects of an image lie in the arrays."""
        return slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))

    def select(self, keep: np.ndarray) -> DetectionItems:
        """Some of the images, with all that is in them.

        Args:
            keep: (n,) bool.

        Returns:
            The images for which it is True, without ``problems`` and ``dropped``.
        """
        positions = np.flatnonzero(keep).tolist()
        counts = np.diff(self.ends, prepend=0)
        return replace(
            self._objects_where(np.repeat(keep, counts)),
            names=PackedStrings(self.names[k] for k in positions),
            paths=PackedStrings(self.paths[k] for k in positions),
            image_ids=self.image_ids[keep],
            sizes=self.sizes[keep],
            ends=np.cumsum(counts[keep], dtype=np.int64),
            problems={},
            dropped={},
        )

    def for_training(self, with_empty: bool) -> DetectionItems:
        """The images with what is learnt from: neither crowds nor difficult objects.

        Args:
            with_empty: Keep images in which nothing is left, too.
        """
        kept = self._objects_where(~(self.iscrowd | self.difficult))
        return kept if with_empty else kept.select(np.diff(kept.ends, prepend=0) > 0)

    def _objects_where(self, keep: np.ndarray) -> DetectionItems:
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        return replace(
            self,
            ends=before[self.ends],
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            area=self.area[keep],
            iscrowd=self.iscrowd[keep],
            difficult=self.difficult[keep],
        )

    def read(self, index: int) -> Tensor:
        """Decode an image as stored, whatever its EXIF orientation says: boxes lie on stored pixels.

        Returns:
            (3, h, w) uint8.

        Raises:
            AttnlabError: It cannot be read, or its size is not the one that the annotation states.
        """
        image = read_image(self.paths[index], exif=False)
        mismatch = size_mismatch(self.paths[index], image.shape[-2:], self.sizes[index])
        if mismatch:
            raise AttnlabError(f"{mismatch} Correct the annotation, or take the image off its list.")
        return image


def size_mismatch(path: str, found: Sequence[int], stated: Sequence[int]) -> str | None:
    """A sentence about an image whose (height, width) is not the one that its annotation states."""
    if tuple(found) == tuple(stated):
        return None
    return (
        f"The image '{path}' is {found[1]} x {found[0]} pixels, but its annotation says "
        f"{stated[1]} x {stated[0]}."
    )


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
        return DetectionSample(
            self.items.read(index),
            torch.from_numpy(self.items.boxes[objects].copy()),
            torch.from_numpy(self.items.labels[objects].copy()),
        )

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | SampleKey]) -> list[dict[str, Any]]:
        """The samples of a batch; an image that several of them need is decoded once."""
        decoded: dict[int, DetectionSample] = {}

        def load(index: int) -> DetectionSample:
            if index not in decoded:
                decoded[index] = self.load(index)
            return decoded[index]

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
        target = {
            "boxes": sample.boxes,
            "labels": sample.labels,
            "image_id": torch.tensor(int(self.items.image_ids[key.index])),
        }
        return {
            "image": sample.image,
            "target": target,
            "index": key.index,
            "counted": key.counted,
            "name": self.items.names[key.index],
        }

    def _changed(self, sample: DetectionSample, key: SampleKey) -> DetectionSample:
        """The sample after the transforms, with the random numbers of its stream."""
        if not self.transforms:
            return sample
        boxes = tv_tensors.BoundingBoxes(
            sample.boxes, format=_XYXY, canvas_size=tuple(sample.image.shape[-2:])
        )
        changed: Any = {"image": tv_tensors.Image(sample.image), "boxes": boxes, "labels": sample.labels}
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
            changed["image"].as_subclass(Tensor), boxes.as_subclass(Tensor), changed["labels"]
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
        return {
            "image": self.items.read(key.index),
            "target": self.target(key.index),
            "index": key.index,
            "counted": key.counted,
            "name": self.items.names[key.index],
        }

    def target(self, index: int) -> dict[str, Tensor]:
        """What is known of an image, without decoding it."""
        target = {"image_id": torch.tensor(int(self.items.image_ids[index]))}
        if self.items.annotated:
            objects = self.items.objects(index)
            for key in ("boxes", "labels", "iscrowd", "difficult", "area"):
                target[key] = torch.from_numpy(getattr(self.items, key)[objects].copy())
        return target


def without_slivers(sample: DetectionSample) -> DetectionSample:
    """The sample with its boxes clipped to the image, without those that have a side below a pixel then."""
    height, width = sample.image.shape[-2:]
    boxes = sample.boxes.float().clamp(min=0)
    boxes = torch.minimum(boxes, boxes.new_tensor([width, height, width, height]))
    wide = (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(1)
    return DetectionSample(sample.image, boxes[wide], sample.labels[wide])


def collate(samples: list[dict[str, Any]], as_bits: bool = False) -> dict[str, Any]:
    """Make a batch of samples, whose images may be of different sizes.

    Args:
        samples: Of one of the data sets above, or of `classification_sets.PredictSet`.
        as_bits: Give the boxes and areas, float32, as int32 of the same bits. In a run of half precision
            Lightning would round them to it, which for boxes is a pixel or more. `from_bits` undoes it.

    Returns:
        ``image``, a list of (3, h, w); ``index`` int64 (B,); ``counted`` bool (B,); and of ``target`` (list
        of dicts), ``name`` and ``path`` (lists of str) what the samples have.
    """
    batch: dict[str, Any] = {
        "image": [sample["image"] for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples]),
        "counted": torch.tensor([sample["counted"] for sample in samples]),
    }
    for key in ("target", "name", "path"):
        if key in samples[0]:
            batch[key] = [sample[key] for sample in samples]
    if as_bits:
        for target in batch.get("target", []):
            target.update({key: target[key].view(torch.int32) for key in ("boxes", "area") if key in target})
    return batch


def from_bits(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """A target whose boxes and areas are float32, however they travelled."""
    exact: dict[str, Tensor] = {
        key: target[key].view(torch.float32) if target[key].dtype == torch.int32 else target[key].float()
        for key in ("boxes", "area")
        if key in target
    }
    return {**target, **exact}


def _joined(parts: Sequence[Any], dtype: Any) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype) for part in parts] or [np.empty(0, dtype)])
