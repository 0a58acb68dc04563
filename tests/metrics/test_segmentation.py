"""Scores against the definition, written naively, and against their own promises."""

import math

import pytest
import torch

from attnlab.metrics import NO_CLASS, SegmentationScores, result_from_matrix

NAMES = ["background", "cat", "dog", "cow"]


def naive(truths: list[torch.Tensor], predictions: list[torch.Tensor]) -> dict[str, float]:
    """IoU of each class by sets of pixels, image after image."""
    result = {}
    for index, name in enumerate(NAMES):
        both = either = 0
        for truth, prediction in zip(truths, predictions, strict=True):
            for t, p in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
                if t == 255:
                    continue
                both += t == index and p == index
                either += t == index or p == index
        if either:
            result[name] = both / either
    return result


@pytest.fixture
def maps() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(5, 7), (1, 1), (9, 4), (6, 6), (3, 11)]
    # No cow anywhere.
    truths = [torch.randint(0, 3, size, generator=generator) for size in sizes]
    predictions = [torch.randint(0, 3, size, generator=generator) for size in sizes]
    for truth in truths[2:]:
        truth[0] = 255
    return truths, predictions


def score(truths: list[torch.Tensor], predictions: list[torch.Tensor]) -> SegmentationScores:
    scores = SegmentationScores(NAMES)
    for truth, prediction in zip(truths, predictions, strict=True):
        scores.update(prediction[None], truth[None])
    return scores


def test_equals_the_definition(maps):
    result = score(*maps).result()
    expected = naive(*maps)
    assert result.iou == expected
    assert result.miou == sum(expected.values()) / len(expected)


def test_names_classes_that_are_absent_and_leaves_them_out_of_the_mean(maps):
    result = score(*maps).result()
    assert result.absent == ["cow"]
    assert "cow" not in result.iou


def test_a_class_that_is_only_predicted_counts_as_zero():
    result = score([torch.zeros(2, 2, dtype=torch.long)], [torch.tensor([[0, 0], [0, 3]])]).result()
    assert result.iou == {"background": 3 / 4, "cow": 0.0}
    assert result.miou == 3 / 8


def test_does_not_depend_on_grouping_or_order(maps):
    truths, predictions = maps
    one = score(truths, predictions).compute()
    flat = SegmentationScores(NAMES)
    flat.update(torch.cat([p.flatten() for p in predictions]), torch.cat([t.flatten() for t in truths]))
    assert torch.equal(one, flat.compute())
    assert torch.equal(one, score(truths[::-1], predictions[::-1]).compute())


def test_parts_add_up_exactly(maps):
    """What several processes do: each scores some images, and the matrices are summed."""
    truths, predictions = maps
    parts = [score(truths[rank::2], predictions[rank::2]).compute() for rank in range(2)]
    assert result_from_matrix(sum(parts), NAMES) == score(truths, predictions).result()


def test_counts_stay_exact_beyond_what_a_float_holds():
    matrix = torch.zeros(4, 4, dtype=torch.int64)
    matrix[0, 0], matrix[0, 1] = 2**40 + 1, 1
    assert result_from_matrix(matrix, NAMES).iou["background"] == (2**40 + 1) / (2**40 + 2)


def test_nothing_scored_is_no_number():
    scores = SegmentationScores(NAMES)
    scores.update(torch.zeros(1, 3, 3, dtype=torch.long), torch.full((1, 3, 3), 255))
    result = scores.result()
    assert math.isnan(result.miou)
    assert math.isnan(result.pixel_accuracy)
    assert result.absent == NAMES


@pytest.mark.parametrize("classes", [2, 255])
def test_a_pixel_of_no_class_is_right_for_none(classes):
    names = [f"c{k}" for k in range(classes)]
    truth = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 255]])
    prediction = truth.clone()
    prediction[0, 0] = prediction[1, 1] = prediction[1, 3] = NO_CLASS
    scores = SegmentationScores(names)
    scores.update(prediction[None], truth[None])
    result = scores.result()
    assert result.iou == {"c0": 2 / 3, "c1": 2 / 3}
    assert (result.pixel_accuracy, result.pixels) == (4 / 6, 6)
    scores.reset()
    scores.update(torch.full_like(truth, NO_CLASS), truth)
    assert (scores.result().miou, scores.result().pixel_accuracy) == (0.0, 0.0)
