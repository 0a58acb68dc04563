from __future__ import annotations

import random
from random import Random

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from attnlab.data.transforms import RandomResizedCropFlip, RandomScaleCrop, ResizeCentreCrop
from attnlab.errors import AttnlabError


def photo(height: int, width: int) -> tv_tensors.Image:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (3, 8, 10), generator=generator, dtype=torch.uint8)
    return tv_tensors.Image(F.resize(coarse, [height, width]))


@pytest.mark.parametrize("height", [40, 96, 150])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.37, 2.0])
def test_it_is_resizing_all_and_then_cropping(height, scale):
    image, size = photo(height, 120), 64
    transform = RandomScaleCrop(size, (scale, scale), fill=(1, 2, 3))
    params = transform.make_params([image])
    fused = transform.transform(image, params)
    assert fused.shape == (3, size, size)

    whole = F.resize(image, [round(height * scale), round(120 * scale)])
    left, top, right, bottom = params["pad"]
    inside = fused[:, top : size - bottom, left : size - right]
    y, x = round(params["top"] * scale), round(params["left"] * scale)
    naive = whole[:, y : y + inside.shape[1], x : x + inside.shape[2]]
    inside = inside[:, : naive.shape[1], : naive.shape[2]]
    assert (inside.int() - naive.int()).abs().float().mean() < 4  # Of 255; windows are of whole pixels.
    assert abs(inside.float().mean() - naive.float().mean()) < 2


def test_image_mask_and_box_stay_together():
    """A bright square: its pixels, its mask and its box must still be the same after any draw."""
    image = torch.zeros(3, 90, 120, dtype=torch.uint8)
    image[:, 30:60, 40:80] = 255
    mask = (image[0] > 0).to(torch.uint8)
    box = tv_tensors.BoundingBoxes([[40, 30, 80, 60]], format="XYXY", canvas_size=(90, 120))
    for seed in range(20):
        torch.manual_seed(seed)
        sample = {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask), "box": box}
        out = RandomScaleCrop(80)(sample)
        content = out["mask"] != 255
        bright = out["image"].float().mean(0) > 127
        assert (bright == (out["mask"] == 1))[content].float().mean() > 0.97
        x0, y0, x1, y1 = out["box"][0].round().int().tolist()
        inside = torch.zeros(80, 80, dtype=torch.bool)
        inside[y0:y1, x0:x1] = True
        assert (inside == (out["mask"] == 1)).float().mean() > 0.97


def test_padding_is_the_mean_colour_and_ignored():
    transform = RandomScaleCrop(100, (0.5, 0.5), fill=(9, 8, 7))
    out = transform({"image": photo(60, 80), "mask": tv_tensors.Mask(torch.zeros(60, 80, dtype=torch.uint8))})
    padding = out["mask"] == 255
    assert padding.sum() == 100 * 100 - 30 * 40
    assert out["image"][:, padding].T.unique(dim=0).tolist() == [[9, 8, 7]]


def test_all_parts_of_an_image_are_met():
    torch.manual_seed(0)
    transform = RandomScaleCrop(32, (1.0, 1.0))
    corners = {(p["top"], p["left"]) for p in (transform.make_params([photo(34, 34)]) for _ in range(200))}
    assert corners == {(top, left) for top in range(3) for left in range(3)}


@pytest.mark.parametrize(("size", "scale"), [(0, (1, 1)), (5, (0, 1)), (5, (2, 1))])
def test_impossible_options_are_refused(size, scale):
    with pytest.raises(AttnlabError, match="must be"):
        RandomScaleCrop(size, scale)


def largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov and Smirnov's statistic: the largest difference of two samples' distribution functions."""
    points = np.concatenate([first, second])
    shares = [
        np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (first, second)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (300, 400, (0.08, 1.0)),
        (97, 64, (0.5, 1.0)),
        (40, 90, (0.08, 1.0)),
        (20, 500, (0.5, 1.0)),
        (500, 20, (0.08, 1.0)),
    ],
)
def test_windows_are_distributed_as_torchvisions(height, width, scale):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    reference, ours = v2.RandomResizedCrop(32, scale), RandomResizedCropFlip(32, scale)
    torch.manual_seed(0)
    rng = Random(0)
    number = 2000
    params = (reference.make_params([image]) for _ in range(number))
    theirs = np.array([[p[key] for key in ("top", "left", "height", "width")] for p in params])
    drawn = np.array([ours.window(height, width, rng) for _ in range(number)])
    assert (drawn[:, :2] >= 0).all()
    assert (drawn[:, :2] + drawn[:, 2:] <= [height, width]).all()
    for measure in (
        *(lambda w, k=k: w[:, k] for k in range(4)),
        lambda w: w[:, 2] * w[:, 3],
        lambda w: w[:, 3] / w[:, 2],
    ):
        assert (
            largest_gap(measure(drawn), measure(theirs)) < 1.95 * (2 / number) ** 0.5
        )  # 1 in 1000 by chance


def test_a_picture_that_holds_no_window_gives_its_centre():
    wide, tall = (
        RandomResizedCropFlip(8, (0.9, 1.0)).window(*size, Random(0)) for size in ((30, 200), (200, 30))
    )
    assert wide == (0, 80, 30, 40)
    assert tall == (80, 0, 40, 30)
    assert RandomResizedCropFlip(8).window(1, 1, Random(0)) == (0, 0, 1, 1)


@pytest.mark.parametrize("interleaved", [True, False])
def test_the_window_is_resized_as_torchvision_does(interleaved):
    image = photo(150, 200)
    if interleaved:
        image = tv_tensors.Image(image.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    for seed in range(20):
        out = RandomResizedCropFlip(48, flip=0.0)(image, Random(seed))
        window = RandomResizedCropFlip(48).window(150, 200, Random(seed))
        expected = F.resized_crop(image, *window, [48, 48], antialias=True)
        assert isinstance(out, tv_tensors.Image)
        assert out.dtype == torch.uint8
        assert (out.int() - expected.int()).abs().max() <= 1
        assert torch.equal(RandomResizedCropFlip(48, flip=1.0)(image, Random(seed)), out.flip(-1))


def test_half_of_the_pictures_are_flipped():
    random.seed(0)
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[..., 4:] = 255
    transform = RandomResizedCropFlip(8, (1.0, 1.0), (1.0, 1.0))
    flips = sum(bool(transform(image)[0, 0, 0] > 127) for _ in range(400))
    assert 160 < flips < 240  # Four standard deviations.


@pytest.mark.parametrize(("height", "width"), [(90, 120), (121, 77), (64, 64)])
@pytest.mark.parametrize("resize", [None, 57, 64])
def test_resize_and_centre_crop_are_torchvisions(height, width, resize):
    image = photo(height, width)
    steps = ([] if resize is None else [v2.Resize(resize, antialias=True)]) + [v2.CenterCrop(51)]
    expected = v2.Compose(steps)(image)
    out = ResizeCentreCrop(resize, 51)(image)
    assert out.shape == (3, 51, 51)
    assert (out.int() - expected.int()).abs().max() <= 1


def test_a_centre_crop_is_not_padded():
    with pytest.raises(AttnlabError, match="60 x 50 pixels is smaller than the crop of 51 x 51"):
        ResizeCentreCrop(None, 51)(photo(50, 60))
    with pytest.raises(AttnlabError, match="eval_resize 50 is smaller than crop_size 51"):
        ResizeCentreCrop(50, 51)
