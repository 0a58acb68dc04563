"""The base of classification data modules: from lists of files and classes to batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.utils.data import DataLoader

from attnlab.data.base import IMAGENET_MEAN, IMAGENET_STD, STAGE_SPLITS, DataModule, Triple
from attnlab.data.checks import summary
from attnlab.data.classification_sets import EvalSet, LabelledPicture, PredictSet, TrainSet, collate
from attnlab.data.file_checks import find_bad_files
from attnlab.data.images import find_images
from attnlab.data.names import absent_classes, alike, check_names, listed, shown_alike
from attnlab.data.sampling import run_seed
from attnlab.data.transforms import RandomResizedCropFlip, ResizeCentreCrop
from attnlab.errors import AttnlabError

CHECKS = ("quick", "full", "none")


class ClassificationDataModule(DataModule):
    """Base of classification data modules; a subclass says which classes there are and which files.

    Args:
        root: Where the data set lies.
        classes: The class folders in the order of their indices, each with the name to show. None reads them
            from the data. A checkpoint remembers them, so that predicting needs no data set.
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in validation, test and prediction.
        num_workers: Loader processes for each process. The samples are the same for any number.
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
        mean: Channel means (RGB, of images in 0..1) that are subtracted. ImageNet's by default.
        std: Channel standard deviations (RGB, of images in 0..1) that are divided by.
        check: How to look at every file before the first step: ``quick`` at its start and end, which finds
            files that are missing, empty, cut short or no pictures; ``full`` decodes all of them; ``none``.
        on_bad_image: What to do about files that the check finds fault with: stop with an error that names
            them, or ``skip`` them with one warning.
        predict_images: What prediction is to read: files, folders (with the folders in them) or patterns such
            as ``"shots/*.jpg"``, of any picture format, mode and size.

    Attributes:
        crop_size: Side of the square images that the network sees, in pixels.
        skipped: Names of the images that the check left out, so far.
    """

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
        num_workers: int = 2,
        train_transforms: list[nn.Module] | None = None,
        crop_size: int | None = None,
        scale: tuple[float, float] | None = None,
        flip: float | None = None,
        augment: list[nn.Module] | None = None,
        eval_resize: int | Literal["auto", "none"] = "auto",
        eval_transforms: list[nn.Module] | None = None,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        check: Literal["quick", "full", "none"] = "quick",
        on_bad_image: Literal["error", "skip"] = "error",
        predict_images: str | list[str] | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, mean, std)
        if check not in CHECKS:
            raise AttnlabError(f"data.check is '{check}'; it must be one of {', '.join(CHECKS)}.")
        if on_bad_image == "skip" and check == "none":
            raise AttnlabError(
                "data.on_bad_image is 'skip', but data.check is none: nothing would find bad images."
            )
        if classes is not None and not classes:
            raise AttnlabError("data.classes is empty; name at least one class, or leave it out.")
        if classes is not None:
            # Case counts: what the folders are called, which a checkpoint remembers, may differ in it alone.
            check_names(list(classes.values()), "data.classes", case=True)
        self.root = root
        self.classes = None if classes is None else dict(classes)
        self.crop_size = self.default_crop_size if crop_size is None else crop_size
        self.check = check
        self.on_bad_image = on_bad_image
        self.predict_images = predict_images
        self.train_transforms = self._training(train_transforms, scale, flip, augment)
        self.eval_transforms = self._evaluation(eval_transforms, eval_resize)
        # Without resizing, a picture can be too small for the crop.
        self._least_size = self.crop_size if eval_transforms is None and eval_resize == "none" else None
        self.skipped: list[str] = []
        self._looked_at: dict[tuple[Path, int | None], str | None] = {}

    def _training(
        self,
        replacement: list[nn.Module] | None,
        scale: tuple[float, float] | None,
        flip: float | None,
        augment: list[nn.Module] | None,
    ) -> list[nn.Module]:
        """The recipe, or what replaces it; its options have no meaning then, so none may be set."""
        if replacement is None:
            crop = RandomResizedCropFlip(
                self.crop_size,
                scale=self.default_scale if scale is None else (scale[0], scale[1]),
                flip=0.5 if flip is None else flip,
            )
            return [crop, *(augment or [])]
        for name, value in {"scale": scale, "flip": flip, "augment": augment}.items():
            if value is not None:
                raise AttnlabError(
                    f"data.{name} belongs to the recipe that data.train_transforms replaces: leave it out, "
                    "or put attnlab.data.transforms.RandomResizedCropFlip among the transforms."
                )
        return list(replacement)

    def _evaluation(self, replacement: list[nn.Module] | None, resize: int | str) -> list[nn.Module]:
        """Resizing and central crop, or what replaces them."""
        if replacement is not None:
            if resize != "auto":
                raise AttnlabError(
                    "data.eval_resize and data.eval_transforms are both set, but the latter replaces the "
                    "former: put torchvision.transforms.v2.Resize among the transforms instead."
                )
            return list(replacement)
        if resize == "none":
            return [ResizeCentreCrop(None, self.crop_size)]
        if resize == "auto":
            return [ResizeCentreCrop(round(self.crop_size * self.eval_enlargement), self.crop_size)]
        if isinstance(resize, str):
            raise AttnlabError(f"data.eval_resize is '{resize}'; it must be a number, auto or none.")
        return [ResizeCentreCrop(resize, self.crop_size)]

    @abstractmethod
    def data_classes(self) -> dict[str, str]:
        """The classes as the data has them: folder and name to show, in the order of their indices.

        The names to show are unique.

        Raises:
            AttnlabError: The data set is not there.
        """

    @abstractmethod
    def items(self, split: str) -> list[LabelledPicture]:
        """The files of ``"train"``, ``"val"`` or ``"test"``, as listed, whether they are usable or not.

        Labels are indices into ``synsets``.

        Raises:
            AttnlabError: The data set or the split is not there.
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
        """Folders of the classes 0, 1, ….

        Raises:
            AttnlabError: They are to be read from the data, and it is not there.
        """
        return list(self._known_classes)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self._known_classes)

    def remembered(self) -> dict[str, Any]:
        """The classes, so that a checkpoint is enough to name what is predicted."""
        return {"classes": dict(self._known_classes)}

    def setup(self, stage: str | None = None) -> None:
        """List and check the files of the splits that a stage needs. Those set up before are kept.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"``, ``"predict"``; None for all but the last.

        Raises:
            AttnlabError: The data set is missing or incomplete, its classes are not those of ``classes``, or
                files are bad and ``on_bad_image`` is ``"error"``.
        """
        seed = run_seed()
        if stage != "predict":
            self._compare_classes()
        for split in STAGE_SPLITS[stage]:
            if split in self.datasets:
                continue
            if split == "predict":
                self.datasets[split] = PredictSet(self._to_predict(), self.eval_transforms)
                continue
            items = self.items(split)
            bad = self._bad([item.path for item in items], [item.name for item in items], split)
            usable = [item for position, item in enumerate(items) if position not in bad] if bad else items
            if split == "train":
                self._look_at_classes(usable)
                self.datasets[split] = TrainSet(usable, self.train_transforms, seed)
            else:
                self.datasets[split] = EvalSet(usable, self.eval_transforms)

    def _compare_classes(self) -> None:
        """Refuse data of other classes than the option, or the checkpoint that gave it, says."""
        if self.classes is None:
            return
        there = self.data_classes()
        missing = [folder for folder in self.classes if folder not in there]
        surplus = [folder for folder in there if folder not in self.classes]
        if missing or surplus:
            raise AttnlabError(
                f"The data in '{self.root}' has other classes than data.classes (or the checkpoint) says: "
                f"{differences(missing, surplus)} Set data.root to the data of these, or data.classes "
                "to null to read them from it."
            )

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

    def _to_predict(self) -> list[Path]:
        if self.predict_images is None:
            raise AttnlabError(
                "Nothing to predict on: name files, folders or patterns with --data.predict_images."
            )
        paths = find_images(self.predict_images)
        bad = self._bad(paths, [str(path) for path in paths], "predict")
        return [path for position, path in enumerate(paths) if position not in bad]

    def _bad(self, paths: Sequence[Path], names: Sequence[str], split: str) -> set[int]:
        """Positions of the files that do not pass the check, once that they may be left out is clear."""
        if self.check == "none":
            return set()
        least = None if split == "train" else self._least_size
        # The files of the test split are often those of validation. Training's are too many to keep.
        keep = split != "train"
        todo = [k for k, path in enumerate(paths) if not keep or (path, least) not in self._looked_at]
        found = find_bad_files([paths[k] for k in todo], self.check, least)
        new = {todo[position]: text for position, text in found.items()}
        if keep:
            self._looked_at.update({(paths[k], least): new.get(k) for k in todo})
            known = ((k, self._looked_at[path, least]) for k, path in enumerate(paths))
            problems = {k: text for k, text in known if text}
        else:
            problems = new
        if not problems:
            return set()
        text = summary(list(problems.values()), len(paths), f"of the '{split}' images")
        if self.on_bad_image == "error":
            raise AttnlabError(
                f"{text}\nMend or remove them, or leave them out with --data.on_bad_image skip."
            )
        if len(problems) == len(paths):
            raise AttnlabError(f"{text}\nNo image is left.")
        left_out = [names[k] for k in problems]
        self.skipped += [name for name in left_out if name not in self.skipped]
        if new:
            rank_zero_warn(f"{text}\nThey are left out.")
        return set(problems)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of ``image``, ``label``, ``index``, ``counted``; see `collate`."""
        return self.make_loader("train", partial(collate, option="train_transforms"))

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches that also carry names; see `collate`."""
        return self.make_loader("val", partial(collate, option="eval_transforms"))

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches that also carry names; see `collate`."""
        return self.make_loader("test", partial(collate, option="eval_transforms"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches without labels, with the files' paths; see `collate`."""
        return self.make_loader("predict", partial(collate, option="eval_transforms"))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise the images, on the device."""
        batch["image"] = self.normalise(batch["image"])
        return batch


def differences(missing: Sequence[str], surplus: Sequence[str]) -> str:
    """A sentence for each kind of difference between two sets of class folders, with the first names."""
    parts = (("Missing", missing), ("Not expected", surplus))
    return " ".join(f"{what}: {listed(names)}." for what, names in parts if names)
