"""Stand-ins for a Trainer, and for the processes of one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attnlab.views import base


def trainer_of(
    folder: Any,
    data: Any,
    fn: TrainerFn = TrainerFn.VALIDATING,
    rank: int = 0,
    epoch: int = 0,
    max_epochs: int = 10,
    paths: Any = (),
) -> Any:
    """What callbacks ask a Trainer; its logger's folder is ``run/version_0``, and there is none for None."""
    logger = None if folder is None else TensorBoardLogger(str(folder), name="run", version=0)
    loader = SimpleNamespace(dataset=SimpleNamespace(paths=paths))
    return SimpleNamespace(
        logger=logger,
        loggers=[] if logger is None else [logger],
        datamodule=data,
        is_global_zero=rank == 0,
        sanity_checking=False,
        state=SimpleNamespace(fn=fn),
        current_epoch=epoch,
        max_epochs=max_epochs,
        global_step=7,
        val_dataloaders=None,
        test_dataloaders=None,
        predict_dataloaders=loader,
    )


def tags_of(folder: Any) -> list[str]:
    """Names of the pictures in TensorBoard's events of a folder."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return events.Tags()["images"]


class Processes:
    """Threads in place of processes, one at a time, that gather objects as torch.distributed does."""

    def __init__(self) -> None:
        self.here = threading.local()
        self.count = 1

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return hasattr(self.here, "rank")

    def get_world_size(self) -> int:
        return self.count

    def all_gather_object(self, items: list[Any], item: Any) -> None:
        self.slots[self.here.rank] = item
        self.turn.release()
        try:
            self.barrier.wait()
            items[:] = self.slots
            self.barrier.wait()
        finally:
            self.turn.acquire()

    def __call__(self, count: int, process: Callable[[int], Any]) -> list[Any]:
        """What ``process(rank)`` gives, of all ranks."""
        self.count, self.slots = count, [None] * count
        self.turn, self.barrier = threading.Lock(), threading.Barrier(count, timeout=60)

        def run(rank: int) -> Any:
            self.here.rank = rank
            with self.turn:
                try:
                    return process(rank)
                except BaseException:
                    self.barrier.abort()
                    raise

        with ThreadPoolExecutor(count) as pool:
            done = [pool.submit(run, rank) for rank in range(count)]
        errors = [error for one in done if (error := one.exception())]
        # Those that waited for one that has failed do not know why.
        for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return [one.result() for one in done]


def shares(images: int, processes: int, rank: int, size: int = 2) -> list[list[tuple[int, bool]]]:
    """A process's batches as DistributedSampler deals them: positions, and whether they count."""
    total = -(-images // processes) * processes
    share = [(place % images, place < images) for place in range(rank, total, processes)]
    return [share[start : start + size] for start in range(0, len(share), size)]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Runs a function as so many processes would: ``processes(3, function_of_rank)``."""
    made = Processes()
    monkeypatch.setattr(base, "distributed", made)
    return made
