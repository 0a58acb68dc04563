"""What all data modules share: fetching, listing and checking data, and serving it in batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from attnlab.data.checks import CHECKS, find_bad_files, summary
from attnlab.data.folders import find_images
from attnlab.data.headers import MAX_PIXELS
from attnlab.data.sampling import EvalSampler, TrainSampler, run_seed
from attnlab.errors import AttnlabError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Triple = tuple[float, float, float]
Check = Literal["quick", "full", "none"]

STAGE_SPLITS = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
    None: ("train", "val", "test"),
}
"""The splits that ``setup`` prepares for each stage."""


class DataModule(LightningDataModule):
    """Base class of all data modules.

    A task's base class checks the items (`problems`) and makes data sets (`make_dataset`) and batches
    (`collate`) of them; a data set's module gets the files (`fetch`) and lists them (`items`). Data sets take
    a `SampleKey` (or an index) and return a dict with ``image``, ``index`` and ``counted``; batches are dicts
    too. Images are transferred as uint8 and normalised on the device, a quarter of the bytes of floats.

    Args:
        root: Folder of the data set.
        batch_size: Training images per process and step.
        eval_batch_size: Images per process and step in validation, test and prediction.
        num_workers: Loader workers per process; 0 loads in the training process. The samples do not depend on
            the number.
        check: How to check all files before the first step. ``quick`` reads each file's start and end, which
            finds files that are missing, empty, truncated or not images. ``full`` decodes every file once;
            those found intact are skipped later unless their size or date changes. ``none`` checks nothing.
        on_bad_image: What to do about images that fail the check: ``error`` stops and lists them, ``skip``
            leaves them out with a warning.
        predict_images: Images to predict on: files, folders (searched recursively) or patterns such as
            ``"shots/*.jpg"``; any image format, mode and size.
        max_pixels: The most pixels that an image or a mask may have. One that states more is not decoded: it
            would take up to 20 bytes of memory per pixel.
        mean: Channel means to subtract (RGB, for images in 0..1). Default: ImageNet's.
        std: Channel standard deviations to divide by (RGB, for images in 0..1).

    Attributes:
        datasets: Data sets by split (``"train"``, ``"val"``, ``"test"``, ``"predict"``), filled by ``setup``.
        skipped: Names of the images skipped so far.
        task: Short name of the task that the batches are for; None for any.
        least_size: Smallest height and width, in pixels, that an image needs for evaluation; None for any.
    """

    task: str | None = None
    least_size: int | None = None

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int = 2,
        check: Check = "quick",
        on_bad_image: Literal["error", "skip"] = "error",
        predict_images: str | list[str] | None = None,
        max_pixels: int = MAX_PIXELS,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
    ) -> None:
        super().__init__()
        numbers = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "num_workers": num_workers}
        numbers["max_pixels"] = max_pixels
        for name, value in numbers.items():
            least = 0 if name == "num_workers" else 1
            if value < least:
                raise AttnlabError(f"data.{name} is {value}; it must be at least {least}.")
        if min(std) <= 0:
            raise AttnlabError(f"data.std is {tuple(std)}; each value must be above 0.")
        if check not in CHECKS:
            raise AttnlabError(f"data.check is '{check}'; it must be one of {', '.join(CHECKS)}.")
        if on_bad_image == "skip" and check == "none":
            raise AttnlabError(
                "data.on_bad_image is 'skip', but data.check is none: bad images would not be found."
            )
        self.root = root
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.check: Check = check
        self.on_bad_image = on_bad_image
        self.predict_images = predict_images
        self.max_pixels = max_pixels
        self.mean = (mean[0], mean[1], mean[2])
        self.std = (std[0], std[1], std[2])
        self.datasets: dict[str, Dataset[Any]] = {}
        self.skipped: list[str] = []
        self._complained: set[str] = set()

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Display names of the classes 0, 1, …."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def remembered(self) -> dict[str, Any]:
        """Options whose values were read from the data, for checkpoints.

        A data module built with them needs no data set to know, for example, its class names.
        """
        return {}

    @property
    def world(self) -> tuple[int, int]:
        """Number of processes and this one's rank; ``(1, 0)`` outside a trainer."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def prepare_data(self) -> None:
        """Get the data set, unless only ``predict_images`` are used.

        Called by Lightning in one process per node.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.PREDICTING:
            self.fetch()

    def fetch(self) -> None:
        """Get the data set: download or make it. Does nothing by default.

        Raises:
            AttnlabError: It failed; the message says what to do instead.
        """

    @abstractmethod
    def items(self, split: str) -> Any:
        """The items of ``"train"``, ``"val"`` or ``"test"``, whether usable or not.

        A sequence of the kind that the task's data sets take.

        Raises:
            AttnlabError: The data set or the split does not exist.
        """

    def paths(self, items: Any) -> Sequence[Path | str]:
        """The image file of each item."""
        return [item.path for item in items]

    def problems(self, split: str, items: Any) -> dict[int, str]:
        """Problems of items, by position; by default, of the files in `paths`."""
        return self.bad_files(self.paths(items), None if split == "train" else self.least_size)

    @abstractmethod
    def make_dataset(self, split: str, items: Any) -> Dataset[Any]:
        """The data set of usable items; of paths for ``"predict"``.

        Raises:
            AttnlabError: They cannot be trained on.
        """

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        """The function that turns a list of a split's samples into a batch."""
        raise NotImplementedError

    def item_names(self, items: Any) -> Sequence[str]:
        """The items' names in messages."""
        return [str(getattr(item, "name", item)) for item in items]

    def without(self, items: Any, bad: set[int]) -> Any:
        """The items without those at some positions."""
        return [item for position, item in enumerate(items) if position not in bad]

    def setup(self, stage: str | None = None) -> None:
        """List and check the files of a stage's splits. Splits that are set up already are kept.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"``, ``"predict"``; None for all but the last.

        Raises:
            AttnlabError: The data set is missing or incomplete, a split is empty, images are bad and
                ``on_bad_image`` is ``"error"``, or the data cannot be trained on.
        """
        there = {}
        for split in STAGE_SPLITS[stage]:
            if split not in self.datasets:
                there[split] = self._to_predict() if split == "predict" else self.items(split)
                if len(there[split]) == 0:
                    raise AttnlabError(f"The '{split}' split of '{self.root}' has no images.")
        if {"train", "val"} <= there.keys():
            self._warn_of_overlap(there["train"], there["val"])
        # Checking all files may take long: missing splits are reported first.
        for split, items in there.items():
            self.datasets[split] = self.make_dataset(split, self._usable(split, items))

    def _warn_of_overlap(self, trained_on: Any, items: Any) -> None:
        shared = set(map(str, self.paths(items))).intersection(map(str, self.paths(trained_on)))
        if shared:
            rank_zero_warn(
                f"{len(shared)} of the {len(items)} 'val' images are also in the training split, e.g. "
                f"'{min(shared)}': validation scores will be too optimistic."
            )

    def _to_predict(self) -> list[Path]:
        if self.predict_images is None:
            raise AttnlabError(
                "Nothing to predict on: give files, folders or patterns with --data.predict_images."
            )
        return find_images(self.predict_images)

    def _usable(self, split: str, items: Any) -> Any:
        """The items without problems; an error if the others may not be left out."""
        wrong = self.problems(split, items) if split != "predict" else self.bad_files(items, self.least_size)
        found = dict(sorted(wrong.items()))
        if not found:
            return items
        text = summary(list(found.values()), len(items), f"of the '{split}' images")
        if self.on_bad_image == "error":
            raise AttnlabError(f"{text}\nRepair or remove them, or skip them with --data.on_bad_image skip.")
        if len(found) == len(items):
            raise AttnlabError(f"{text}\nNo images are left.")
        names = self.item_names(items)
        self.skipped += [names[k] for k in found if names[k] not in self.skipped]
        # The test split is often the validation split.
        if not self._complained.issuperset(found.values()):
            self._complained.update(found.values())
            rank_zero_warn(f"{text}\nThey are skipped.")
        return self.without(items, set(found))

    def bad_files(self, paths: Sequence[Path | str], least_size: int | None = None) -> dict[int, str]:
        """Problems of image files, by position, found as ``check`` says; see `find_bad_files`."""
        if self.check == "none":
            return {}
        files = [Path(path) for path in paths]
        return find_bad_files(files, self.check, least_size, self.root, self.max_pixels)

    def dataset(self, split: str) -> Dataset[Any]:
        """The data set of a split.

        Raises:
            AttnlabError: ``setup`` was not called for the split.
        """
        if split not in self.datasets:
            raise AttnlabError(f"No '{split}' data yet: call setup() for its stage first.")
        return self.datasets[split]

    def make_sampler(self, split: str) -> Sampler[Any]:
        """The sampler of a split, for this process: `TrainSampler` for ``"train"``, else `EvalSampler`."""
        dataset = self.dataset(split)
        assert isinstance(dataset, Sized)
        replicas, rank = self.world
        return (TrainSampler if split == "train" else EvalSampler)(dataset, replicas, rank, run_seed())

    def make_loader(self, split: str) -> DataLoader[Any]:
        """The loader of a split, sharded over the trainer's processes.

        ``"train"`` is shuffled and augmented, and drops the last incomplete batch unless it is the only one;
        other splits keep the data set's order.
        """
        train = split == "train"
        sampler = self.make_sampler(split)
        batch_size = self.batch_size if train else self.eval_batch_size
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            self.dataset(split),
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self.collate(split),
            drop_last=train and len(sampler) >= batch_size,  # type: ignore[arg-type]
            pin_memory=on_cuda,
            persistent_workers=self.num_workers > 0 and split in ("train", "val"),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled, augmented batches of this process's share; see `collate`."""
        return self.make_loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches in the data set's order."""
        return self.make_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches in the data set's order."""
        return self.make_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of images with their paths."""
        return self.make_loader("predict")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device, except the original images, which are only drawn on."""
        originals = batch.pop("original", None) if isinstance(batch, dict) else None
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if originals is not None:
            batch["original"] = originals
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise the images, on the device."""
        batch["image"] = self.normalise(batch["image"])
        return batch

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise uint8 images; float images are assumed to be normalised.

        (…, 3, H, W), uint8 in 0..255 or float -> (…, 3, H, W), contiguous, of the trainer's precision.
        """
        if images.dtype == torch.uint8:
            mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
            std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
            images = images.to(torch.float32, memory_format=torch.contiguous_format)
            images = images.div_(255).sub_(mean).div_(std)
        # Lightning converts a batch to the run's precision while it is still uint8.
        return images if self.trainer is None else self.trainer.precision_plugin.convert_input(images)
