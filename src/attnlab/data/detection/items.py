"""The annotated images of a split, in arrays shared by loader workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from attnlab.data.checks import look_at_all
from attnlab.data.headers import MAX_PIXELS, stated_size
from attnlab.data.images import read_image
from attnlab.data.sets import PackedStrings
from attnlab.errors import AttnlabError

OF_OBJECTS = ("boxes", "labels", "area", "iscrowd", "difficult")
"""The attributes of `DetectionItems` with one row per object."""


class ImageAndBoxes(NamedTuple):
    """An image file and its annotation.

    Attributes:
        name: Its name in messages.
        path: The file.
        image_id: Its id, unique in the data set.
        size: Height and width in pixels.
        boxes: (N, 4), x0, y0, x1, y1 in pixels.
        labels: (N,) class indices.
        difficult: (N,) True for objects that metrics ignore; None means none are.
    """

    name: str
    path: Path
    image_id: int
    size: tuple[int, int]
    boxes: Sequence[Sequence[float]] | np.ndarray
    labels: Sequence[int] | np.ndarray
    difficult: Sequence[bool] | None = None


@dataclass(frozen=True, eq=False)
class DetectionItems:
    """The annotated images of a split, in arrays.

    Loader workers share the arrays' memory. Python objects would be copied into each worker, since reading
    one writes to its reference count: gigabytes for COCO's 118 000 images and 860 000 boxes.

    Attributes:
        names: The images' names in messages (n).
        paths: The files (n).
        image_ids: (n,) int64.
        sizes: (n, 2) int64, height and width.
        ends: (n,) int64: the objects of image k are ``ends[k - 1]`` … ``ends[k] - 1``, from 0 for the first.
        boxes: (M, 4) float32 xyxy in pixels, of all images.
        labels: (M,) int64.
        area: (M,) float32, in square pixels.
        iscrowd: (M,) bool.
        difficult: (M,) bool.
        annotated: False if the images have no annotations, as in COCO's test-dev.
        problems: Problems of unusable images or annotations, by position.
        dropped: Number of an image's boxes dropped because they have no area inside it, by position, if any.
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
    def of(cls, images: Iterable[ImageAndBoxes], problems: dict[int, str] | None = None) -> DetectionItems:
        """Pack images in the data set's order; see `packed`."""
        listed = list(images)
        counts = [len(image.labels) for image in listed]
        return cls.packed(
            np.repeat(np.arange(len(listed)), np.array(counts, np.int64)),
            boxes=_joined([np.ravel(image.boxes) for image in listed], np.float32).reshape(-1, 4),
            labels=_joined([image.labels for image in listed], np.int64),
            difficult=_joined(
                [image.difficult or [False] * n for image, n in zip(listed, counts, strict=True)], bool
            ),
            names=PackedStrings(image.name for image in listed),
            paths=PackedStrings(str(image.path) for image in listed),
            image_ids=np.array([image.image_id for image in listed], np.int64),
            sizes=np.array([image.size for image in listed], np.int64).reshape(-1, 2),
            problems=problems or {},
        )

    @classmethod
    def packed(
        cls, owners: np.ndarray, boxes: np.ndarray, sizes: np.ndarray, **columns: Any
    ) -> DetectionItems:
        """Pack images and objects; boxes without area inside their image are dropped and counted.

        Args:
            owners: (M,) int64, the position of each object's image, in any order.
            boxes: (M, 4), unclipped; they are clipped to the image.
            sizes: As the attribute.
            **columns: The other attributes except ``ends`` and ``dropped``. ``area`` defaults to that of the
                boxes, ``iscrowd`` and ``difficult`` to False.
        """
        boxes = boxes.astype(np.float32).clip(0, np.tile(sizes[owners, ::-1], 2).astype(np.float32))
        sides, no = boxes[:, 2:] - boxes[:, :2], np.zeros(len(boxes), bool)
        columns = {"area": sides.prod(1), "iscrowd": no, "difficult": no, "boxes": boxes, **columns}
        has_area = (sides > 0).all(1)
        order = np.argsort(owners, kind="stable")
        order = order[has_area[order]]
        return cls(
            sizes=sizes,
            ends=np.cumsum(np.bincount(owners[order], minlength=len(sizes)), dtype=np.int64),
            dropped=dict(Counter(owners[~has_area].tolist())),
            **{key: value[order] if key in OF_OBJECTS else value for key, value in columns.items()},
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def aspects(self) -> list[float]:
        """Width / height of each image, from its annotation."""
        return (self.sizes[:, 1] / self.sizes[:, 0]).tolist()

    def objects(self, index: int) -> slice:
        """The rows of an image's objects."""
        return slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))

    def select(self, keep: np.ndarray) -> DetectionItems:
        """The images for which ``keep``, (n,) bool, is True, without ``problems`` and ``dropped``."""
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
        """The images for training: without crowd and difficult objects.

        Args:
            with_empty: Keep images that have no objects left.
        """
        kept = self._objects_where(~(self.iscrowd | self.difficult))
        return kept if with_empty else kept.select(np.diff(kept.ends, prepend=0) > 0)

    def _objects_where(self, keep: np.ndarray) -> DetectionItems:
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        columns = {name: getattr(self, name)[keep] for name in OF_OBJECTS}
        return replace(self, ends=before[self.ends], **columns)

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> Tensor:
        """Decode an image, (3, h, w) uint8, as stored, ignoring its EXIF orientation as boxes do.

        Raises:
            AttnlabError: It cannot be read, is too large, or its size differs from the annotation's.
        """
        image = read_image(self.paths[index], exif=False, max_pixels=max_pixels)
        mismatch = size_mismatch(self.paths[index], image.shape[-2:], self.sizes[index])
        if mismatch:
            raise AttnlabError(f"{mismatch} Correct the annotation, or remove the image from its list.")
        return image


def size_mismatch(path: str, found: Sequence[int], stated: Sequence[int]) -> str | None:
    """The message about an image whose (height, width) differs from its annotation's."""
    if tuple(found) == tuple(stated):
        return None
    return (
        f"The image '{path}' is {found[1]} x {found[0]} pixels, but its annotation says "
        f"{stated[1]} x {stated[0]}."
    )


def find_wrong_sizes(items: DetectionItems, max_pixels: int = MAX_PIXELS) -> dict[int, str]:
    """Images whose size differs from their annotation's, by position."""

    def look(position: int) -> str | None:
        path = items.paths[position]
        try:
            return size_mismatch(path, stated_size(path, max_pixels), items.sizes[position].tolist())
        except Exception:  # Files that are too large or cannot be opened are reported by the file check.
            return None

    return look_at_all(len(items), look)


def _joined(parts: Iterable[Any], dtype: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(part, dtype) for part in parts)])
