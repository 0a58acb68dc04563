"""What a training step costs under the Trainer, beside the same step in a bare PyTorch loop.

Run: ``python benchmarks/framework_overhead.py NETWORK [--steps 60] [--channels_last false] [OPTION ...]``

NETWORK is one of deeplab, resnet, retinanet, yolox. The Trainer is the one that ``python main.py fit`` puts
together: TensorBoard, progress lines, learning rates, checkpoints, pictures, cost. The bare loop has a copy
of the network in PyTorch's own layout, with the same batches, loss, optimizer and schedule. A step of each
takes turns with one of the other, in one process; everything between two steps belongs to the Trainer's.
Further options go to ``fit``. Targets: at most 1.03 with ``--channels_last false``, and for DeepLab at most
0.9 with ``auto``, the default.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from paired import ratio_line
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from attnlab.cli.trainer import AttnlabCLI
from attnlab.data import (
    DataModule,
    ShapesClassificationDataModule,
    ShapesDetectionDataModule,
    ShapesSegmentationDataModule,
)
from attnlab.tasks import BaseTask, ClassificationTask, SegmentationTask

NETWORKS = {
    "deeplab": ("Segmentation", 128, 8, ["--model.architecture=DeepLabV3Plus", "--model.encoder=resnet18"]),
    "resnet": ("Classification", 128, 8, ["--model.network=resnet18"]),
    "retinanet": (
        "Detection",
        160,
        4,
        [
            "--model.network=retinanet",
            "--model.network_options={backbone: resnet18, min_size: 160, max_size: 160}",
        ],
    ),
    "yolox": ("Detection", 160, 8, ["--model.network=yolox_nano", "--model.network_options={size: 160}"]),
}
"""Task, side of the images, batch, and options."""


class InMemory(DataModule):
    """The first batches of a training set, made once.

    Args:
        steps: How many.
        **options: The data's.
    """

    def __init__(self, steps: int = 60, **options: Any) -> None:
        super().__init__(num_train=16 * steps, num_val=16, **options)
        self.steps = steps
        self.batches: list[dict[str, Any]] = []

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches, as they are."""
        if not self.batches:
            self.batches = [
                batch for batch, _ in zip(super().train_dataloader(), range(self.steps), strict=False)
            ]
        return DataLoader([dict(batch) for batch in self.batches], batch_size=None)  # type: ignore[arg-type]


class SegmentationInMemory(InMemory, ShapesSegmentationDataModule):
    """For DeepLab."""


class ClassificationInMemory(InMemory, ShapesClassificationDataModule):
    """For a ResNet."""


class DetectionInMemory(InMemory, ShapesDetectionDataModule):
    """For detectors."""


class BareSteps(Callback):
    """Does a step of the bare loop before each of the Trainer's, and times both."""

    def __init__(self) -> None:
        self.bare: list[float] = []
        self.steps: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the network, with an optimizer and a schedule of its own."""
        assert isinstance(pl_module, BaseTask)
        network = copy.deepcopy(pl_module.network).to(memory_format=torch.contiguous_format)
        names = {parameter: name for name, parameter in pl_module.network.named_parameters()}
        own = dict(network.named_parameters())
        groups = [
            {**group, "params": [own[names[parameter]] for parameter in group["params"]]}
            for group in trainer.optimizers[0].param_groups
        ]
        self.network, self.task = network, pl_module
        self.optimizer = type(trainer.optimizers[0])(groups)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: pl_module.schedule(step)
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What an epoch ends with belongs to no step."""
        self.since: float | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The Trainer's last step is over; do the bare one."""
        start = time.perf_counter()
        if self.since is not None:
            self.steps.append(start - self.since)
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._step(data.on_after_batch_transfer(dict(data.batches[batch_idx]), 0))
        self.since = time.perf_counter()
        # The Trainer's last step of an epoch is not timed, so this one is not, either.
        if batch_idx + 1 < data.steps:
            self.bare.append(self.since - start)

    def _step(self, batch: dict[str, Any]) -> None:
        loss = bare_loss(self.task, self.network, batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()


def bare_loss(task: BaseTask, network: nn.Module, batch: dict[str, Any]) -> Tensor:
    """The task's loss, without the task."""
    if isinstance(task, SegmentationTask):
        return task.criterion(network(batch["image"]), batch["mask"])["loss"]
    if isinstance(task, ClassificationTask):
        return F.cross_entropy(network(batch["image"]), batch["label"])
    targets = [
        {
            "boxes": torch.as_tensor(target["boxes"]),
            "labels": torch.as_tensor(target["labels"]) + task.first_label,  # type: ignore[attr-defined]
        }
        for target in batch["target"]
    ]
    terms: dict[str, Tensor] = network(batch["image"], targets)
    return torch.stack(list(terms.values())).sum()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=list(NETWORKS), help="what is trained")
    parser.add_argument("--steps", type=int, default=60, help="steps of each that count (default 60)")
    parser.add_argument(
        "--channels_last", default="auto", help="layout of the Trainer's network (default auto)"
    )
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    options, further = parser.parse_known_args()
    torch.set_num_threads(options.threads)
    task, side, batch, of_network = NETWORKS[options.network]

    with tempfile.TemporaryDirectory() as folder:
        cli = AttnlabCLI.run_command(
            [
                "fit",
                f"--task={task.lower()}",
                f"--data=__main__.{task}InMemory",
                f"--data.root={folder}/data",
                f"--data.steps={options.steps // 2 + 1}",
                f"--data.image_size={side}",
                f"--data.batch_size={batch}",
                "--data.num_workers=0",
                "--model.attention=ela_b",
                "--model.attention.mode=rezero",
                f"--model.channels_last={options.channels_last}",
                "--model.optimizer.lr=0.0001",
                *of_network,
                "--trainer.accelerator=cpu",
                # The first epoch warms up.
                "--trainer.max_epochs=3",
                "--trainer.num_sanity_val_steps=0",
                "--trainer.callbacks=__main__.BareSteps",
                f"--trainer.logger.init_args.save_dir={folder}/logs",
                *further,
            ]
        )
    clock = next(c for c in cli.trainer.callbacks if isinstance(c, BareSteps))  # type: ignore[attr-defined]
    warm = options.steps // 2
    bare, steps = ([1000 * taken for taken in times[warm:]] for times in (clock.bare, clock.steps))
    print(f"a step in the bare loop   {median(bare):8.1f} ms")
    print(f"a step under the Trainer  {median(steps):8.1f} ms")
    print(ratio_line(f"{options.network}, channels_last {options.channels_last}, ratio", steps, bare))


if __name__ == "__main__":
    main()
