from __future__ import annotations

import numpy as np
import pytest
import torch

from attnlab.drawing.pixels import denormalise, fitted_to, percent, thumbnail


def test_small_images_grow_by_whole_factors_and_large_ones_shrink():
    small = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)
    grown = thumbnail(small, 8)
    assert np.array_equal(grown, small.permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1))
    assert thumbnail(torch.zeros(3, 100, 400, dtype=torch.uint8), 128).shape == (32, 128, 3)
    assert thumbnail(torch.zeros(3, 1, 4000, dtype=torch.uint8), 128).shape == (1, 128, 3)


@pytest.mark.parametrize(
    ("size", "drawn", "factors"),
    [((100, 50), (480, 240), (4.8, 4.8)), ((640, 480), (640, 480), (1, 1)), ((4000, 1), (1600, 1), (0.4, 1))],
)
def test_pictures_come_to_a_size_that_suits_labels(size, drawn, factors):
    pixels, grown = fitted_to(torch.full((3, size[1], size[0]), 0.5), 480, 1600)
    assert pixels.shape == (drawn[1], drawn[0], 3)
    assert grown == pytest.approx(factors)
    assert (pixels == 128).all()


def test_denormalise_is_the_inverse_of_normalising():
    original = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normal = (original / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(denormalise(normal, mean, std), original)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100%"), (0.0994, "9.9%"), (0.0996, "10%"), (0.0002, "<0.1%"), (0.0, "0%"), (np.nan, "NaN")],
)
def test_percent(share, text):
    assert percent(share) == text
