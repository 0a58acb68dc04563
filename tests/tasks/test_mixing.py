"""Mixup and CutMix."""

from __future__ import annotations

import pytest
import torch

from attnlab.errors import AttnlabError
from attnlab.tasks import MixingConfig
from attnlab.tasks.mixing import BatchMixing


def batch(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Image k is k everywhere, its label is k: a blend's share can be read off its pixels."""
    values = torch.arange(count)
    return values.float()[:, None, None, None].expand(count, 3, 8, 8).contiguous(), values


def test_off_by_default() -> None:
    image, label = batch()
    mixed, same = BatchMixing(MixingConfig(), 6)(image, label)
    assert mixed is image
    assert same is label


@pytest.mark.parametrize("options", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}])
def test_labels_are_blended_as_the_pixels_are(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    mixing, values = BatchMixing(MixingConfig(**options), 6), torch.arange(6).float()
    for _ in range(20):
        mixed, shares = mixing(*batch())
        assert shares.shape == (6, 6)
        torch.testing.assert_close(shares.sum(1), torch.ones(6))
        # The mean pixel is the mean of the two values that went into the image, weighted by area or share.
        torch.testing.assert_close(mixed.mean((1, 2, 3)), shares @ values, rtol=1e-4, atol=1e-4)


def test_mixup_blends_every_pixel_and_cutmix_pastes_a_rectangle() -> None:
    torch.manual_seed(0)
    blended, _ = BatchMixing(MixingConfig(mixup_alpha=1.0), 6)(*batch())
    assert all(image.unique().numel() == 1 for image in blended)
    pasted, _ = BatchMixing(MixingConfig(cutmix_alpha=1.0), 6)(*batch())
    assert set(pasted.unique().tolist()) <= set(range(6))
    assert any(image.unique().numel() == 2 for image in pasted)


def test_the_probability_is_the_share_of_mixed_batches_and_both_kinds_come() -> None:
    torch.manual_seed(0)
    mixing = BatchMixing(MixingConfig(mixup_alpha=1.0, cutmix_alpha=1.0, probability=0.5), 6)
    results = [mixing(*batch()) for _ in range(400)]
    mixed = [image for image, label in results if label.ndim == 2]
    assert 150 < len(mixed) < 250
    by_cutmix = sum(all(value == round(value) for value in image.unique().tolist()) for image in mixed)
    assert 50 < by_cutmix < len(mixed) - 50


@pytest.mark.parametrize("options", [{"mixup_alpha": -1.0}, {"cutmix_alpha": -0.1}, {"probability": 1.5}])
def test_refused(options: dict[str, float]) -> None:
    with pytest.raises(AttnlabError, match=r"--model\.mixing"):
        BatchMixing(MixingConfig(**options), 3)
