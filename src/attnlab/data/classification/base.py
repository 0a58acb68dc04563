"""Base of classification data modules."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.utils.data import Dataset

from attnlab.data.base import DataModule
from attnlab.data.classification.sets import EvalSet, ImageAndLabel, TrainSet, collate
from attnlab.data.names import absent_classes, alike, check_names, differences, shown_alike
from attnlab.data.sampling import run_seed
from attnlab.data.sets import PredictSet
from attnlab.data.transforms import RandomResizedCropFlip, ResizeCentreCrop, refuse_replaced
from attnlab.errors import AttnlabError


class ClassificationDataModule(DataModule):
    """Base class of classification data modules; a subclass lists classes and files.

    Args:
        root: Folder of the data set.
        classes: The class folders in index order, each with its display name. None reads them from the data.
            Checkpoints store them, so prediction needs no data set.
        batch_size: Training images per process and step.
        eval_batch_size: Images per process and step in validation, test and prediction.
        train_transforms: Replaces the default random crop and flip: transforms (torchvision v2 or any module)
            applied in turn to the image (tv_tensors.Image, uint8). All images must end up the same size.
            uint8 images are normalised afterwards on the device; float images are assumed to be normalised.
        crop_size: Side of the network's square input in pixels, in training and evaluation; None means 224.
        scale: Smallest and largest share of the image's area in the random crop; None means 0.08 and 1.
        flip: Probability of a left-right flip, 0..1; None means 0.5.
        augment: Further transforms, applied in turn after crop and flip, e.g.
            torchvision.transforms.v2.RandAugment.
        eval_resize: Shorter side in pixels to which images are resized before the centre crop in validation,
            test and prediction. ``auto`` means 256/224 of ``crop_size``; ``none`` does not resize.
        eval_transforms: Replaces this resizing and cropping: transforms applied in turn to the image
            (tv_tensors.Image, uint8).
        **options: The other options of `DataModule`.

    Attributes:
        crop_size: Side of the network's square input, in pixels.
    """

    task = "classification"

    default_crop_size: int = 224
    default_scale: tuple[float, float] = (0.08, 1.0)
    # eval_resize "auto" relative to the crop: 256 for a crop of 224.
    eval_enlargement: float = 256 / 224

    def __init__(
        self,
        root: str,
        classes: dict[str, str] | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        train_transforms: list[nn.Module] | None = None,
        crop_size: int | None = None,
        scale: tuple[float, float] | None = None,
        flip: float | None = None,
        augment: list[nn.Module] | None = None,
        eval_resize: int | Literal["auto", "none"] = "auto",
        eval_transforms: list[nn.Module] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, **options)
        if classes is not None:
            if not classes:
                raise AttnlabError("data.classes is empty; name at least one class, or leave it out.")
            # Case counts: folder names, which checkpoints store, may differ in case only.
            check_names(list(classes.values()), "data.classes", case=True)
        self.classes = None if classes is None else dict(classes)
        self.crop_size = self.default_crop_size if crop_size is None else crop_size
        if train_transforms is None:
            flip = 0.5 if flip is None else flip
            crop = RandomResizedCropFlip(self.crop_size, scale or self.default_scale, flip=flip)
            self.train_transforms: list[nn.Module] = [crop, *(augment or [])]
        else:
            given = {"scale": scale, "flip": flip, "augment": augment}
            refuse_replaced(given, "attnlab.data.transforms.RandomResizedCropFlip")
            self.train_transforms = list(train_transforms)
        self.eval_transforms = self._evaluation(eval_transforms, eval_resize)
        # Without resizing, an image can be too small for the crop.
        self.least_size = self.crop_size if eval_transforms is None and eval_resize == "none" else None

    def _evaluation(self, replacement: list[nn.Module] | None, resize: int | str) -> list[nn.Module]:
        """Resizing and centre crop, or what replaces them."""
        if replacement is not None:
            if resize != "auto":
                raise AttnlabError(
                    "data.eval_resize and data.eval_transforms are both set, but the latter replaces the "
                    "former. Add torchvision.transforms.v2.Resize to the transforms instead."
                )
            return list(replacement)
        if resize == "auto":
            resize = round(self.crop_size * self.eval_enlargement)
        elif isinstance(resize, str) and resize != "none":
            raise AttnlabError(f"data.eval_resize is '{resize}'; it must be a number, auto or none.")
        return [ResizeCentreCrop(None if isinstance(resize, str) else resize, self.crop_size)]

    @abstractmethod
    def data_classes(self) -> dict[str, str]:
        """The classes in the data, in index order: folder and unique display name.

        Raises:
            AttnlabError: The data set does not exist.
        """

    @cached_property
    def _known_classes(self) -> dict[str, str]:
        """The option, or the data's classes; read at first use, since the data may have to be made first."""
        return self.data_classes() if self.classes is None else self.classes

    @property
    def class_names(self) -> list[str]:
        """Display names of the classes 0, 1, ….

        Raises:
            AttnlabError: They must be read from the data, which does not exist.
        """
        return list(self._known_classes.values())

    @property
    def class_folders(self) -> list[str]:
        """Folders of the classes 0, 1, …."""
        return list(self._known_classes)

    def remembered(self) -> dict[str, Any]:
        """The classes, so that a checkpoint suffices for prediction."""
        return {"classes": dict(self._known_classes)}

    def setup(self, stage: str | None = None) -> None:
        """Compare the data's classes with ``classes``, then continue as `DataModule.setup`."""
        known = self.classes if stage != "predict" else None
        if known is not None and (how := differences(known, self.data_classes())):
            raise AttnlabError(
                f"The classes in '{self.root}' differ from data.classes (or the checkpoint): {how} Set "
                "data.root to matching data, or data.classes to null to read the classes from the data."
            )
        super().setup(stage)

    def _look_at_classes(self, items: Sequence[ImageAndLabel]) -> None:
        """Reject data that cannot be trained on; warn of classes left without images by the check."""
        if self.num_classes == 1:
            raise AttnlabError(
                f"There is nothing to learn: '{self.class_names[0]}' is the only class in '{self.root}'. "
                "Put the images of each class into a folder of its own; for a single class, add a folder of "
                "images without it."
            )
        twice = alike(self.class_names)
        if twice:
            raise AttnlabError(
                f"Class folders in '{self.root}' differ only in case or spaces: {shown_alike(twice)}. Merge "
                "the folders of one class, or rename them."
            )
        shown = {item.label for item in items}
        absent = [name for label, name in enumerate(self.class_names) if label not in shown]
        if absent:
            rank_zero_warn(absent_classes(absent, self.num_classes, "training image"))

    def make_dataset(self, split: str, items: Sequence[Any]) -> Dataset[Any]:
        """The data set for training (at least two distinguishable classes), evaluation or prediction."""
        if split == "predict":
            return PredictSet(items, self.eval_transforms, max_pixels=self.max_pixels)
        if split == "train":
            self._look_at_classes(items)
            return TrainSet(items, self.train_transforms, run_seed(), self.max_pixels)
        return EvalSet(items, self.eval_transforms, self.max_pixels)

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        """Stack samples of one size."""
        return partial(collate, option="train_transforms" if split == "train" else "eval_transforms")
