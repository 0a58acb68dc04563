"""The base of segmentation data modules: from lists of files to batches."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, device, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from attnlab.data.base import IMAGENET_MEAN, IMAGENET_STD, STAGE_SPLITS, DataModule, Triple
from attnlab.data.checks import Look, look_at_files, summary
from attnlab.data.images import find_images
from attnlab.data.mask_values import (
    binary_masks,
    refuse_binary,
    refuse_single_class,
    sampled_values,
    warnings_about,
)
from attnlab.data.names import check_names
from attnlab.data.sampling import run_seed
from attnlab.data.segmentation_sets import (
    EvalSet,
    LabelledImage,
    PredictSet,
    TrainSet,
    collate_eval,
    collate_predict,
    collate_train,
)
from attnlab.data.transforms import train_recipe
from attnlab.data.vocfolder import colour_map
from attnlab.errors import AttnlabError


class SegmentationDataModule(DataModule):
    """Base of segmentation data modules; a subclass says which files belong to a split.

    Training images are augmented together with their masks. In evaluation the image alone is resized, and its
    mask stays at the size it was made, so that predictions are scored at each image's own full size.

    Args:
        root: Where the data set lies.
        class_names: Names of the classes 0, 1, …, the background's included.
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in validation, test and prediction. Above 1, images of
            different sizes are padded to the largest, and what a network with wide context (pooling over the
            image, strip attention) sees of one image then depends on the others: keep 1 for such data.
        num_workers: Loader processes for each process. The samples are the same for any number.
        train_transforms: Replaces the recipe of random scale, crop and flip: transforms (torchvision's v2 or
            any module) applied in turn to a dict of ``image`` (tv_tensors.Image, uint8) and ``mask``
            (tv_tensors.Mask). They must end with one size for all images. A uint8 image is normalised
            afterwards on the device; one that they turn into floating point is taken as normalised.
        crop_size: Side of the recipe's square crop, in pixels; None means 513.
        scale: Smallest and largest factor of the recipe's random resizing; None means 0.5 and 2.
        flip: Probability of the recipe's left-right flip, 0..1; None means 0.5.
        eval_size: Length of the shorter side, in pixels, to which images are resized for the network in
            validation, test and prediction. None leaves each at its own size.
        eval_transforms: Replaces that resizing: transforms applied in turn to the image (tv_tensors.Image,
            uint8) alone. They must keep the whole picture in view, or predictions will not lie on the mask.
        mean: Channel means (RGB, of images in 0..1) that are subtracted. ImageNet's by default.
        std: Channel standard deviations (RGB, of images in 0..1) that are divided by.
        check: Look at every file before the first step: all are decoded in full, masks compared with images,
            and the values of all masks counted. Without it a few training masks are looked at, for 0 and 255.
        on_bad_image: What to do about files that the check finds fault with: stop with an error that names
            them, or ``skip`` them with one warning.
        predict_images: What prediction is to read: files, folders (with the folders in them) or patterns such
            as ``"shots/*.jpg"``, of any picture format, mode and size.

    Attributes:
        class_names: Names of the classes 0, 1, ….
        num_classes: Their number.
        ignore_index: The mask value, 255, of pixels that count neither in losses nor in metrics.
        palette: Pascal VOC's colours, RGB in 0..255, a class each.
        crop_size: Side of the recipe's square crop, in pixels; None where transforms replace the recipe.
        skipped: Names of the images that the check left out, so far.
    """

    ignore_index: int = 255
    default_crop_size: int = 513
    default_scale: tuple[float, float] = (0.5, 2.0)

    def __init__(
        self,
        root: str,
        class_names: list[str],
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int = 2,
        train_transforms: list[nn.Module] | None = None,
        crop_size: int | None = None,
        scale: tuple[float, float] | None = None,
        flip: float | None = None,
        eval_size: int | None = None,
        eval_transforms: list[nn.Module] | None = None,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        check: bool = True,
        on_bad_image: Literal["error", "skip"] = "error",
        predict_images: str | list[str] | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, mean, std)
        check_names(class_names, "data.class_names")
        if on_bad_image == "skip" and not check:
            raise AttnlabError(
                "data.on_bad_image is 'skip', but data.check is off: nothing would find bad images."
            )
        if eval_transforms is not None and eval_size is not None:
            raise AttnlabError(
                "data.eval_size and data.eval_transforms are both set, but the latter replaces the former: "
                "put torchvision.transforms.v2.Resize among the transforms instead."
            )
        if eval_size is not None and eval_size < 1:
            raise AttnlabError(f"data.eval_size is {eval_size}; it must be at least 1 pixel.")
        self.root = root
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.palette = colour_map(self.num_classes)
        self.check = check
        self.on_bad_image = on_bad_image
        self.predict_images = predict_images
        self.train_transforms = self._training(train_transforms, crop_size, scale, flip)
        self.crop_size = None if train_transforms is not None else (crop_size or self.default_crop_size)
        if eval_transforms is not None:
            self.eval_transforms = list(eval_transforms)
        else:
            self.eval_transforms = [] if eval_size is None else [v2.Resize(eval_size, antialias=True)]
        self.skipped: list[str] = []
        self._looks: dict[LabelledImage | Any, Look] = {}

    def _training(
        self,
        replacement: list[nn.Module] | None,
        crop_size: int | None,
        scale: tuple[float, float] | None,
        flip: float | None,
    ) -> list[nn.Module]:
        """The recipe, or what replaces it; its options have no meaning then, so none may be set."""
        if replacement is None:
            return train_recipe(
                crop_size=self.default_crop_size if crop_size is None else crop_size,
                scale=self.default_scale if scale is None else scale,
                flip=0.5 if flip is None else flip,
                mean=self.mean,
                ignore_index=self.ignore_index,
            )
        given = {"crop_size": crop_size, "scale": scale, "flip": flip}
        for name, value in given.items():
            if value is not None:
                raise AttnlabError(
                    f"data.{name} belongs to the recipe that data.train_transforms replaces: leave it out, "
                    "or put attnlab.data.transforms.RandomScaleCrop among the transforms."
                )
        return list(replacement)

    @abstractmethod
    def items(self, split: str) -> list[LabelledImage]:
        """The files of ``"train"``, ``"val"`` or ``"test"``, as listed, whether they are usable or not.

        Raises:
            AttnlabError: The data set or the split is not there.
        """

    def setup(self, stage: str | None = None) -> None:
        """List and check the files of the splits that a stage needs. Those set up before are kept.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"``, ``"predict"``; None for all but the last.

        Raises:
            AttnlabError: The data set is missing or incomplete, a split is empty, files are bad and
                ``on_bad_image`` is ``"error"``, or the masks hold one class alone.
        """
        seed = run_seed()
        for split in STAGE_SPLITS[stage]:
            if split in self.datasets:
                continue
            if split == "predict":
                self.datasets[split] = PredictSet(
                    self._usable(self._to_predict(), split), self.eval_transforms
                )
                continue
            items = self._usable(self.items(split), split)
            if split == "train":
                self._look_at_values(items)
                self.datasets[split] = TrainSet(items, self.train_transforms, seed)
            else:
                self.datasets[split] = EvalSet(items, self.eval_transforms)

    def _to_predict(self) -> list[Any]:
        if self.predict_images is None:
            raise AttnlabError(
                "Nothing to predict on: name files, folders or patterns with --data.predict_images."
            )
        return find_images(self.predict_images)

    def _usable(self, items: list[Any], split: str) -> list[Any]:
        """The items that pass the check."""
        if not self.check:
            return items
        new = [item for item in items if item not in self._looks]
        self._looks |= look_at_files(new, self.num_classes, self.ignore_index)
        bad = {item: problem for item in items if (problem := self._looks[item].problem)}
        if split != "predict":
            # Before its files are complained of: of binary masks, some may be 255 all over.
            refuse_binary([self._looks[item].values for item in items], self.ignore_index, split)
        if not bad:
            return items
        text = summary(list(bad.values()), len(items), f"of the '{split}' images")
        if self.on_bad_image == "error":
            raise AttnlabError(
                f"{text}\nMend them, take them off their list, or leave them out with "
                "--data.on_bad_image skip."
            )
        usable = [item for item in items if item not in bad]
        if not usable:
            raise AttnlabError(f"{text}\nNo image is left.")
        names = [getattr(item, "name", str(item)) for item in bad]
        self.skipped += [name for name in names if name not in self.skipped]
        if any(item in bad for item in new):
            rank_zero_warn(f"{text}\nThey are left out.")
        return usable

    def _look_at_values(self, items: list[LabelledImage]) -> None:
        """Say what is wrong with the training masks as a whole."""
        if self.check:
            values = [self._looks[item].values for item in items]
            refuse_single_class(values, self.class_names, self.ignore_index)
            texts = warnings_about(values, self.class_names, self.ignore_index)
        else:
            sample = sampled_values([item.mask for item in items])
            binary = binary_masks(sample, self.ignore_index)
            texts = [f"Of the training masks {len(sample)} were looked at: {binary}"] if binary else []
        for text in texts:
            rank_zero_warn(text)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of ``image``, ``mask``, ``index``, ``counted``; see `collate_train`."""
        return self.make_loader("train", collate_train)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches that also carry sizes and names; see `collate_eval`."""
        return self.make_loader("val", partial(collate_eval, ignore_index=self.ignore_index))

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches that also carry sizes and names; see `collate_eval`."""
        return self.make_loader("test", partial(collate_eval, ignore_index=self.ignore_index))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches without masks, with the pictures as read; see `collate_predict`."""
        return self.make_loader("predict", collate_predict)

    def transfer_batch_to_device(self, batch: Any, device: device, dataloader_idx: int) -> Any:
        """Move a batch, but for the originals of prediction, which only pictures are made of."""
        originals = batch.pop("original", None)
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if originals is not None:
            batch["original"] = originals
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise the images and widen the masks to int64, on the device.

        What pads an evaluation image is 0 afterwards, as a convolution's own padding is.
        """
        batch["image"] = self.normalise(batch["image"])
        if "mask" in batch:
            batch["mask"] = batch["mask"].long()
        if "size" in batch and len(batch["image"]) > 1:
            _blank_padding(batch["image"], batch["size"])
        return batch


def _blank_padding(images: Tensor, sizes: Tensor) -> None:
    """Set to 0, in place, what lies outside each image's height and width (B, 2)."""
    for image, (height, width) in zip(images, sizes.tolist(), strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
