"""Letterbox and short side: against PIL, hand-made cases, and the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.errors import AttnlabError
from attnlab.models.detectors.resizing import Letterbox, ShortSide

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SIZES = [(48, 64), (64, 48), (333, 201), (20, 4000), (1, 1), (64, 64)]


def both() -> list[Letterbox | ShortSide]:
    return [Letterbox(64, **PLAIN), Letterbox(64, place="top_left", **PLAIN), ShortSide(60, 100, **PLAIN)]


def test_an_image_lies_in_the_middle_of_grey() -> None:
    image = torch.rand(3, 32, 64)
    batch, _, (place,) = Letterbox(64, fill=0.25, **PLAIN)([image])
    assert batch.shape == (1, 3, 64, 64)
    assert torch.equal(batch[0, :, 16:48], image)  # fits already: not resampled
    assert (batch[0, :, :16] == 0.25).all()
    assert (batch[0, :, 48:] == 0.25).all()
    assert (place.left, place.top, place.height, place.width) == (0, 16, 32, 64)


def test_top_left() -> None:
    batch, targets, _ = Letterbox(64, place="top_left", **PLAIN)(
        [torch.ones(3, 128, 64)], [{"boxes": torch.tensor([[10.0, 20.0, 30.0, 128.0]]), "labels": [1]}]
    )
    assert (batch[0, :, :, :32] == 1).all()
    assert (batch[0, :, :, 32:] == 128 / 255).all()
    assert targets is not None
    assert targets[0]["labels"] == [1]
    assert targets[0]["boxes"].tolist() == [[5.0, 10.0, 15.0, 64.0]]


def test_normalised() -> None:
    image = torch.rand(3, 64, 64)
    batch, _, _ = Letterbox(64)([image])
    expected = (image[1] - 0.456) / 0.224
    torch.testing.assert_close(batch[0, 1], expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_shrunk_as_pil_does(interpolation: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = np.asarray(Image.fromarray(pixels).resize((64, 48), filters[interpolation]))
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    batch, _, _ = Letterbox(64, interpolation=interpolation, **PLAIN)([image])  # type: ignore[arg-type]
    ours = batch[0, :, 8:56].permute(1, 2, 0).numpy() * 255
    assert np.abs(ours - expected).max() < 1.1  # PIL rounds to whole numbers, twice


def test_the_shorter_side() -> None:
    images = [torch.rand(3, 120, 160), torch.rand(3, 60, 300)]
    batch, _, places = ShortSide(60, 100, divisor=32, **PLAIN)(images)
    # 60 x 80; and, since 300 may become 100 only, 20 x 100. Padded to multiples of 32.
    assert batch.shape == (2, 3, 64, 128)
    sizes = [(round(p.height * p.scale_y), round(p.width * p.scale_x)) for p in places]
    assert sizes == [
        (60, 80),
        (20, 100),
    ]
    assert batch[1, :, :20, :100].min() > 0
    assert (batch[1, :, 20:] == 0).all()


def test_exact_multiples_get_no_padding() -> None:
    image = torch.rand(3, 64, 96)
    batch, _, _ = ShortSide(64, 96, divisor=32, **PLAIN)([image])
    assert torch.equal(batch[0], image)


def test_padding_is_zero_after_normalisation() -> None:
    batch, _, _ = ShortSide(60, 100)([torch.rand(3, 60, 90)])
    assert (batch[0, :, 60:] == 0).all()
    assert (batch[0, :, :, 90:] == 0).all()


@pytest.mark.parametrize("resizing", both())
@pytest.mark.parametrize("size", SIZES)
def test_boxes_go_there_and_back(resizing: Letterbox | ShortSide, size: tuple[int, int]) -> None:
    height, width = size
    boxes = torch.tensor([[0.0, 0.0, width, height], [width / 4, height / 3, width / 2, height / 2]])
    batch, targets, (place,) = resizing([torch.rand(3, *size)], [{"boxes": boxes}])
    assert targets is not None
    moved = targets[0]["boxes"]
    assert (moved >= 0).all()
    assert (moved[:, [0, 2]] <= batch.shape[-1]).all()
    assert (moved[:, [1, 3]] <= batch.shape[-2]).all()
    torch.testing.assert_close(place.back(moved), boxes, rtol=1e-5, atol=1e-3)
    wide = place.back(torch.tensor([[-1e4, -1e4, 1e5, 1e5]]))
    assert wide.tolist() == [[0, 0, width, height]]


@pytest.mark.parametrize("resizing", both())
def test_box_and_pixels_stay_together(resizing: Letterbox | ShortSide) -> None:
    image = torch.zeros(3, 97, 211)
    image[:, 30:60, 100:160] = 1
    batch, targets, _ = resizing([image], [{"boxes": torch.tensor([[100.0, 30.0, 160.0, 60.0]])}])
    assert targets is not None
    x0, y0, x1, y1 = targets[0]["boxes"][0].tolist()
    rows, columns = torch.where(batch[0, 0] > 0.75)
    assert abs(rows.min() - y0) < 1
    assert abs(rows.max() + 1 - y1) < 1
    assert abs(columns.min() - x0) < 1
    assert abs(columns.max() + 1 - x1) < 1


def test_one_size_a_batch_in_training_and_one_in_evaluation() -> None:
    letterbox = Letterbox(64, train_sizes=(32, 128))
    images = [torch.rand(3, 50, 40), torch.rand(3, 40, 50)]
    torch.manual_seed(0)
    drawn = [letterbox(images)[0].shape[-1] for _ in range(60)]
    assert set(drawn) == {32, 64, 96, 128}
    torch.manual_seed(0)
    assert [letterbox(images)[0].shape[-1] for _ in range(60)] == drawn
    letterbox.multi_scale = False
    assert {letterbox(images)[0].shape[-1] for _ in range(20)} == {64}
    letterbox.multi_scale = True
    assert {letterbox.eval()(images)[0].shape[-1] for _ in range(20)} == {64}


@pytest.mark.parametrize("resizing", both())
def test_a_tensor_of_images(resizing: Letterbox | ShortSide) -> None:
    images = torch.rand(2, 3, 40, 80)
    assert torch.equal(resizing(images)[0], resizing(list(images))[0])
    shape = resizing(images)[0].shape
    assert resizing.to("meta")(images.to("meta"))[0].shape == shape


def test_no_tensor_is_saved() -> None:
    assert not Letterbox(64).state_dict()
    assert not ShortSide(60, 100).state_dict()


def test_targets_without_boxes_stay() -> None:
    _, targets, _ = Letterbox(64)([torch.rand(3, 9, 9)], [{"image_id": 3}])
    assert targets == [{"image_id": 3}]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Letterbox(100),
        lambda: Letterbox(64, train_sizes=(96, 64)),
        lambda: Letterbox(64, fill=128),
        lambda: Letterbox(64, std=(1.0, 0.0, 1.0)),
        lambda: Letterbox(64, place="left"),  # type: ignore[arg-type]
        lambda: Letterbox(64, interpolation="nearest"),  # type: ignore[arg-type]
        lambda: ShortSide(800, 400),
    ],
)
def test_bad_options(build: object) -> None:
    assert callable(build)
    with pytest.raises(AttnlabError):
        build()
