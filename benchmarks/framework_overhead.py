"""What training under the Trainer costs, beside the same steps in a bare PyTorch loop.

Run: ``python benchmarks/framework_overhead.py [--task segmentation] [--rounds 10] [--steps 20] [--size 96]``

The Trainer is the one that ``python main.py fit`` puts together: TensorBoard, progress bar, learning rates,
checkpoints after every epoch, pictures, cost and the closing table. The bare loop runs a copy of the network
on the same batches, held in memory, with the same loss, optimizer and schedule. Epochs of both take turns in
one process. Two ratios are reported: of the steps alone, and of whole epochs as long as one over VOC 2012
train_aug (in classification: over ImageNet at a batch of 256), where what an epoch ends with (checkpoints,
pictures, scores) is spread over its steps. The time in which the network looks at validation images belongs
to neither. Target: at most 1.03.

Further options go to ``fit``, to see what one part costs: ``--trainer.enable_progress_bar=false``.
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
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from attnlab.data import DataModule
from attnlab.data.vocfolder import colour_map
from attnlab.lightning_cli import AttnlabCLI
from attnlab.tasks import BaseTask, ClassificationTask, SegmentationTask

EPOCH_STEPS = {"segmentation": 10582 // 16, "classification": 1281167 // 256}
"""Steps of an epoch over VOC 2012 train_aug, and over ImageNet, at the usual batch sizes."""


class MemoryData(DataModule):
    """Random batches, made once.

    Args:
        steps: Training batches an epoch.
        size: Side of the images in pixels.
    """

    ignore_index: int = 255

    def __init__(self, steps: int = 20, size: int = 96) -> None:
        super().__init__(batch_size=2, num_workers=0)
        self.crop_size = size
        self.class_names = [f"class {k}" for k in range(21)]
        self.palette = colour_map(21)
        generator = torch.Generator().manual_seed(0)
        self.batches = [_batch(2, size, generator) for _ in range(steps)]
        self.val_batches = [_batch(1, size, generator) for _ in range(6)]
        for k, batch in enumerate(self.val_batches):
            batch["name"] = [str(k)]

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches, as they are."""
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        """As many images as are drawn."""
        return DataLoader(self.val_batches, batch_size=None)  # type: ignore[arg-type]


class MemoryPictures(DataModule):
    """Random batches for classification, made once.

    Args:
        steps: Training batches an epoch.
        size: Side of the images in pixels.
    """

    def __init__(self, steps: int = 20, size: int = 96) -> None:
        super().__init__(batch_size=8, num_workers=0)
        self.crop_size = size
        self.class_names = [f"class {k}" for k in range(100)]
        self.synsets = self.class_names
        generator = torch.Generator().manual_seed(0)
        self.batches = [_pictures(8, size, generator) for _ in range(steps)]
        self.val_batches = [_pictures(8, size, generator) for _ in range(4)]

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches, as they are."""
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        """A few batches, which are drawn."""
        return DataLoader(self.val_batches, batch_size=None)  # type: ignore[arg-type]


def _pictures(count: int, size: int, generator: torch.Generator) -> dict[str, Any]:
    return {
        "image": torch.randn(count, 3, size, size, generator=generator),
        "label": torch.randint(0, 100, (count,), generator=generator),
        "index": torch.arange(count),
        "counted": torch.ones(count, dtype=torch.bool),
        "name": [str(k) for k in range(count)],
    }


def _loss(task: BaseTask, network: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The task's loss, without the task."""
    if isinstance(task, SegmentationTask):
        return task.criterion(network(batch["image"]), batch["mask"])["loss"]
    return F.cross_entropy(network(batch["image"]), batch["label"])


def _batch(count: int, size: int, generator: torch.Generator) -> dict[str, Any]:
    sizes = torch.tensor([[size, size]] * count)
    return {
        "image": torch.randn(count, 3, size, size, generator=generator),
        "mask": torch.randint(0, 21, (count, size, size), generator=generator),
        "size": sizes,
        "mask_size": sizes,
        "index": torch.arange(count),
        "counted": torch.ones(count, dtype=torch.bool),
    }


class BareEpochs(Callback):
    """Runs an epoch of the bare loop before each of the Trainer's, and times both."""

    def __init__(self) -> None:
        self.bare: list[float] = []
        self.steps: list[float] = []
        self.ends: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the network, with an optimizer and a schedule of its own."""
        assert isinstance(pl_module, SegmentationTask | ClassificationTask)
        self.network = copy.deepcopy(pl_module.network)
        self.task = pl_module
        names = {parameter: name for name, parameter in pl_module.network.named_parameters()}
        own = dict(self.network.named_parameters())
        groups = [
            {**group, "params": [own[names[parameter]] for parameter in group["params"]]}
            for group in trainer.optimizers[0].param_groups
        ]
        self.optimizer = type(trainer.optimizers[0])(groups)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: pl_module.schedule(step)
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the Trainer's last epoch, run the bare one, start the Trainer's clock."""
        self._close()
        start = time.perf_counter()
        self._epoch(trainer.datamodule.batches)  # type: ignore[attr-defined]
        self.bare.append(time.perf_counter() - start)
        self.start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The steps of the epoch are over."""
        self.steps.append(time.perf_counter() - self.start)
        self.seen = 0.0
        self.start = time.perf_counter()

    def on_validation_batch_start(self, *_: Any) -> None:
        """The network looks at an image."""
        self.looking = time.perf_counter()

    def on_validation_batch_end(self, *_: Any) -> None:
        """It has. This callback comes before the one that draws."""
        self.seen += time.perf_counter() - self.looking

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the last epoch."""
        self._close()

    def _close(self) -> None:
        if len(self.ends) < len(self.steps):
            self.ends.append(time.perf_counter() - self.start - self.seen)

    def _epoch(self, batches: list[dict[str, Tensor]]) -> None:
        for batch in batches:
            loss = _loss(self.task, self.network, batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=list(EPOCH_STEPS), default="segmentation", help="which task")
    parser.add_argument("--rounds", type=int, default=10, help="epochs of each that count (default 10)")
    parser.add_argument("--steps", type=int, default=20, help="steps an epoch (default 20)")
    parser.add_argument("--size", type=int, default=96, help="side of a step's images (default 96)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    options, further = parser.parse_known_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as logs:
        cli = AttnlabCLI.run_command(
            [
                "fit",
                f"--task={options.task}",
                f"--data=__main__.{'MemoryData' if options.task == 'segmentation' else 'MemoryPictures'}",
                f"--data.steps={options.steps}",
                f"--data.size={options.size}",
                "--model.optimizer=SGD",
                "--model.optimizer.options={momentum: 0.9}",
                "--model.optimizer.lr=0.001",
                "--trainer.accelerator=cpu",
                f"--trainer.max_epochs={options.rounds + 1}",
                "--trainer.num_sanity_val_steps=0",
                "--trainer.callbacks=__main__.BareEpochs",
                f"--trainer.default_root_dir={logs}",
                f"--trainer.logger.init_args.save_dir={logs}",
                *further,
            ]
        )
    clock = next(c for c in cli.trainer.callbacks if isinstance(c, BareEpochs))  # type: ignore[attr-defined]
    # The first epoch of each warms up.
    bare = [1000 * taken / options.steps for taken in clock.bare[1:]]
    steps = [1000 * taken / options.steps for taken in clock.steps[1:]]
    ends = [1000 * taken for taken in clock.ends[1:]]
    whole = [step + end / EPOCH_STEPS[options.task] for step, end in zip(steps, ends, strict=True)]
    print(f"a step in the bare loop            {median(bare):8.1f} ms")
    print(f"a step under the Trainer           {median(steps):8.1f} ms")
    print(f"end of an epoch under the Trainer  {median(ends):8.1f} ms")
    print(ratio_line("ratio, steps", steps, bare))
    print(ratio_line(f"ratio, epochs of {EPOCH_STEPS[options.task]} steps", whole, bare))


if __name__ == "__main__":
    main()
