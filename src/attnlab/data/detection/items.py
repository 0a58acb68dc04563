"""The annotated images of a split, in arrays that loader processes share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from attnlab.data.checks import look_at_all
from attnlab.data.images import read_image
from attnlab.data.sets import PackedStrings
from attnlab.errors import AttnlabError

OF_OBJECTS = ("boxes", "labels", "area", "iscrowd", "difficult")
"""The attributes of `DetectionItems` with a row for each object."""


class AnnotatedImage(NamedTuple):
    """An image file and what its annotation says.

    Attributes:
        name: What reports call it by.
        path: The file.
        image_id: Its number in the data set, different for each image.
        size: Height and width in pixels.
        boxes: (N, 4), x0, y0, x1, y1 in pixels.
        labels: (N,) class indices.
        difficult: (N,) True for an object that scores pass over; None means that there is none.
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
    def of(cls, images: Iterable[AnnotatedImage], problems: dict[int, str] | None = None) -> DetectionItems:
        """Pack images, in the data set's order; see `packed`."""
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
        """Pack images and objects; boxes without area within their image are left out, and counted.

        Args:
            owners: (M,) int64, the position of each object's image, in any order.
            boxes: (M, 4), as they are given; they are clipped to the image.
            sizes: As the attribute.
            **columns: The other attributes, but for ``ends`` and ``dropped``. Without ``area``, it is that of
                the boxes; without ``iscrowd`` or ``difficult``, no object is.
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
        """Width / height of each image, as its annotation says."""
        return (self.sizes[:, 1] / self.sizes[:, 0]).tolist()

    def objects(self, index: int) -> slice:
        """Where the objects of an image lie in the arrays."""
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
        """The images with what is learnt from: neither crowds nor difficult objects.

        Args:
            with_empty: Keep images in which nothing is left, too.
        """
        kept = self._objects_where(~(self.iscrowd | self.difficult))
        return kept if with_empty else kept.select(np.diff(kept.ends, prepend=0) > 0)

    def _objects_where(self, keep: np.ndarray) -> DetectionItems:
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        columns = {name: getattr(self, name)[keep] for name in OF_OBJECTS}
        return replace(self, ends=before[self.ends], **columns)

    def read(self, index: int) -> Tensor:
        """Decode an image, (3, h, w) uint8, as stored, whatever its EXIF orientation says: so boxes lie.

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


def find_wrong_sizes(items: DetectionItems) -> dict[int, str]:
    """The images whose files are not of the size that their annotations state, by position."""

    def look(position: int) -> str | None:
        path = items.paths[position]
        try:
            with Image.open(path) as picture:
                return size_mismatch(path, (picture.height, picture.width), items.sizes[position].tolist())
        except Exception:  # What cannot be opened is found, and said, by the check of the files.
            return None

    return look_at_all(len(items), look)


def _joined(parts: Iterable[Any], dtype: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(part, dtype) for part in parts)])
