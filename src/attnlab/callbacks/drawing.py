"""Class maps as pictures: palette, overlay, legend, panels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Palette = Sequence[Sequence[int]]
Pixels = NDArray[np.uint8]

IGNORE_COLOUR = (224, 224, 192)


def colour_map(classes: Pixels, palette: Palette) -> Pixels:
    """Colours (H, W, 3) of a class map (H, W); a value beyond the palette gets VOC's border colour."""
    table = np.empty((256, 3), np.uint8)
    table[:] = IGNORE_COLOUR
    table[: len(palette)] = np.asarray(palette, np.uint8)
    return table[classes]


def palette_image(classes: Pixels, palette: Palette) -> Image.Image:
    """A palette image whose pixel values are the classes, as Pascal VOC stores its masks."""
    image = Image.fromarray(classes)
    table = np.empty((256, 3), np.uint8)
    table[:] = IGNORE_COLOUR
    table[: len(palette)] = np.asarray(palette, np.uint8)
    image.putpalette(table.tobytes())
    return image


def overlay(image: Pixels, classes: Pixels, palette: Palette, opacity: float = 0.55) -> Pixels:
    """Colours of all classes but 0 (background) laid over an image (H, W, 3), their outlines drawn solid.

    Args:
        image: RGB, uint8 (H, W, 3).
        classes: uint8 (H, W).
        palette: RGB colour of each class.
        opacity: Share of the class's colour, in 0..1.
    """
    colours = colour_map(classes, palette)
    inside = (classes != 0) & (classes < len(palette))
    mixed = image.astype(np.float32)
    mixed[inside] += opacity * (colours[inside].astype(np.float32) - mixed[inside])
    edge = np.zeros_like(inside)
    edge[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    edge[1:, :] |= classes[1:, :] != classes[:-1, :]
    mixed[edge & inside] = colours[edge & inside]
    return mixed.round().astype(np.uint8)


def legend(classes: Sequence[int], names: Sequence[str], palette: Palette, width: int) -> Pixels:
    """A strip (h, width, 3) with the colour and name of each class."""
    font = ImageFont.load_default(size=13)
    row, swatch, gap = 20, 12, 10
    places: list[tuple[int, int, int]] = []
    x, y = gap // 2, 0
    for index in classes:
        length = swatch + 5 + round(font.getlength(names[index])) + gap
        if x > gap // 2 and x + length > width:
            x, y = gap // 2, y + row
        places.append((x, y, index))
        x += length
    strip = Image.new("RGB", (width, y + row), "white")
    draw = ImageDraw.Draw(strip)
    for x, y, index in places:
        colour = tuple(palette[index])
        draw.rectangle((x, y + 4, x + swatch, y + 4 + swatch), fill=colour, outline="black")
        draw.text((x + swatch + 5, y + 2), names[index], fill="black", font=font)
    return np.asarray(strip)


def with_legend(picture: Pixels, shown: Sequence[int], names: Sequence[str], palette: Palette) -> Pixels:
    """A picture (H, W, 3) with a legend of the given classes below it, widened if it is very narrow."""
    width = max(picture.shape[1], 160)
    picture = pad_to(picture, picture.shape[0], width)
    return np.concatenate([picture, legend(shown, names, palette, width)]) if len(shown) else picture


def pad_to(picture: Pixels, height: int, width: int) -> Pixels:
    """The picture on a white sheet (height, width, 3), at its top left."""
    sheet = np.full((height, width, 3), 255, np.uint8)
    sheet[: picture.shape[0], : picture.shape[1]] = picture
    return sheet


def panel(image: Pixels, truth: Pixels, prediction: Pixels, names: Sequence[str], palette: Palette) -> Pixels:
    """Image, truth and prediction side by side, with a legend of the classes in either.

    Args:
        image: RGB, uint8 (H, W, 3).
        truth: Class map, uint8 (H, W); ignored pixels show VOC's border colour.
        prediction: Class map, uint8 (H, W).
        names: Class names.
        palette: RGB colour of each class.
    """
    gap = np.full((image.shape[0], 4, 3), 255, np.uint8)
    row = np.concatenate(
        [image, gap, colour_map(truth, palette), gap, colour_map(prediction, palette)], axis=1
    )
    present = sorted({int(v) for v in np.union1d(truth, prediction)} & set(range(len(names))))
    return with_legend(row, present, names, palette)
