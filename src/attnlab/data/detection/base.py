"""Base of detection data modules."""

from __future__ import annotations

import colorsys
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

from attnlab.data.base import STAGE_SPLITS, Check, DataModule
from attnlab.data.detection.items import DetectionItems, find_wrong_sizes
from attnlab.data.detection.mosaic import MosaicMixup
from attnlab.data.detection.sets import EvalSet, TrainSet, collate
from attnlab.data.headers import MAX_PIXELS
from attnlab.data.names import absent_classes
from attnlab.data.sampling import AspectGroupedSampler, run_seed
from attnlab.data.sets import PredictSet
from attnlab.data.transforms import refuse_replaced
from attnlab.errors import AttnlabError


class DetectionDataModule(DataModule):
    """Base class of detection data modules; a subclass lists classes and images.

    Images reach the detector at their own size with values in 0..1; the detector resizes, normalises and
    batches them. In evaluation they are as stored, so scores refer to the original pixels.

    Args:
        root: Folder of the data set.
        batch_size: Training images per process and step.
        eval_batch_size: Images per process and step in validation, test and prediction.
        num_workers: Loader workers per process. The samples do not depend on the number.
        train_transforms: Replaces the random flip: transforms (torchvision v2 or any module) applied in turn
            to a dict of ``image`` (tv_tensors.Image, uint8), ``boxes`` (tv_tensors.BoundingBoxes, in pixels)
            and ``labels``. Afterwards boxes are clipped to the image, and those with a side below one pixel
            dropped.
        flip: Probability of a left-right flip, 0..1; None means 0.5.
        augment: Further transforms, applied in turn after the flip, e.g.
            torchvision.transforms.v2.RandomPhotometricDistort.
        mosaic: Probability, 0..1, that a training sample is a mosaic of four images.
        mixup: Probability, 0..1, that another image is blended into a mosaic.
        mosaic_size: Side of a mosaic in pixels; None means 640, or the size of drawn scenes.
        strong_share: Share of the epochs, from the first, that use mosaic and mixup, 0..1. Later epochs train
            on single images.
        train_on_empty: Also train on images without objects.
        group_by_aspect: Group wide and tall images into separate training batches, to reduce padding.
        check: How to check all files before the first step. ``quick`` reads each file's start and end, which
            finds files that are missing, empty, truncated or not images. ``full`` decodes every file not yet
            found intact, and compares its size with the annotated one. ``none`` checks nothing. Annotations
            are always read in full.
        on_bad_image: What to do about unusable images or annotations: ``error`` stops and lists them,
            ``skip`` leaves them out with a warning.
        predict_images: Images to predict on: files, folders (searched recursively) or patterns such as
            ``"shots/*.jpg"``; any image format, mode and size.
        max_pixels: The most pixels that an image may have. One that states more is not decoded: it would take
            up to 20 bytes of memory per pixel.
    """

    task = "detection"
    default_mosaic_size: int = 640

    def __init__(
        self,
        root: str,
        batch_size: int = 8,
        eval_batch_size: int = 1,
        num_workers: int = 2,
        train_transforms: list[nn.Module] | None = None,
        flip: float | None = None,
        augment: list[nn.Module] | None = None,
        mosaic: float = 0.0,
        mixup: float = 0.0,
        mosaic_size: int | None = None,
        strong_share: float = 1.0,
        train_on_empty: bool = False,
        group_by_aspect: bool = False,
        check: Check = "quick",
        on_bad_image: Literal["error", "skip"] = "error",
        predict_images: str | list[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(
            root,
            batch_size,
            eval_batch_size,
            num_workers,
            check,
            on_bad_image,
            predict_images,
            max_pixels,
        )
        shares = {"flip": flip, "mosaic": mosaic, "mixup": mixup, "strong_share": strong_share}
        for name, value in shares.items():
            if value is not None and not 0 <= value <= 1:
                raise AttnlabError(f"data.{name} is {value}; it must be within 0..1.")
        given = {"mixup": mixup > 0, "mosaic_size": mosaic_size is not None, "strong_share": strong_share < 1}
        for name, is_given in given.items():
            if is_given and mosaic == 0:
                raise AttnlabError(
                    f"data.{name} applies to mosaics, but data.mosaic, their probability, is 0. Set "
                    f"data.mosaic, or leave data.{name} out."
                )
        self.train_on_empty = train_on_empty
        self.group_by_aspect = group_by_aspect
        if train_transforms is None:
            mirror = v2.RandomHorizontalFlip(0.5 if flip is None else flip)
            self.train_transforms: list[nn.Module] = [mirror, *(augment or [])]
        else:
            refuse_replaced(
                {"flip": flip, "augment": augment}, "torchvision.transforms.v2.RandomHorizontalFlip"
            )
            self.train_transforms = list(train_transforms)
        size = self.default_mosaic_size if mosaic_size is None else mosaic_size
        self.mixing = MosaicMixup(size, mosaic, mixup) if mosaic else None
        self.strong_share = strong_share
        self._dropped: dict[str, int] = {}

    @abstractmethod
    def categories(self) -> dict[int, str]:
        """The classes in the order of their labels 0, 1, …: the data set's id of each, and its unique name.

        Raises:
            AttnlabError: They must be read from the data set, which does not exist.
        """

    @abstractmethod
    def items(self, split: str) -> DetectionItems:
        """The images of ``"train"``, ``"val"`` or ``"test"``, whether usable or not.

        Raises:
            AttnlabError: The data set or the split does not exist, or has other classes.
        """

    @cached_property
    def _categories(self) -> dict[int, str]:
        """Read at first use, since the data may have to be made first."""
        return self.categories()

    @property
    def class_names(self) -> list[str]:
        """Display names of the classes 0, 1, …; raises what `categories` does."""
        return list(self._categories.values())

    @property
    def category_ids(self) -> list[int]:
        """The data set's ids of the classes 0, 1, …, or 1, 2, … if it has none; raises likewise."""
        return list(self._categories)

    @property
    def dropped_boxes(self) -> int:
        """Number of boxes dropped so far because they have no area inside their image."""
        return sum(self._dropped.values())

    @property
    def palette(self) -> list[list[int]]:
        """A colour for each class, RGB in 0..255: bright enough for thin lines, with well separated hues."""
        return [_colour(label) for label in range(self.num_classes)]

    def setup(self, stage: str | None = None) -> None:
        """List and check the images of a stage's splits; see `DataModule.setup`.

        Raises:
            AttnlabError: Also if a label is out of range, or ``strong_share`` is set but the number of epochs
                is not.
        """
        if "train" in STAGE_SPLITS[stage] and "train" not in self.datasets:
            self._strong_epochs()
        super().setup(stage)

    def _strong_epochs(self) -> int | None:
        """The number of epochs with mosaics; None means all."""
        if self.strong_share == 1:
            return None
        epochs = None if self.trainer is None else self.trainer.max_epochs
        if epochs is None or epochs < 0:
            raise AttnlabError(
                f"data.strong_share is {self.strong_share}, a share of the epochs, but their number is "
                "unknown: set trainer.max_epochs."
            )
        # Epoch k is strong if k / epochs < share; 0.1 * 30 is a little above 3.
        return math.ceil(round(self.strong_share * epochs, 6))

    def _to_train_on(self, items: DetectionItems) -> DetectionItems:
        if not items.annotated:
            raise AttnlabError("The 'train' images have no annotations to learn from.")
        kept = items.for_training(self.train_on_empty)
        if len(kept.labels) == 0:
            raise AttnlabError(
                f"There is nothing to train on: none of the {len(items)} 'train' images in '{self.root}' "
                "has an object that is neither crowd nor difficult."
            )
        shown = set(kept.labels.tolist())
        absent = [name for label, name in enumerate(self.class_names) if label not in shown]
        if absent:
            rank_zero_warn(absent_classes(absent, self.num_classes, "training annotation"))
        return kept

    def problems(self, split: str, items: DetectionItems) -> dict[int, str]:
        """Problems of images and annotations, by position.

        Raises:
            AttnlabError: A label is out of range.
        """
        beyond = (items.labels < 0) | (items.labels >= self.num_classes)
        if beyond.any():
            position = int(np.searchsorted(items.ends, np.flatnonzero(beyond)[0], side="right"))
            raise AttnlabError(
                f"{int(beyond.sum())} objects of the '{split}' images have a label outside 0 to "
                f"{self.num_classes - 1}, e.g. {items.labels[beyond][0]} in '{items.names[position]}'."
            )
        self._count_dropped(items)
        found = {**self.bad_files(items.paths), **items.problems}
        if self.check == "full":
            found = {**find_wrong_sizes(items, self.max_pixels), **found}
        return dict(sorted(found.items()))

    def _count_dropped(self, items: DetectionItems) -> None:
        dropped = {items.paths[k]: count for k, count in items.dropped.items()}
        new = {path: count for path, count in dropped.items() if path not in self._dropped}
        if new:
            self._dropped |= new
            rank_zero_warn(
                f"{sum(new.values())} boxes in {len(new)} images have no area inside their image and are "
                f"dropped, e.g. in '{next(iter(new))}'."
            )

    def paths(self, items: Any) -> Sequence[Path | str]:
        """The file of each image."""
        return items.paths

    def item_names(self, items: Any) -> Sequence[str]:
        """The images' names in messages; paths for prediction."""
        return items.names if isinstance(items, DetectionItems) else super().item_names(items)

    def without(self, items: Any, bad: set[int]) -> Any:
        """The images without those at some positions."""
        if not isinstance(items, DetectionItems):
            return super().without(items, bad)
        return items.select(~np.isin(np.arange(len(items)), list(bad)))

    def make_dataset(self, split: str, items: Any) -> Dataset[Any]:
        """The data set for training, evaluation or prediction."""
        if split == "predict":
            return PredictSet(items, max_pixels=self.max_pixels)
        if split == "train":
            kept = self._to_train_on(items)
            mixing, epochs = self.mixing, self._strong_epochs()
            return TrainSet(kept, self.train_transforms, run_seed(), mixing, epochs, self.max_pixels)
        return EvalSet(items, self.max_pixels)

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        """Keep images and boxes in lists."""
        return collate

    def make_sampler(self, split: str) -> Sampler[Any]:
        """The sampler of a split; for training it groups images by aspect ratio if asked to."""
        dataset = self.dataset(split)
        if not self.group_by_aspect or not isinstance(dataset, TrainSet):
            return super().make_sampler(split)
        return AspectGroupedSampler(
            dataset, *self.world, run_seed(), batch_size=self.batch_size, aspects=dataset.items.aspects
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Convert images to floats in 0..1 of the trainer's precision."""
        batch["image"] = [self._as_float(image) for image in batch["image"]]
        return batch

    def _as_float(self, image: Tensor) -> Tensor:
        if image.dtype == torch.uint8:
            image = image.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        return image if self.trainer is None else self.trainer.precision_plugin.convert_input(image)


def _colour(label: int) -> list[int]:
    # Steps of the golden ratio spread the first k hues evenly, for any k.
    hue = label * (math.sqrt(5) - 1) / 2 % 1
    saturation, value = (0.85, 0.95) if label % 2 == 0 else (0.6, 1.0)
    return [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)]
