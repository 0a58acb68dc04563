from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from attnlab.data.detection.transforms import RandomHSV, changed_hsv
from attnlab.data.sampling import seeded
from attnlab.errors import AttnlabError


def reference(pixel, hue, saturation, value):
    """One pixel by Python's own conversions."""
    h, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel))
    changed = colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * saturation), min(1, v * value))
    return [255 * channel for channel in changed]


def some_colours() -> np.ndarray:
    """All corners and edges of the colour cube, greys, ties of two channels, and many others."""
    levels = [0, 1, 2, 127, 128, 254, 255]
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    others = np.random.default_rng(0).integers(0, 256, (600, 3))
    return np.concatenate([grid, others]).astype(np.uint8)


def as_image(pixels: np.ndarray) -> torch.Tensor:
    """Pixels (n, 3) as an image of one row."""
    return torch.from_numpy(pixels)[None].permute(2, 0, 1)


def sample(image: torch.Tensor) -> dict:
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[1.0, 0.0, 5.0, 4.0]]), format="XYXY", canvas_size=image.shape[-2:]
    )
    return {"image": tv_tensors.Image(image), "boxes": boxes, "labels": torch.tensor([2])}


@pytest.mark.parametrize("hue", [0.0, 0.015, -0.1, 0.5, -0.5])
@pytest.mark.parametrize(("saturation", "value"), [(1.0, 1.0), (0.3, 1.4), (1.7, 0.6), (2.0, 2.0), (0, 1.0)])
def test_hsv_is_colorsys(hue, saturation, value):
    pixels = some_colours()
    changed = changed_hsv(as_image(pixels), hue, saturation, value)[:, 0].T.numpy()
    expected = np.array([reference(pixel, hue, saturation, value) for pixel in pixels.tolist()])
    assert np.abs(changed - expected).max() <= 0.51


def test_only_the_image_is_changed_and_its_layout_does_not_matter():
    image = as_image(some_colours()).reshape(3, -1, 23)
    before = image.clone()
    with seeded(1):
        changed = RandomHSV()(sample(image))
    with seeded(1):
        planar = RandomHSV()(sample(image.contiguous()))
    assert isinstance(changed["image"], tv_tensors.Image)
    assert changed["image"].dtype == torch.uint8
    assert not torch.equal(changed["image"], image)
    assert torch.equal(changed["image"], planar["image"])
    assert torch.equal(image, before)
    assert changed["boxes"].tolist() == [[1.0, 0.0, 5.0, 4.0]]
    assert changed["labels"].tolist() == [2]


def test_hsv_amounts_stay_in_their_ranges_and_reach_far_into_them():
    transform = RandomHSV(0.1, 0.5, 0.2)
    with seeded(0):
        drawn = [transform.make_params([]) for _ in range(300)]
    for name, low, high in (("hue", -0.1, 0.1), ("saturation", 0.5, 1.5), ("value", 0.8, 1.2)):
        values = [params[name] for params in drawn]
        reach = 0.05 * (high - low)
        assert low <= min(values) < low + reach
        assert high - reach < max(values) <= high


def test_hsv_works_among_v2_transforms():
    image = as_image(some_colours()).reshape(3, -1, 23)
    steps = v2.Compose([RandomHSV(), v2.RandomHorizontalFlip(1.0), v2.SanitizeBoundingBoxes()])
    out = steps(sample(image))
    assert out["boxes"].tolist() == [[18.0, 0.0, 22.0, 4.0]]
    assert out["image"].shape == image.shape


@pytest.mark.parametrize(
    "amounts", [{"hue": 0.6}, {"saturation": -0.1}, {"value": 1.5}, {"hue": float("nan")}]
)
def test_hsv_amounts_out_of_range_are_refused(amounts):
    with pytest.raises(AttnlabError, match=f"RandomHSV's {next(iter(amounts))} is .* must be within"):
        RandomHSV(**amounts)


@pytest.mark.parametrize("image", [torch.rand(3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)])
def test_hsv_refuses_what_is_no_8_bit_rgb(image):
    with pytest.raises(AttnlabError, match="uint8 images of three channels"):
        RandomHSV()(sample(image))
