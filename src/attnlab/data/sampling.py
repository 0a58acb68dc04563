"""Which sample comes when, on which process, with which random numbers.

A sampler yields a `SampleKey` instead of a bare index. The key carries all that a sample depends on besides
the run's seed, so a sample is the same whichever worker or process draws it, and whatever was drawn before.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator
from torch.utils.data import DistributedSampler

from attnlab.errors import AttnlabError

_NUMPY_STREAM = np.random.MT19937()


class SampleKey(NamedTuple):
    """What a data set is asked for.

    Attributes:
        index: Position in the data set, 0 … length - 1.
        epoch: The epoch that the sample's random augmentation belongs to; 0 in evaluation.
        counted: False for a sample that only fills a process's share up to the others' length. It has been,
            or will be, seen elsewhere, and must enter no metric.
    """

    index: int  # type: ignore[assignment]  # tuple.index, which it hides, is of no use here.
    epoch: int = 0
    counted: bool = True

    @classmethod
    def of(cls, key: int | SampleKey) -> SampleKey:
        """The key itself, or epoch 0's key of a bare index, which is what other people's samplers yield."""
        return key if isinstance(key, SampleKey) else cls(int(key))


def run_seed() -> int:
    """The seed given to Lightning's ``seed_everything``, 0 where none was."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Run a block under random numbers of its own, leaving the process's as they were.

    Seeds torch's CPU generator, ``random`` and NumPy's global generator, the three that transforms draw from,
    by the non-negative numbers that name the stream, e.g. seed, epoch and index. Streams of different names
    are independent. Such blocks do not nest.
    """
    words = np.random.SeedSequence(entropy).generate_state(3)
    python_state, numpy_stream = random.getstate(), get_bit_generator()
    # Exchanging NumPy's generator is ten times as fast as saving and restoring its state.
    set_bit_generator(_NUMPY_STREAM)
    with torch.random.fork_rng(devices=[]):
        # The default generator alone: torch.manual_seed would seed every accelerator too.
        torch.default_generator.manual_seed(int(words[0]))
        random.seed(int(words[1]))
        np.random.seed(int(words[2]))  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python_state)
            set_bit_generator(numpy_stream)


class _KeySampler(DistributedSampler[Any]):
    """What all samplers share. Lightning leaves a `DistributedSampler` in place and calls ``set_epoch``.

    Its data set is anything with a length, and its seed the run's.
    """

    def __init__(self, dataset: Sized, num_replicas: int = 1, rank: int = 0, seed: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.length = len(dataset)

    def _share(self, order: list[int], epoch: int) -> Iterator[SampleKey]:
        """Every num_replicas-th entry of the order, wrapped around so that all shares are equally long."""
        for position in range(self.rank, self.total_size, self.num_replicas):
            yield SampleKey(order[position % self.length], epoch, counted=position < self.length)


class TrainSampler(_KeySampler):
    """A new order each epoch, which depends on seed and epoch alone: a resumed run goes on in the same one.

    Batch number k, taken over all processes, holds the same images for any number of processes, so long as
    the batch sizes add up to the same.
    """

    def __iter__(self) -> Iterator[SampleKey]:
        return self._share(torch.randperm(self.length, generator=self._generator()).tolist(), self.epoch)

    def _generator(self) -> torch.Generator:
        seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0]
        return torch.Generator().manual_seed(int(seed))


class AspectGroupedSampler(TrainSampler):
    """Batches of wide images and batches of tall ones: one of both would be padded to a square.

    An epoch takes `TrainSampler`'s order, so the same images come in it, and the same ones are in the last
    batch that is not full. The full batches, counted over all processes, are filled from one group each, and
    then shuffled. What is left of the two groups is at most one batch of both. A wide image is at least as
    wide as it is high.

    Args:
        *args: As of `TrainSampler`.
        batch_size: Samples a process and step.
        aspects: Width over height of each sample.

    Raises:
        AttnlabError: There are more or fewer ratios than samples.
    """

    def __init__(self, *args: Any, batch_size: int, aspects: Sequence[float]) -> None:
        super().__init__(*args)
        if len(aspects) != self.length:
            raise AttnlabError(
                f"The aspect ratios of {len(aspects)} images were given for a data set of {self.length}."
            )
        self.wide = np.asarray(aspects, np.float64) >= 1
        self.step = batch_size * self.num_replicas

    def __iter__(self) -> Iterator[SampleKey]:
        generator = self._generator()
        order = torch.randperm(self.length, generator=generator).numpy()
        whole = self.length // self.step * self.step
        groups = self.wide[order[:whole]]
        # Where a batch of both is left, its wide images come first: at most one process gets both kinds.
        parts = [order[:whole][groups], order[:whole][~groups]]
        full = [part[: len(part) // self.step * self.step] for part in parts]
        rest = [part[len(taken) :] for part, taken in zip(parts, full, strict=True)]
        # So that each process is dealt consecutive entries of that batch.
        dealt = np.concatenate(rest).reshape(self.num_replicas, -1).T.flatten()
        batches = np.concatenate([*full, dealt]).reshape(-1, self.step)
        shuffled = batches[torch.randperm(len(batches), generator=generator).numpy()]
        return self._share([*shuffled.flatten().tolist(), *order[whole:].tolist()], self.epoch)


class EvalSampler(_KeySampler):
    """The data set's own order, each sample counted exactly once over all processes.

    Every process gets the same number of keys, also where there are fewer samples than processes, so none
    waits for another in a collective operation; the keys that fill up have ``counted=False``.
    """

    def __iter__(self) -> Iterator[SampleKey]:
        return self._share(list(range(self.length)), epoch=0)
