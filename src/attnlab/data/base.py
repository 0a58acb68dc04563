"""The one life of all data: fetched, listed, checked, and served in batches to any number of processes."""

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
"""The splits that ``setup`` prepares for a stage."""


class DataModule(LightningDataModule):
    """Base of all data modules: the order in which data becomes batches, the same for every task.

    A task's module says what is wrong with items (`problems`), makes data sets of them (`make_dataset`) and
    batches (`collate`); a data set's module puts its files in place (`fetch`) and lists them (`items`). Data
    sets take a `SampleKey` (or an index) and return a dict with ``image``, ``index`` and ``counted``; batches
    are dicts too. Images travel as uint8 and become normalised floats on the device, which moves a quarter of
    the bytes between processes and to the accelerator.

    Args:
        root: Where the data set lies.
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in validation, test and prediction.
        num_workers: Loader processes for each process; 0 loads in the training process itself. The samples
            are the same for any number.
        check: How to look at every file before the first step: ``quick`` at its start and end, which finds
            files that are missing, empty, cut short or no pictures; ``full`` decodes all of them, and passes
            over those that it has once found whole and that have kept their size and date; ``none``.
        on_bad_image: What to do about images that the check finds fault with: stop with an error that names
            them, or ``skip`` them with one warning.
        predict_images: What prediction is to read: files, folders (with the folders in them) or patterns such
            as ``"shots/*.jpg"``, of any picture format, mode and size.
        mean: Channel means (RGB, of images in 0..1) that are subtracted. ImageNet's by default.
        std: Channel standard deviations (RGB, of images in 0..1) that are divided by.

    Attributes:
        datasets: Data sets by split (``"train"``, ``"val"``, ``"test"``, ``"predict"``), filled by ``setup``.
        skipped: Names of the images that the check left out, so far.
        task: The task that the batches are for, as ``--task`` calls it; None for any.
        least_size: The fewest pixels that a picture must have in height and width to be evaluated, if any.
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
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
    ) -> None:
        super().__init__()
        numbers = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "num_workers": num_workers}
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
                "data.on_bad_image is 'skip', but data.check is none: nothing would find bad images."
            )
        self.root = root
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.check: Check = check
        self.on_bad_image = on_bad_image
        self.predict_images = predict_images
        self.mean = (mean[0], mean[1], mean[2])
        self.std = (std[0], std[1], std[2])
        self.datasets: dict[str, Dataset[Any]] = {}
        self.skipped: list[str] = []
        self._complained: set[str] = set()

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, …, to be shown."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def remembered(self) -> dict[str, Any]:
        """Options that the data itself has answered, with the answers, for a checkpoint to keep.

        A data module built with them needs no data set to know, for instance, the names of its classes.
        """
        return {}

    @property
    def world(self) -> tuple[int, int]:
        """Number of processes and this one's rank; ``(1, 0)`` outside a trainer."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def prepare_data(self) -> None:
        """Put the data set in place, unless only pictures of one's own are predicted on.

        Lightning calls this on one process a node.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.PREDICTING:
            self.fetch()

    def fetch(self) -> None:
        """Put the data set in place: download it, or make it. By default nothing is done.

        Raises:
            AttnlabError: That failed; the message says what else can be done.
        """

    @abstractmethod
    def items(self, split: str) -> Any:
        """What ``"train"``, ``"val"`` or ``"test"`` consists of, as listed, whether it is usable or not.

        It is a sequence, of the kind that the task's data sets are made of.

        Raises:
            AttnlabError: The data set or the split is not there.
        """

    def paths(self, items: Any) -> Sequence[Path | str]:
        """The picture file of each item."""
        return [item.path for item in items]

    def problems(self, split: str, items: Any) -> dict[int, str]:
        """What is wrong with items, by position; by default, with their `paths`."""
        return self.bad_files(self.paths(items), None if split == "train" else self.least_size)

    @abstractmethod
    def make_dataset(self, split: str, items: Any) -> Dataset[Any]:
        """The data set of the items that can be used; of paths for ``"predict"``.

        Raises:
            AttnlabError: Nothing can be learnt from them.
        """

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        """What makes a batch of a list of a split's samples."""
        raise NotImplementedError

    def item_names(self, items: Any) -> Sequence[str]:
        """What reports call the items by."""
        return [str(getattr(item, "name", item)) for item in items]

    def without(self, items: Any, bad: set[int]) -> Any:
        """The items but for those at some positions."""
        return [item for position, item in enumerate(items) if position not in bad]

    def setup(self, stage: str | None = None) -> None:
        """List and check the files of the splits that a stage needs. Those set up before are kept.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"``, ``"predict"``; None for all but the last.

        Raises:
            AttnlabError: The data set is missing or incomplete, a split is empty, images are bad and
                ``on_bad_image`` is ``"error"``, or nothing can be learnt from the data.
        """
        there = {}
        for split in STAGE_SPLITS[stage]:
            if split not in self.datasets:
                there[split] = self._to_predict() if split == "predict" else self.items(split)
                if len(there[split]) == 0:
                    raise AttnlabError(f"There is no image in the '{split}' split of '{self.root}'.")
        if {"train", "val"} <= there.keys():
            self._warn_of_overlap(there["train"], there["val"])
        # Looking at all files may take long: a split that is not there is said before.
        for split, items in there.items():
            self.datasets[split] = self.make_dataset(split, self._usable(split, items))

    def _warn_of_overlap(self, trained_on: Any, items: Any) -> None:
        shared = set(map(str, self.paths(items))).intersection(map(str, self.paths(trained_on)))
        if shared:
            rank_zero_warn(
                f"{len(shared)} of the {len(items)} 'val' images are trained on too, e.g. "
                f"'{min(shared)}': their scores say nothing about new images."
            )

    def _to_predict(self) -> list[Path]:
        if self.predict_images is None:
            raise AttnlabError(
                "Nothing to predict on: name files, folders or patterns with --data.predict_images."
            )
        return find_images(self.predict_images)

    def _usable(self, split: str, items: Any) -> Any:
        """The items with which nothing is wrong, once it is clear that the others may be left out."""
        wrong = self.problems(split, items) if split != "predict" else self.bad_files(items, self.least_size)
        found = dict(sorted(wrong.items()))
        if not found:
            return items
        text = summary(list(found.values()), len(items), f"of the '{split}' images")
        if self.on_bad_image == "error":
            raise AttnlabError(
                f"{text}\nMend them, take them out of the data, or leave them out with "
                "--data.on_bad_image skip."
            )
        if len(found) == len(items):
            raise AttnlabError(f"{text}\nNo image is left.")
        names = self.item_names(items)
        self.skipped += [names[k] for k in found if names[k] not in self.skipped]
        # The images of the test split are often those of validation.
        if not self._complained.issuperset(found.values()):
            self._complained.update(found.values())
            rank_zero_warn(f"{text}\nThey are left out.")
        return self.without(items, set(found))

    def bad_files(self, paths: Sequence[Path | str], least_size: int | None = None) -> dict[int, str]:
        """What is wrong with picture files, by position, as far as ``check`` says; see `find_bad_files`."""
        if self.check == "none":
            return {}
        return find_bad_files([Path(path) for path in paths], self.check, least_size, self.root)

    def dataset(self, split: str) -> Dataset[Any]:
        """The data set of a split.

        Raises:
            AttnlabError: ``setup`` was not called for it.
        """
        if split not in self.datasets:
            raise AttnlabError(f"No '{split}' data yet: call setup() for that stage first.")
        return self.datasets[split]

    def make_sampler(self, split: str) -> Sampler[Any]:
        """The sampler of a split, for this process: `TrainSampler` for ``"train"``, else `EvalSampler`."""
        dataset = self.dataset(split)
        assert isinstance(dataset, Sized)
        replicas, rank = self.world
        return (TrainSampler if split == "train" else EvalSampler)(dataset, replicas, rank, run_seed())

    def make_loader(self, split: str) -> DataLoader[Any]:
        """The loader of a split, sharded over the trainer's processes.

        ``"train"`` shuffles and augments, and drops the last, smaller batch of an epoch, unless there is no
        other; all others keep the data set's order.
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
        """Shuffled, augmented batches of this process's share; see `collate`, as for the others."""
        return self.make_loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches in the data set's order."""
        return self.make_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches in the data set's order."""
        return self.make_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of pictures alone, with their paths."""
        return self.make_loader("predict")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch, but for the pictures as read, which are only drawn on."""
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
        """Turn uint8 images into normalised ones; float images are taken to be normalised already.

        (…, 3, H, W), uint8 in 0..255 or float -> (…, 3, H, W), contiguous, of the trainer's precision.
        """
        if images.dtype == torch.uint8:
            mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
            std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
            images = images.to(torch.float32, memory_format=torch.contiguous_format)
            images = images.div_(255).sub_(mean).div_(std)
        # Lightning converts a batch to a half or double precision run's type while it is still uint8.
        return images if self.trainer is None else self.trainer.precision_plugin.convert_input(images)
