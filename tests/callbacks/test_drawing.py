"""Class maps as pictures."""

import numpy as np
from PIL import Image

from attnlab.callbacks.drawing import IGNORE_COLOUR, colour_map, overlay, palette_image, panel, with_legend
from attnlab.callbacks.segmentation_pictures import stacked
from attnlab.callbacks.thumbnails import denormalise

PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
NAMES = ["background", "cat", "dog"]


def classes():
    result = np.zeros((20, 30), np.uint8)
    result[5:15, 5:15] = 1
    result[0, :] = 255
    return result


def test_palette_image_keeps_values_and_shows_colours(tmp_path):
    palette_image(classes(), PALETTE).save(tmp_path / "mask.png")
    read = Image.open(tmp_path / "mask.png")
    assert read.mode == "P"
    assert np.array_equal(np.array(read), classes())
    assert np.array_equal(np.array(read.convert("RGB")), colour_map(classes(), PALETTE))
    assert tuple(np.array(read.convert("RGB"))[0, 0]) == IGNORE_COLOUR


def test_overlay_leaves_background_alone_and_mixes_the_rest():
    image = np.full((20, 30, 3), 200, np.uint8)
    mixed = overlay(image, classes(), PALETTE, opacity=0.5)
    assert np.array_equal(mixed[16:, 16:], image[16:, 16:])
    assert tuple(mixed[10, 10]) == (164, 100, 100)
    assert tuple(mixed[5, 10]) == PALETTE[1]  # the outline


def test_legend_makes_room_for_its_names():
    picture = with_legend(np.zeros((10, 40, 3), np.uint8), [0, 1, 2], NAMES, PALETTE)
    assert picture.shape[0] > 10
    assert picture.shape[1] >= 160
    below = picture[10:].reshape(-1, 3).tolist()
    assert list(PALETTE[1]) in below
    assert list(PALETTE[2]) in below
    assert with_legend(np.zeros((10, 200, 3), np.uint8), [], NAMES, PALETTE).shape == (10, 200, 3)


def test_panel_stands_side_by_side():
    image = np.full((20, 30, 3), 7, np.uint8)
    drawn = panel(image, classes(), np.full((20, 30), 2, np.uint8), NAMES, PALETTE)
    assert np.array_equal(drawn[:20, :30], image)
    assert np.array_equal(drawn[:20, 34:64], colour_map(classes(), PALETTE))
    assert tuple(drawn[10, 70]) == PALETTE[2]


def test_stacked_fits_panels_of_any_size():
    sheet = stacked([np.zeros((h, w, 3), np.uint8) for h, w in ((10, 20), (30, 5), (8, 8))])
    assert sheet.shape == (2 * 38, 2 * 28, 3)


def test_denormalise_is_the_inverse_of_normalising():
    import torch

    original = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normal = (original / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(denormalise(normal, mean, std), original)
