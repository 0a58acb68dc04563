"""The base of classification data modules: from lists of files and classes to batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.utils.data import Dataset

from attnlab.data.base import DataModule
from attnlab.data.classification.sets import EvalSet, LabelledPicture, TrainSet, collate
from attnlab.data.names import absent_classes, alike, check_names, differences, shown_alike
from attnlab.data.sampling import run_seed
from attnlab.data.sets import PredictSet
from attnlab.data.transforms import RandomResizedCropFlip, ResizeCentreCrop, refuse_replaced
from attnlab.errors import AttnlabError


class ClassificationDataModule(DataModule):
    """Base of classification data modules; a subclass says which classes there are and which files.

    Args:
        root: Where the data set lies.
        classes: The class folders in the order of their indices, each with the name to show. None reads them
            from the data. A checkpoint remembers them, so that predicting needs no data set.
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in validation, test and prediction.
        train_transforms: Replaces the recipe of random crop and flip: transforms (torchvision's v2 or any
            module) applied in turn to the image (tv_tensors.Image, uint8). They must end with one size for
            all images. A uint8 image is normalised afterwards on the device; one that they turn into floating
            point is taken as normalised.
        crop_size: Side of the square images that the network sees, in training and evaluation, in pixels;
            None means 224.
        scale: Smallest and largest share of a picture's area in the recipe's random crop; None means 0.08
            and 1.
        flip: Probability of the recipe's left-right flip, 0..1; None means 0.5.
        augment: More transforms, applied in turn after the recipe's crop and flip, e.g.
            torchvision.transforms.v2.RandAugment.
        eval_resize: Length of the shorter side, in pixels, to which images are resized before the central
            crop in validation, test and prediction. ``auto`` means 256/224 of ``crop_size``; ``none`` leaves
            them as stored.
        eval_transforms: Replaces that resizing and cropping: transforms applied in turn to the image
            (tv_tensors.Image, uint8).
        **options: The other options of `DataModule`.

    Attributes:
        crop_size: Side of the square images that the network sees, in pixels.
    """

    task = "classification"

    default_crop_size: int = 224
    default_scale: tuple[float, float] = (0.08, 1.0)
    # What eval_resize "auto" makes of the crop's side: as if 256 were cut to 224.
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
            # Case counts: what the folders are called, which a checkpoint remembers, may differ in it alone.
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
        # Without resizing, a picture can be too small for the crop.
        self.least_size = self.crop_size if eval_transforms is None and eval_resize == "none" else None

    def _evaluation(self, replacement: list[nn.Module] | None, resize: int | str) -> list[nn.Module]:
        """Resizing and central crop, or what replaces them."""
        if replacement is not None:
            if resize != "auto":
                raise AttnlabError(
                    "data.eval_resize and data.eval_transforms are both set, but the latter replaces the "
                    "former: put torchvision.transforms.v2.Resize among the transforms instead."
                )
            return list(replacement)
        if resize == "auto":
            resize = round(self.crop_size * self.eval_enlargement)
        elif isinstance(resize, str) and resize != "none":
            raise AttnlabError(f"data.eval_resize is '{resize}'; it must be a number, auto or none.")
        return [ResizeCentreCrop(None if isinstance(resize, str) else resize, self.crop_size)]

    @abstractmethod
    def data_classes(self) -> dict[str, str]:
        """The classes as the data has them: folder and unique name to show, in the order of their indices.

        Raises:
            AttnlabError: The data set is not there.
        """

    @cached_property
    def _known_classes(self) -> dict[str, str]:
        """The option, or what the data says; read at first use, since the data may have to be made first."""
        return self.data_classes() if self.classes is None else self.classes

    @property
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, …, to be shown.

        Raises:
            AttnlabError: They are to be read from the data, and it is not there.
        """
        return list(self._known_classes.values())

    @property
    def synsets(self) -> list[str]:
        """Folders of the classes 0, 1, …."""
        return list(self._known_classes)

    def remembered(self) -> dict[str, Any]:
        """The classes, so that a checkpoint is enough to name what is predicted."""
        return {"classes": dict(self._known_classes)}

    def setup(self, stage: str | None = None) -> None:
        """Compare the data's classes with those of ``classes``, and go on; see `DataModule.setup`."""
        known = self.classes if stage != "predict" else None
        if known is not None and (how := differences(known, self.data_classes())):
            raise AttnlabError(
                f"The data in '{self.root}' has other classes than data.classes (or the checkpoint) says: "
                f"{how} Set data.root to the data of these, or data.classes to null to read them from it."
            )
        super().setup(stage)

    def _look_at_classes(self, items: Sequence[LabelledPicture]) -> None:
        """Refuse what cannot be learnt, and say which classes the check has left without a picture."""
        if self.num_classes == 1:
            raise AttnlabError(
                f"There is nothing to learn: '{self.class_names[0]}' is the only class in '{self.root}'. Put "
                "the pictures of each class into a folder of its own, and those of none into another."
            )
        twice = alike(self.class_names)
        if twice:
            raise AttnlabError(
                f"Class folders in '{self.root}' have one name but for capitals or spaces: "
                f"{shown_alike(twice)}. Put the pictures of one class into one folder, or "
                "give the folders different names."
            )
        shown = {item.label for item in items}
        absent = [name for label, name in enumerate(self.class_names) if label not in shown]
        if absent:
            rank_zero_warn(absent_classes(absent, self.num_classes, "training picture"))

    def make_dataset(self, split: str, items: Sequence[Any]) -> Dataset[Any]:
        """Training on items of at least two classes that a reader can tell apart, evaluation, prediction."""
        if split == "predict":
            return PredictSet(items, self.eval_transforms)
        if split == "train":
            self._look_at_classes(items)
            return TrainSet(items, self.train_transforms, run_seed())
        return EvalSet(items, self.eval_transforms)

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        """Stacks samples of one size."""
        return partial(collate, option="train_transforms" if split == "train" else "eval_transforms")
