"""Scores against the definition, written naively, and against their own promises."""

import math

import pytest
import torch

from attnlab.metrics import ClassificationScores
from attnlab.metrics.classification import result_from_counts

NAMES = ["ant", "bee", "cat", "dog", "emu", "fox", "gnu"]
NAN = float("nan")


def ranking(row: list[float]) -> list[int]:
    """Classes from the most to the least likely; of equals the lower index first."""
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


def naive(logits: torch.Tensor, label: torch.Tensor) -> dict:
    top1 = top5 = 0
    matrix = [[0] * len(NAMES) for _ in NAMES]
    for row, truth in zip(logits.tolist(), label.tolist(), strict=True):
        order = ranking(row)
        top1 += order[0] == truth
        top5 += truth in order[:5]
        matrix[truth][order[0]] += 1
    per_class = {NAMES[k]: row[k] / sum(row) for k, row in enumerate(matrix) if any(row)}
    return {"top1": top1 / len(label), "top5": top5 / len(label), "matrix": matrix, "per_class": per_class}


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """37 images with many ties, and no gnu."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 4, (37, len(NAMES)), generator=generator).float()
    return logits, torch.randint(0, 6, (37,), generator=generator)


def score(logits: torch.Tensor, label: torch.Tensor, size: int = 1000) -> ClassificationScores:
    scores = ClassificationScores(NAMES[: logits.shape[1]])
    for part, truth in zip(logits.split(size), label.split(size), strict=True):
        scores.update(part, truth)
    return scores


def same(a, b) -> bool:
    return torch.equal(a.matrix, b.matrix) and all(
        getattr(a, name) == getattr(b, name) for name in ("top1", "top5", "per_class", "absent", "images")
    )


def test_equals_the_definition(batch):
    result, expected = score(*batch).result(), naive(*batch)
    assert 0 < result.top1 < result.top5 < 1
    assert result.top1 == expected["top1"]
    assert result.top5 == expected["top5"]
    assert result.per_class == expected["per_class"]
    assert result.matrix.tolist() == expected["matrix"]
    assert result.matrix.dtype == torch.int64
    assert result.images == 37
    assert result.absent == ["gnu"]


@pytest.mark.parametrize("size", [1, 2, 5, 36])
def test_does_not_depend_on_batch_size(batch, size):
    assert same(score(*batch, size).result(), score(*batch).result())


def test_parts_add_up_exactly(batch):
    """What several processes do: each scores some images, and their states are reduced."""
    logits, label = batch
    whole = score(logits, label).result()
    parts = score(logits[0::2], label[0::2])
    parts.merge_state(score(logits[1::2], label[1::2]))
    assert same(parts.result(), whole)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_reset_forgets(batch):
    scores = score(*batch)
    scores.reset()
    assert scores.result().images == 0


def test_a_network_that_always_says_the_same_scores_by_chance():
    result = score(torch.zeros(7, 7), torch.arange(7)).result()
    assert (result.top1, result.top5) == (1 / 7, 5 / 7)
    assert result.matrix[:, 0].tolist() == [1] * 7


@pytest.mark.parametrize("place", range(7))
def test_nan_is_never_right(place):
    logits = torch.zeros(7, 7)
    logits.fill_diagonal_(1.0)
    logits[:, place] = NAN
    result = score(logits, torch.arange(7)).result()
    assert (result.top1, result.top5, result.images) == (0, 0, 7)
    assert result.matrix.count_nonzero() == 0
    assert set(result.per_class.values()) == {0.0}


def test_one_nan_image_lowers_the_share_of_its_class_alone():
    logits = torch.eye(7).repeat(2, 1)
    logits[3] = NAN
    result = score(logits, torch.arange(7).repeat(2)).result()
    assert result.top1 == result.top5 == 13 / 14
    assert result.per_class == {name: 0.5 if name == "dog" else 1.0 for name in NAMES}


def test_plus_infinity_is_never_right_and_minus_infinity_rules_a_class_out():
    logits = torch.zeros(3, 7)
    logits[0, 6], logits[1, 6], logits[2, 5] = float("inf"), -float("inf"), -float("inf")
    logits[2, 6] = 1.0
    result = score(logits, torch.tensor([6, 6, 6])).result()
    assert (result.top1, result.top5) == (1 / 3, 1 / 3)
    assert result.matrix.sum() == 2


def test_top5_needs_five_classes():
    assert score(torch.eye(4), torch.arange(4)).result().top5 is None
    assert score(torch.zeros(5, 5), torch.arange(5)).result().top5 == 1.0


def test_bfloat16_logits(batch):
    logits, label = batch
    assert same(score(logits.bfloat16(), label).result(), score(logits, label).result())


def test_counts_stay_exact_beyond_what_a_float_holds():
    counts = torch.zeros(2, 3, dtype=torch.int64)
    counts[0, 0], counts[0, 1] = 2**40 + 1, 1
    assert result_from_counts(counts, 0, NAMES[:2]).per_class["ant"] == (2**40 + 1) / (2**40 + 2)
    many = torch.full((1, 6), 2**24, dtype=torch.int64).expand(5, 6).clone()
    many[0, 0] += 1
    assert result_from_counts(many, 0, NAMES[:5]).images == 30 * 2**24 + 1


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_nothing_scored_is_no_number():
    result = ClassificationScores(NAMES).result()
    assert math.isnan(result.top1)
    assert math.isnan(result.top5)
    assert result.per_class == {}
    assert result.absent == NAMES
