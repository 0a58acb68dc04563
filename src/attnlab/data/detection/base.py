"""The base of detection data modules: from lists of files and boxes to batches."""

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
from attnlab.data.names import absent_classes
from attnlab.data.sampling import AspectGroupedSampler, run_seed
from attnlab.data.sets import PredictSet
from attnlab.data.transforms import refuse_replaced
from attnlab.errors import AttnlabError


class DetectionDataModule(DataModule):
    """Base of detection data modules; a subclass says which classes there are and which images.

    Images reach the detector each at its own size, with values in 0..1; resizing, normalising and batching
    are the detector's own. In evaluation they are as stored, so scores are taken in their own pixels.

    Args:
        root: Where the data set lies.
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in validation, test and prediction.
        num_workers: Loader processes for each process. The samples are the same for any number.
        train_transforms: Replaces the recipe of a random flip: transforms (torchvision's v2 or any module)
            applied in turn to a dict of ``image`` (tv_tensors.Image, uint8), ``boxes``
            (tv_tensors.BoundingBoxes, in pixels) and ``labels``. Boxes are clipped to the image afterwards,
            and those with a side of less than a pixel left out.
        flip: Probability of the recipe's left-right flip, 0..1; None means 0.5.
        augment: More transforms, applied in turn after the recipe's flip, e.g.
            torchvision.transforms.v2.RandomPhotometricDistort.
        mosaic: Probability, 0..1, that a training sample is a mosaic of four images.
        mixup: Probability, 0..1, that another image is blended into a mosaic.
        mosaic_size: Side of a mosaic in pixels; None means 640, or the size of drawn scenes.
        strong_share: Share of the epochs, from the first, in which mosaic and mixup are used, 0..1. In the
            rest the training samples are single images.
        train_on_empty: Train on images without objects, too.
        group_by_aspect: Make training batches of images that are all wide or all high, so that little of a
            batch is padding.
        check: How to look at every file before the first step: ``quick`` at its start and end, which finds
            files that are missing, empty, cut short or no pictures; ``full`` decodes those that it has not
            found whole before, and compares their sizes with the stated ones; ``none``. Annotations are
            always read in full.
        on_bad_image: What to do about images that cannot be used, or whose annotations cannot: stop with an
            error that names them, or ``skip`` them with one warning.
        predict_images: What prediction is to read: files, folders (with the folders in them) or patterns such
            as ``"shots/*.jpg"``, of any picture format, mode and size.
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
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, num_workers, check, on_bad_image, predict_images)
        shares = {"flip": flip, "mosaic": mosaic, "mixup": mixup, "strong_share": strong_share}
        for name, value in shares.items():
            if value is not None and not 0 <= value <= 1:
                raise AttnlabError(f"data.{name} is {value}; it must be within 0..1.")
        given = {"mixup": mixup > 0, "mosaic_size": mosaic_size is not None, "strong_share": strong_share < 1}
        for name, is_given in given.items():
            if is_given and mosaic == 0:
                raise AttnlabError(
                    f"data.{name} belongs to mosaics, but data.mosaic, their probability, is 0: set "
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
        """The classes in the order of their labels 0, 1, …: the data set's own number of each, and its name.

        The names are unique.

        Raises:
            AttnlabError: They are to be read from the data set, and it is not there.
        """

    @abstractmethod
    def items(self, split: str) -> DetectionItems:
        """The images of ``"train"``, ``"val"`` or ``"test"``, as listed, whether they are usable or not.

        Raises:
            AttnlabError: The data set or the split is not there, or of other classes.
        """

    @cached_property
    def _categories(self) -> dict[int, str]:
        """Read at first use, since the data may have to be made first."""
        return self.categories()

    @property
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, …, to be shown; raises what `categories` does."""
        return list(self._categories.values())

    @property
    def category_ids(self) -> list[int]:
        """The data set's own numbers of the classes 0, 1, …, from 1 where it has none; raises likewise."""
        return list(self._categories)

    @property
    def dropped_boxes(self) -> int:
        """Number of boxes left out so far, since they have no area within their image."""
        return sum(self._dropped.values())

    @property
    def palette(self) -> list[list[int]]:
        """A colour for each class, RGB in 0..255: light enough for thin lines, hues far apart in turn."""
        return [_colour(label) for label in range(self.num_classes)]

    def setup(self, stage: str | None = None) -> None:
        """List and check the images of the splits that a stage needs; see `DataModule.setup`.

        Raises:
            AttnlabError: Also if a label is beyond the classes, or a share of the epochs is asked for whose
                number is not set.
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
                f"data.strong_share is {self.strong_share}, a share of the epochs, but their number is not "
                "set: set trainer.max_epochs."
            )
        # Epoch k is strong if k / epochs < share; 0.1 * 30 is a little above 3.
        return math.ceil(round(self.strong_share * epochs, 6))

    def _to_train_on(self, items: DetectionItems) -> DetectionItems:
        if not items.annotated:
            raise AttnlabError("The 'train' images have no annotations: there is nothing to learn from.")
        kept = items.for_training(self.train_on_empty)
        if len(kept.labels) == 0:
            raise AttnlabError(
                f"There is nothing to train on: none of the {len(items)} 'train' images in '{self.root}' has "
                "an object that is neither a crowd nor difficult."
            )
        shown = set(kept.labels.tolist())
        absent = [name for label, name in enumerate(self.class_names) if label not in shown]
        if absent:
            rank_zero_warn(absent_classes(absent, self.num_classes, "training annotation"))
        return kept

    def problems(self, split: str, items: DetectionItems) -> dict[int, str]:
        """What is wrong with images and annotations, by position.

        Raises:
            AttnlabError: A label is beyond the classes.
        """
        beyond = (items.labels < 0) | (items.labels >= self.num_classes)
        if beyond.any():
            position = int(np.searchsorted(items.ends, np.flatnonzero(beyond)[0], side="right"))
            raise AttnlabError(
                f"{int(beyond.sum())} objects of the '{split}' images have a label beyond the "
                f"{self.num_classes} classes, e.g. {items.labels[beyond][0]} in "
                f"'{items.names[position]}'; labels go from 0 to {self.num_classes - 1}."
            )
        self._count_dropped(items)
        found = {**self.bad_files(items.paths), **items.problems}
        if self.check == "full":
            found = {**find_wrong_sizes(items), **found}
        return dict(sorted(found.items()))

    def _count_dropped(self, items: DetectionItems) -> None:
        dropped = {items.paths[k]: count for k, count in items.dropped.items()}
        new = {path: count for path, count in dropped.items() if path not in self._dropped}
        if new:
            self._dropped |= new
            rank_zero_warn(
                f"{sum(new.values())} boxes have no area within their image and are left out, in "
                f"{len(new)} images, e.g. '{next(iter(new))}'."
            )

    def paths(self, items: Any) -> Sequence[Path | str]:
        """The picture file of each image."""
        return items.paths

    def item_names(self, items: Any) -> Sequence[str]:
        """What reports call the images by; those to predict on are paths."""
        return items.names if isinstance(items, DetectionItems) else super().item_names(items)

    def without(self, items: Any, bad: set[int]) -> Any:
        """The images but for those at some positions."""
        if not isinstance(items, DetectionItems):
            return super().without(items, bad)
        return items.select(~np.isin(np.arange(len(items)), list(bad)))

    def make_dataset(self, split: str, items: Any) -> Dataset[Any]:
        """Training, evaluation or prediction on the images."""
        if split == "predict":
            return PredictSet(items)
        if split == "train":
            kept = self._to_train_on(items)
            return TrainSet(kept, self.train_transforms, run_seed(), self.mixing, self._strong_epochs())
        return EvalSet(items)

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        """Keeps images and boxes in lists."""
        return collate

    def make_sampler(self, split: str) -> Sampler[Any]:
        """The sampler of a split; that of training puts images of like shape together if asked to."""
        dataset = self.dataset(split)
        if not self.group_by_aspect or not isinstance(dataset, TrainSet):
            return super().make_sampler(split)
        return AspectGroupedSampler(
            dataset, *self.world, run_seed(), batch_size=self.batch_size, aspects=dataset.items.aspects
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn images into floating point in 0..1 of the trainer's precision."""
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
