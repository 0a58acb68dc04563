"""Class maps over pictures: which colour lies where."""

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.drawing import masks
from attnlab.drawing.figures import WRONG
from attnlab.drawing.masks import (
    IGNORE_COLOUR,
    mask_over,
    mistakes_over,
    overlay_with_legend,
    palette_image,
    segmentation_panel,
)

PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
NAMES = ["background", "cat", "dog"]
GREY = np.full((40, 60, 3), 200, np.uint8)


def classes():
    result = np.zeros((40, 60), np.uint8)
    result[10:30, 10:30] = 1
    result[:4] = 255
    return result


def colours(picture):
    return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


def test_palette_image_keeps_values_and_shows_colours(tmp_path):
    palette_image(classes(), PALETTE).save(tmp_path / "mask.png")
    read = Image.open(tmp_path / "mask.png")
    assert read.mode == "P"
    assert np.array_equal(np.array(read), classes())
    shown = np.array(read.convert("RGB"))
    assert tuple(shown[0, 0]) == IGNORE_COLOUR
    assert tuple(shown[20, 20]) == PALETTE[1]


@pytest.mark.parametrize("opacity", [0.5, 0.55])
def test_a_mask_leaves_background_alone_and_mixes_the_rest(opacity):
    drawn = mask_over(GREY, classes(), PALETTE, opacity)
    assert (drawn[35:, 35:] == 200).all()
    assert drawn[20, 20].tolist() == pytest.approx([200 - 72 * opacity, *[200 * (1 - opacity)] * 2], abs=1)
    assert tuple(drawn[10, 20]) == PALETTE[1]  # the edge
    assert tuple(drawn[9, 20]) == (255, 255, 255)  # and its rim
    assert (GREY == 200).all()


def test_ignored_pixels_are_hatched():
    drawn = mask_over(GREY, classes(), PALETTE)
    ignored = drawn[:4].mean(-1)
    assert ignored.max() > 230
    assert ignored.min() < 120
    assert np.array_equal(mistakes_over(GREY, classes(), classes())[:4].max() > 200, True)


def test_mistakes_alone_are_red():
    guess = classes()
    guess[30:34, 10:30] = 1
    guess[:4] = 2  # not scored
    drawn = mistakes_over(GREY, classes(), guess).astype(int)
    red = drawn[..., 0] - drawn[..., 1] > 80
    assert red[30:34, 10:30].all()
    assert red.sum() == 4 * 20


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (96, 96), (3, 900), (900, 3), (500, 700)])
def test_panels_of_any_picture_are_wide_enough_for_their_text(size):
    truth = torch.randint(0, 3, size, dtype=torch.uint8)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    panel = segmentation_panel(image, truth, truth.numpy(), "n" * 300, NAMES, PALETTE, 320)
    assert 800 <= panel.shape[1] <= 4 * 320 + 60
    assert panel.shape[0] <= 320 + 140
    again = segmentation_panel(image, truth, truth.numpy(), "n" * 300, NAMES, PALETTE, 320)
    assert np.array_equal(panel, again)


def test_a_panel_shows_mistakes_and_a_legend_of_what_is_there():
    guess = np.where(classes() == 1, 2, 0).astype(np.uint8)
    image = torch.from_numpy(GREY).permute(2, 0, 1)
    panel = segmentation_panel(image, classes(), guess, "a", NAMES, PALETTE, 120)
    low = colours(panel[-40:])
    assert {PALETTE[1], PALETTE[2], WRONG} <= low
    right = segmentation_panel(image, classes(), classes(), "a", NAMES, PALETTE, 120)
    assert PALETTE[2] not in colours(right)
    assert not (np.ptp(right[60:-60, 640:].astype(int), axis=-1) > 40).any()


def test_an_image_of_another_size_than_its_mask_is_drawn_like_the_mask():
    image = torch.full((3, 20, 30), 200, dtype=torch.uint8)
    large = torch.full((3, 40, 60), 200, dtype=torch.uint8)
    panels = [segmentation_panel(x, classes(), classes(), "a", NAMES, PALETTE, 120) for x in (image, large)]
    assert np.array_equal(*panels)


def test_many_classes_keep_the_panel_bounded():
    truth = torch.arange(250, dtype=torch.uint8).repeat(4, 1)
    names = [f"a class with the number {k}" for k in range(250)]
    image = torch.zeros(3, 4, 250, dtype=torch.uint8)
    panel = segmentation_panel(image, truth, truth, "a", names, [(k, k, k) for k in range(250)], 320)
    assert panel.shape[0] < 400


def test_predictions_have_a_legend_below():
    drawn = overlay_with_legend(GREY, classes(), NAMES, PALETTE)
    assert drawn.shape[1] == 300  # five times as large
    assert drawn.shape[0] > 200
    assert PALETTE[1] in colours(drawn[202:])
    assert PALETTE[2] not in colours(drawn)
    assert overlay_with_legend(GREY, np.zeros((40, 60), np.uint8), NAMES, PALETTE).shape == (200, 300, 3)


def test_a_class_beyond_the_palette_is_hatched_and_in_no_legend():
    beyond = classes()
    beyond[10:30, 10:30] = 7
    drawn = mask_over(GREY, beyond, PALETTE)
    inside = drawn[10:30, 10:30].mean(-1)
    assert inside.max() > 230
    assert inside.min() < 120
    assert np.array_equal(np.array(palette_image(beyond, PALETTE)), beyond)
    image = torch.from_numpy(GREY).permute(2, 0, 1)
    panel = segmentation_panel(image, classes(), beyond, "a", NAMES, PALETTE, 120)
    assert PALETTE[2] not in colours(panel)
    assert overlay_with_legend(GREY, beyond, NAMES, PALETTE).shape == (200, 300, 3)  # no entry


def test_a_panels_scores_are_those_of_its_picture(monkeypatch):
    seen = []
    monkeypatch.setattr(masks, "panel", lambda name, note, cells, key: seen.append(note))
    guess = classes()
    guess[10:30, 10:30] = 2
    guess[20:30, 20:60] = 2
    truth, known = classes(), classes() != 255
    ious = []
    for k in range(3):
        both = ((truth == k) & (guess == k) & known).sum()
        ious.append(both / (((truth == k) | (guess == k)) & known).sum())
    share = ((truth == guess) & known).sum() / known.sum()
    segmentation_panel(torch.from_numpy(GREY).permute(2, 0, 1), truth, guess, "a", NAMES, PALETTE, 120)
    assert seen == [f"{100 * share:.0f}% of pixels correct, mIoU {100 * np.mean(ious):.0f}%"]


def test_a_picture_of_which_nothing_is_scored_has_no_scores(monkeypatch):
    seen = []
    monkeypatch.setattr(masks, "panel", lambda name, note, cells, key: seen.append(note))
    nothing = np.full((40, 60), 255, np.uint8)
    segmentation_panel(torch.from_numpy(GREY).permute(2, 0, 1), nothing, classes(), "a", NAMES, PALETTE, 120)
    assert seen == ["NaN of pixels correct, mIoU NaN"]
