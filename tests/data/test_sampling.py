from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from attnlab.data.sampling import EvalSampler, SampleKey, TrainSampler, run_seed, seeded

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
