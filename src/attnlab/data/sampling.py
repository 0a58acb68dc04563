"""Samplers: the order of samples, their distribution over processes, and their random numbers.

A sampler yields a `SampleKey` instead of a bare index. The key holds all that a sample depends on besides the
run's seed, so a sample is the same in every worker and process, whatever was drawn before.
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
    """The key of a sample.

    Attributes:
        index: Position in the data set, 0 … length - 1.
        epoch: The epoch, for random augmentation; 0 in evaluation.
        counted: False for a repeated sample that only pads a process's share to the others' length. It must
            not enter any metric.
    """

    index: int  # type: ignore[assignment]  # It hides tuple.index, which is not needed.
    epoch: int = 0
    counted: bool = True

    @classmethod
    def of(cls, key: int | SampleKey) -> SampleKey:
        """The key itself, or the key in epoch 0 of a bare index, as other samplers yield."""
        return key if isinstance(key, SampleKey) else cls(int(key))


def run_seed() -> int:
    """The seed given to Lightning's ``seed_everything``, or 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Run a block with random numbers of its own, restoring the process's afterwards.

    Seeds torch's CPU generator, ``random`` and NumPy's global generator, which transforms draw from, with the
    stream's non-negative numbers, e.g. seed, epoch and index. Streams with different numbers are independent.
    Blocks do not nest.
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
    """Base class of the samplers; a `DistributedSampler`, so that Lightning keeps it and calls ``set_epoch``.

    Its data set is anything with a length, and its seed the run's.
    """

    def __init__(self, dataset: Sized, num_replicas: int = 1, rank: int = 0, seed: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.length = len(dataset)
        self._start = (0, 0)

    def start_at(self, epoch: int, samples: int = 0) -> None:
        """Begin in an epoch, after this process's first samples of it, which were trained on already."""
        self.set_epoch(epoch)
        self._start = (epoch, samples)

    def _share(self, order: list[int], epoch: int) -> Iterator[SampleKey]:
        """Every num_replicas-th entry of the order, wrapped around to give equally long shares."""
        skipped = self._start[1] if epoch == self._start[0] else 0
        for position in range(self.rank + skipped * self.num_replicas, self.total_size, self.num_replicas):
            yield SampleKey(order[position % self.length], epoch, counted=position < self.length)


class TrainSampler(_KeySampler):
    """A new order each epoch, which depends only on seed and epoch: a resumed run continues in it.

    The k-th global batch holds the same images for any number of processes, as long as its size is the same.
    """

    def __iter__(self) -> Iterator[SampleKey]:
        return self._share(torch.randperm(self.length, generator=self._generator()).tolist(), self.epoch)

    def _generator(self) -> torch.Generator:
        seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0]
        return torch.Generator().manual_seed(int(seed))


class AspectGroupedSampler(TrainSampler):
    """Separate batches of wide and of tall images: a mixed batch would be padded to a square.

    An epoch has the images of `TrainSampler`'s, and the same last incomplete batch. The full global batches
    are filled from one group each and shuffled; the rest of both groups is at most one mixed batch. A wide
    image is at least as wide as it is high.

    Args:
        *args: As for `TrainSampler`.
        batch_size: Samples per process and step.
        aspects: Width over height of each sample.

    Raises:
        AttnlabError: The numbers of aspect ratios and samples differ.
    """

    def __init__(self, *args: Any, batch_size: int, aspects: Sequence[float]) -> None:
        super().__init__(*args)
        if len(aspects) != self.length:
            raise AttnlabError(
                f"Got the aspect ratios of {len(aspects)} images for a data set of {self.length}."
            )
        self.wide = np.asarray(aspects, np.float64) >= 1
        self.step = batch_size * self.num_replicas

    def __iter__(self) -> Iterator[SampleKey]:
        generator = self._generator()
        order = torch.randperm(self.length, generator=generator).numpy()
        whole = self.length // self.step * self.step
        groups = self.wide[order[:whole]]
        # A mixed batch has its wide images first: at most one process gets both kinds.
        parts = [order[:whole][groups], order[:whole][~groups]]
        full = [part[: len(part) // self.step * self.step] for part in parts]
        rest = [part[len(taken) :] for part, taken in zip(parts, full, strict=True)]
        # Each process gets consecutive entries of that batch.
        dealt = np.concatenate(rest).reshape(self.num_replicas, -1).T.flatten()
        batches = np.concatenate([*full, dealt]).reshape(-1, self.step)
        shuffled = batches[torch.randperm(len(batches), generator=generator).numpy()]
        return self._share([*shuffled.flatten().tolist(), *order[whole:].tolist()], self.epoch)


class EvalSampler(_KeySampler):
    """The data set's order, each sample counted exactly once over all processes.

    Every process gets the same number of keys, even with fewer samples than processes, so that none waits in
    a collective operation; padding keys have ``counted=False``.
    """

    def __iter__(self) -> Iterator[SampleKey]:
        return self._share(list(range(self.length)), epoch=0)
