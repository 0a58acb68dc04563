from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from attnlab.data.sampling import (
    AspectGroupedSampler,
    EvalSampler,
    SampleKey,
    TrainSampler,
    run_seed,
    seeded,
)
from attnlab.errors import AttnlabError

CASES = [(length, world) for world in (1, 2, 3) for length in (1, 2, 7, 12)]


def shares(sampler_class, length, world, epoch=0, seed=5):
    samplers = [sampler_class(range(length), world, rank, seed) for rank in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    keys = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(share) for share in keys]
    return keys


@pytest.mark.parametrize(("length", "world"), CASES)
@pytest.mark.parametrize("sampler_class", [TrainSampler, EvalSampler])
def test_each_sample_counts_once_and_shares_are_equal(sampler_class, length, world):
    keys = shares(sampler_class, length, world)
    assert len({len(share) for share in keys}) == 1
    counted = sorted(key.index for share in keys for key in share if key.counted)
    assert counted == list(range(length))
    assert all(0 <= key.index < length for share in keys for key in share)


def test_evaluation_keeps_the_order_whatever_the_epoch():
    assert [key.index for key in shares(EvalSampler, 6, 1, epoch=4)[0]] == list(range(6))
    assert shares(EvalSampler, 6, 2, epoch=4) == shares(EvalSampler, 6, 2, epoch=9)


def test_training_order_depends_on_seed_and_epoch_alone():
    first = shares(TrainSampler, 50, 1, epoch=3)
    assert first == shares(TrainSampler, 50, 1, epoch=3)
    order = [key.index for key in first[0]]
    assert order != [key.index for key in shares(TrainSampler, 50, 1, epoch=4)[0]]
    assert order != [key.index for key in shares(TrainSampler, 50, 1, epoch=3, seed=6)[0]]
    assert {key.epoch for key in first[0]} == {3}


def test_a_global_batch_holds_the_same_images_for_any_number_of_processes():
    alone = [key.index for key in shares(TrainSampler, 24, 1)[0]]
    first, second = ([key.index for key in share] for share in shares(TrainSampler, 24, 2))
    for start in range(0, 24, 8):
        half = slice(start // 2, start // 2 + 4)
        assert sorted(alone[start : start + 8]) == sorted(first[half] + second[half])


def test_seeded_leaves_the_generators_as_they_were():
    def draw():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = draw()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    with seeded(0, 1, 2):
        inside = draw()
    assert draw() == expected
    with seeded(0, 1, 2):
        assert draw() == inside
    with seeded(0, 2, 1):
        assert all(a != b for a, b in zip(draw(), inside, strict=True))


def test_bare_indices_are_keys_of_epoch_0():
    assert SampleKey.of(4) == SampleKey(4, 0, True)
    assert SampleKey.of(SampleKey(4, 2, False)) == SampleKey(4, 2, False)


def test_run_seed_is_lightnings(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert run_seed() == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert run_seed() == 17


class TestAspectGroups:
    """Wide and tall images in batches of their own."""

    @staticmethod
    def shares(aspects, world, batch_size, epoch=0, seed=5):
        samplers = [
            AspectGroupedSampler(
                range(len(aspects)), world, rank, seed, batch_size=batch_size, aspects=aspects
            )
            for rank in range(world)
        ]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        keys = [list(sampler) for sampler in samplers]
        assert [len(sampler) for sampler in samplers] == [len(share) for share in keys]
        return keys

    @pytest.mark.parametrize("world", [1, 2, 3])
    @pytest.mark.parametrize("batch_size", [1, 4])
    @pytest.mark.parametrize(("wide", "tall"), [(1, 0), (0, 2), (5, 6), (29, 7), (24, 24)])
    def test_each_sample_counts_once_and_at_most_one_full_batch_is_mixed(self, wide, tall, batch_size, world):
        aspects = random.Random(0).sample([1.5] * wide + [0.7] * tall, wide + tall)
        keys = self.shares(aspects, world, batch_size)
        assert len({len(share) for share in keys}) == 1
        counted = sorted(key.index for share in keys for key in share if key.counted)
        assert counted == list(range(len(aspects)))

        groups = [[aspects[key.index] >= 1 for key in share] for share in keys]
        mixed_steps = mixed_batches = 0
        for start in range(0, len(aspects) // (batch_size * world) * batch_size, batch_size):
            batches = [share[start : start + batch_size] for share in groups]
            mixed_steps += len({group for batch in batches for group in batch}) == 2
            mixed_batches += sum(len(set(batch)) == 2 for batch in batches)
        assert mixed_steps <= 1
        assert mixed_batches <= 1

    def test_the_order_depends_on_seed_and_epoch_alone(self):
        aspects = [0.5, 1.0, 2.0] * 20
        first = self.shares(aspects, 2, 4, epoch=3)
        assert first == self.shares(aspects, 2, 4, epoch=3)
        assert first != self.shares(aspects, 2, 4, epoch=4)
        assert first != self.shares(aspects, 2, 4, epoch=3, seed=6)
        assert {key.epoch for share in first for key in share} == {3}

    def test_wide_and_tall_batches_come_in_any_order(self):
        orders = set()
        for epoch in range(20):
            (keys,) = self.shares([2.0] * 4 + [0.5] * 4, 1, 4, epoch)
            orders.add(keys[0].index < 4)
        assert orders == {True, False}

    def test_the_same_images_are_in_the_last_smaller_batch_as_without_groups(self):
        """Otherwise the images of a small group would be dropped with it, epoch after epoch."""
        aspects = [2.0] * 32 + [0.5] * 3
        seen = set()
        for epoch in range(10):
            (keys,) = self.shares(aspects, 1, 16, epoch)
            (plain,) = shares(TrainSampler, 35, 1, epoch)
            assert {key.index for key in keys[:32]} == {key.index for key in plain[:32]}
            seen |= {key.index for key in keys[:32]}
        assert seen == set(range(35))

    def test_a_step_holds_the_same_images_for_any_number_of_processes(self):
        aspects = [0.5, 1.0, 2.0, 0.9] * 6
        (alone,) = self.shares(aspects, 1, 8)
        first, second = self.shares(aspects, 2, 4)
        for start in range(0, 24, 8):
            half = slice(start // 2, start // 2 + 4)
            assert set(alone[start : start + 8]) == {*first[half], *second[half]}

    def test_ratios_that_are_not_the_data_sets_are_refused(self):
        with pytest.raises(AttnlabError, match="of 2 images for a data set of 3"):
            AspectGroupedSampler(range(3), batch_size=2, aspects=[1.0, 2.0])
