"""Losses against their formulae, written with loops over pixels."""

import math

import pytest
import torch

from attnlab.errors import AttnlabError
from attnlab.tasks.losses import SegmentationLoss, SegmentationLossConfig


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, 4, (2, 3, 5), generator=generator)
    mask[0, 0] = 255
    return logits, mask


def naive(logits, mask, gamma):
    """-(1 - p_t)^gamma log p_t, averaged over the pixels that count."""
    values = []
    for b, y, x in [(b, y, x) for b in range(2) for y in range(3) for x in range(5)]:
        if mask[b, y, x] == 255:
            continue
        exponentials = [math.exp(v) for v in logits[b, :, y, x].tolist()]
        p = exponentials[mask[b, y, x]] / sum(exponentials)
        values.append(-((1 - p) ** gamma) * math.log(p))
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("term", "gamma"), [("cross_entropy", 0.0), ("focal", 2.0), ("focal", 0.0), ("focal", 0.5)]
)
def test_equals_the_formula(batch, term, gamma):
    config = SegmentationLossConfig(**{"cross_entropy": 0.0, term: 1.0, "focal_gamma": gamma})
    assert SegmentationLoss(config)(*batch)["loss"].item() == pytest.approx(naive(*batch, gamma), rel=1e-5)


def test_dice_is_one_minus_the_overlap(batch):
    logits, mask = batch
    loss = SegmentationLoss(SegmentationLossConfig(cross_entropy=0.0, dice=1.0))(logits, mask)["dice"]
    counted = mask != 255
    scores = []
    for index in range(4):
        p = logits.softmax(1)[:, index][counted]
        t = (mask == index)[counted].double()
        scores.append(1 - 2 * (p * t).sum() / (p.sum() + t.sum()))
    assert loss.item() == pytest.approx(float(sum(scores)) / 4, rel=1e-5)


def test_terms_are_weighted_and_summed(batch):
    terms = SegmentationLoss(SegmentationLossConfig(cross_entropy=1.0, focal=0.5, dice=2.0))(*batch)
    expected = terms["cross_entropy"] + 0.5 * terms["focal"] + 2 * terms["dice"]
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize("config", [{}, {"focal": 1.0, "focal_gamma": 0.5}, {"dice": 1.0}])
def test_a_batch_that_is_all_ignored_teaches_nothing_and_breaks_nothing(config):
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = SegmentationLoss(SegmentationLossConfig(**config))(logits, torch.full((1, 3, 3), 255))["loss"]
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.count_nonzero() == 0


@pytest.mark.parametrize("config", [{}, {"focal": 1.0, "focal_gamma": 0.5}, {"dice": 1.0}])
def test_ignored_pixels_get_no_gradient(batch, config):
    logits, mask = batch
    logits.requires_grad_()
    SegmentationLoss(SegmentationLossConfig(**config))(logits, mask)["loss"].backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, :, 0].count_nonzero() == 0
    assert logits.grad[1].count_nonzero() > 0


def test_a_pixel_that_is_certain_breaks_no_gradient():
    """Its p_t is 1 to the last bit, where a power below 1 has no finite slope."""
    logits = torch.zeros(1, 4, 1, 2)
    logits[0, 2, 0, 0] = 200
    logits.requires_grad_()
    mask = torch.tensor([[[2, 1]]])
    config = SegmentationLossConfig(cross_entropy=0.0, focal=1.0, focal_gamma=0.5)
    SegmentationLoss(config)(logits, mask)["loss"].backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[..., 1].count_nonzero() == 4


@pytest.mark.parametrize("config", [{"cross_entropy": 0.0}, {"dice": -1.0}])
def test_weights_that_make_no_sense(config):
    with pytest.raises(AttnlabError, match="at least one above 0"):
        SegmentationLoss(SegmentationLossConfig(**config))
