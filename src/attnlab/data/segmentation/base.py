"""Base of segmentation data modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from attnlab.data.base import Check, DataModule
from attnlab.data.images import read_mask
from attnlab.data.names import check_names
from attnlab.data.sampling import run_seed
from attnlab.data.segmentation.mask_values import Look, MaskCensus, look_at_pairs, sampled_values
from attnlab.data.segmentation.sets import (
    EvalSet,
    ImageAndMask,
    IndexMaskReader,
    MaskReader,
    TrainSet,
    collate_padded,
    collate_train,
)
from attnlab.data.sets import PredictSet
from attnlab.data.transforms import RandomScaleCrop, refuse_flip, refuse_replaced
from attnlab.data.vocfolder import colour_map
from attnlab.errors import AttnlabError


class SegmentationDataModule(DataModule):
    """Base class of segmentation data modules; a subclass lists the files of a split.

    Training images are augmented together with their masks. In evaluation only the image is resized and its
    mask stays as stored, so predictions are scored at full resolution.

    Args:
        root: Folder of the data set.
        class_names: Names of the classes 0, 1, …, including the background.
        batch_size: Training images per process and step.
        eval_batch_size: Images per process and step in validation, test and prediction. Above 1, images of
            different sizes are padded to the largest, so a network with wide context (global pooling, strip
            attention) gives results that depend on the batch: keep 1 for such data.
        train_transforms: Replaces the default random scale, crop and flip: transforms (torchvision v2 or any
            module) applied in turn to a dict of ``image`` (tv_tensors.Image, uint8) and ``mask``
            (tv_tensors.Mask). All images must end up the same size. uint8 images are normalised afterwards on
            the device; float images are assumed to be normalised.
        crop_size: Side of the square training crop in pixels; None means 513.
        scale: Smallest and largest factor of the random resizing; None means 0.5 and 2.
        flip: Probability of a left-right flip, 0..1; None means 0.5.
        eval_size: Shorter side in pixels to which images are resized for the network in validation, test and
            prediction. None keeps each image's size.
        eval_transforms: Replaces this resizing: transforms applied in turn to the image (tv_tensors.Image,
            uint8). They must keep the whole image in view, or predictions will not match the mask.
        check: How to check all files before the first step. ``full`` (or ``true``) decodes every file not yet
            found intact, compares masks with their images, and counts the values of all masks. ``quick``
            reads each file's start and end. ``none`` (or ``false``) checks nothing. Without ``full``, a few
            training masks are still checked for binary 0 and 255.
        **options: The other options of `DataModule`.

    Attributes:
        ignore_index: The mask value, 255, of pixels ignored in losses and metrics.
        palette: Pascal VOC's colours, RGB in 0..255, one per class.
        crop_size: Side of the square training crop in pixels; None with ``train_transforms``.
    """

    task = "segmentation"

    ignore_index: int = 255
    read_mask: MaskReader = staticmethod(read_mask)
    default_crop_size: int = 513
    default_scale: tuple[float, float] = (0.5, 2.0)

    def __init__(
        self,
        root: str,
        class_names: list[str],
        batch_size: int = 16,
        eval_batch_size: int = 1,
        train_transforms: list[nn.Module] | None = None,
        crop_size: int | None = None,
        scale: tuple[float, float] | None = None,
        flip: float | None = None,
        eval_size: int | None = None,
        eval_transforms: list[nn.Module] | None = None,
        check: Literal["quick", "full", "none"] | bool = "full",
        **options: Any,
    ) -> None:
        depth: Check = ("full" if check else "none") if isinstance(check, bool) else check
        super().__init__(root, batch_size, eval_batch_size, check=depth, **options)
        check_names(class_names, "data.class_names")
        if type(self).read_mask is read_mask:
            self.read_mask = IndexMaskReader(self.max_pixels)
        if eval_transforms is not None and eval_size is not None:
            raise AttnlabError(
                "data.eval_size and data.eval_transforms are both set, but the latter replaces the former. "
                "Add torchvision.transforms.v2.Resize to the transforms instead."
            )
        if eval_size is not None and eval_size < 1:
            raise AttnlabError(f"data.eval_size is {eval_size}; it must be at least 1 pixel.")
        self._class_names = list(class_names)
        self.palette = colour_map(self.num_classes)
        self.crop_size: int | None = None
        if train_transforms is None:
            self.crop_size = self.default_crop_size if crop_size is None else crop_size
            self.train_transforms = self._recipe(self.crop_size, scale, 0.5 if flip is None else flip)
        else:
            given = {"crop_size": crop_size, "scale": scale, "flip": flip}
            refuse_replaced(given, "attnlab.data.transforms.RandomScaleCrop")
            self.train_transforms = list(train_transforms)
        resize: list[nn.Module] = [] if eval_size is None else [v2.Resize(eval_size, antialias=True)]
        self.eval_transforms = resize if eval_transforms is None else list(eval_transforms)
        self._looks: dict[ImageAndMask, Look] = {}

    @property
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, …, including the background."""
        return self._class_names

    def _recipe(self, crop_size: int, scale: tuple[float, float] | None, flip: float) -> list[nn.Module]:
        """The augmentation of the ELA authors' segmentation runs: scale, crop, flip."""
        refuse_flip(flip)
        red, green, blue = (round(channel * 255) for channel in self.mean)
        crop = RandomScaleCrop(crop_size, scale or self.default_scale, (red, green, blue), self.ignore_index)
        return [crop, v2.RandomHorizontalFlip(flip)]

    def paths(self, items: list[ImageAndMask]) -> Sequence[Path | str]:
        """The image file of each item."""
        return [item.image for item in items]

    def problems(self, split: str, items: list[ImageAndMask]) -> dict[int, str]:
        """Problems of images and masks, by position.

        Raises:
            AttnlabError: All masks hold only 0 and 255.
        """
        if self.check != "full":
            found = self.bad_files([item.mask for item in items])
            return dict(sorted((found | self.bad_files(self.paths(items))).items()))
        new = [item for item in items if item not in self._looks]
        looks = look_at_pairs(
            new, self.num_classes, self.ignore_index, self.read_mask, self.root, self.max_pixels
        )
        self._looks.update(zip(new, looks, strict=True))
        looks = [self._looks[item] for item in items]
        # Before problems of files: some binary masks may be 255 everywhere.
        MaskCensus([look.values for look in looks], self.ignore_index).refuse_binary(split)
        return {position: look.problem for position, look in enumerate(looks) if look.problem}

    def make_dataset(self, split: str, items: list[Any]) -> Dataset[Any]:
        """The data set for training (at least two classes), evaluation or prediction."""
        if split == "predict":
            return PredictSet(items, self.eval_transforms, True, self.max_pixels)
        if split == "train":
            self._look_at_values(items)
            return TrainSet(items, self.train_transforms, self.read_mask, run_seed(), self.max_pixels)
        return EvalSet(items, self.eval_transforms, self.read_mask, self.max_pixels)

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        """Stack training samples; pad evaluation samples."""
        return collate_train if split == "train" else partial(collate_padded, ignore_index=self.ignore_index)

    def _look_at_values(self, items: list[ImageAndMask]) -> None:
        """Check the training masks as a whole."""
        if self.check == "full":
            census = MaskCensus([self._looks[item].values for item in items], self.ignore_index)
            census.refuse_single_class(self.class_names)
            texts = census.warnings(self.class_names)
        else:
            sample = sampled_values([item.mask for item in items], self.read_mask)
            binary = MaskCensus(sample, self.ignore_index).binary()
            texts = [f"Checked {len(sample)} of the training masks: {binary}"] if binary else []
        for text in texts:
            rank_zero_warn(text)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise the images and widen the masks to int64, on the device.

        The padding of evaluation images becomes 0, like a convolution's padding.
        """
        batch["image"] = self.normalise(batch["image"])
        if "mask" in batch:
            batch["mask"] = batch["mask"].long()
        if "size" in batch and len(batch["image"]) > 1:
            for image, (height, width) in zip(batch["image"], batch["size"].tolist(), strict=True):
                image[:, height:] = 0
                image[:, :, width:] = 0
        return batch
