"""What the data modules of all tasks share: samplers, loaders, normalisation on the device."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from attnlab.data.sampling import EvalSampler, TrainSampler, run_seed
from attnlab.errors import AttnlabError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Triple = tuple[float, float, float]

STAGE_SPLITS = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
    None: ("train", "val", "test"),
}
"""The splits that ``setup`` prepares for a stage."""


class DataModule(LightningDataModule):
    """Base of all data modules.

    A subclass fills ``datasets`` in ``setup`` and names the collating functions. Its data sets take a
    `SampleKey` (or an index) and return a dict with ``image``, ``index`` and ``counted``; its batches
    are dicts too. Images travel as uint8 and become normalised floats on the device, which moves a quarter of
    the bytes between processes and to the accelerator.

    Args:
        batch_size: Training images a process and step.
        eval_batch_size: Images a process and step in validation, test and prediction.
        num_workers: Loader processes for each process; 0 loads in the training process itself. The samples
            are the same for any number.
        mean: Channel means (RGB, of images in 0..1) that are subtracted. ImageNet's by default.
        std: Channel standard deviations (RGB, of images in 0..1) that are divided by.

    A subclass also has ``class_names``, the names of the classes 0, 1, …, and ``num_classes``.

    Attributes:
        datasets: Data sets by split (``"train"``, ``"val"``, ``"test"``, ``"predict"``), filled by ``setup``.
    """

    mean: Triple
    std: Triple

    def __init__(
        self,
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int = 2,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise AttnlabError(f"data.{name} is {value}; it must be at least {least}.")
        if min(std) <= 0:
            raise AttnlabError(f"data.std is {tuple(std)}; each value must be above 0.")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.mean = (mean[0], mean[1], mean[2])
        self.std = (std[0], std[1], std[2])
        self.datasets: dict[str, Dataset[Any]] = {}

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

    def make_loader(self, split: str, collate: Callable[[list[Any]], Any]) -> DataLoader[Any]:
        """The loader of a split, sharded over the trainer's processes.

        The last, smaller batch of an epoch is dropped in training, unless it is the only one.

        Args:
            split: ``"train"`` shuffles and augments; all others keep the data set's order.
            collate: Makes a batch of a list of samples.
        """
        dataset = self.dataset(split)
        train = split == "train"
        sampler = self.make_sampler(split)
        batch_size = self.batch_size if train else self.eval_batch_size
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            drop_last=train and len(sampler) >= batch_size,  # type: ignore[arg-type]
            pin_memory=on_cuda,
            persistent_workers=self.num_workers > 0 and split in ("train", "val"),
        )

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 images into normalised ones; float images are taken to be normalised already.

        Args:
            images: (…, 3, H, W), uint8 in 0..255, or floating point.

        Returns:
            (…, 3, H, W) in floating point, contiguous, of the trainer's precision.
        """
        if images.dtype == torch.uint8:
            mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
            std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
            images = images.to(torch.float32, memory_format=torch.contiguous_format)
            images = images.div_(255).sub_(mean).div_(std)
        # Lightning converts a batch to a half or double precision run's type while it is still uint8.
        return images if self.trainer is None else self.trainer.precision_plugin.convert_input(images)
