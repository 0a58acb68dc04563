"""Class maps over pictures, and where they are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.utils import draw_segmentation_masks

from attnlab.drawing.figures import GREY, TITLE, WRONG, text_width, words
from attnlab.drawing.layout import below, beside, framed, legend, margin, swatch
from attnlab.drawing.pixels import Palette, Pixels, as_pixels, as_tensor, drawn_size, percent, resized

# VOC's colour for borders, in the files of masks.
IGNORE_COLOUR = (224, 224, 192)
# Pictures are not narrower on a sheet, so that their titles can be read; small ones are enlarged to this side.
NARROWEST, SMALL = 190, 320


def palette_image(classes: Pixels, palette: Palette) -> Image.Image:
    """A palette image whose pixel values are the classes, as Pascal VOC stores its masks."""
    image = Image.fromarray(classes)
    table = np.empty((256, 3), np.uint8)
    table[:] = IGNORE_COLOUR
    table[: len(palette)] = np.asarray(palette, np.uint8)
    image.putpalette(table.tobytes())
    return image


def mask_over(
    image: Pixels, classes: Pixels, palette: Palette, opacity: float = 0.5, ignore_index: int = 255
) -> Pixels:
    """The colours of all classes but 0 (background) over a picture, with solid edges that have a white rim.

    Args:
        image: RGB, uint8 (H, W, 3).
        classes: uint8 (H, W); pixels to be ignored, and those of no class of the palette, are hatched.
        palette: RGB colour of each class.
        opacity: Share of the class's colour, in 0..1.
        ignore_index: The value of pixels that are not scored.

    Returns:
        A new picture of the same size.
    """
    ignored = (classes == ignore_index) | (classes >= len(palette))
    inside = (classes != 0) & ~ignored
    drawn = _tinted(image, [(classes == k, palette[k]) for k in np.unique(classes[inside])], opacity)
    # A pixel at the edge of its class differs from one of its four neighbours.
    across, down = classes[:, 1:] != classes[:, :-1], classes[1:] != classes[:-1]
    edge = np.zeros(classes.shape, bool)
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    colours = np.asarray(palette, np.uint8)
    drawn[edge & inside] = colours[classes[edge & inside]]
    drawn[edge & (classes == 0)] = 255
    return _hatched(drawn, ignored)


def mistakes_over(image: Pixels, truth: Pixels, prediction: Pixels, ignore_index: int = 255) -> Pixels:
    """The picture in pale grey with its wrong pixels in red, and those that are not scored hatched.

    Args:
        image: RGB, uint8 (H, W, 3).
        truth: Classes, uint8 (H, W).
        prediction: Classes, uint8 (H, W).
        ignore_index: The truth's value for pixels that are not scored.
    """
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    pale = (110 + 0.55 * grey).astype(np.uint8)
    ignored = truth == ignore_index
    return _hatched(_tinted(pale, [((truth != prediction) & ~ignored, WRONG)], 0.85), ignored)


def segmentation_panel(
    image: Tensor,
    truth: Tensor | Pixels,
    prediction: Tensor | Pixels,
    name: str,
    class_names: Sequence[str],
    palette: Palette,
    max_side: int,
    ignore_index: int = 255,
) -> Pixels:
    """Picture, truth, prediction and mistakes side by side, with the picture's scores and a legend.

    Args:
        image: uint8 (3, h, w); it is drawn at the truth's aspect.
        truth: Classes (H, W).
        prediction: Classes (H, W).
        name: The image's name.
        class_names: Names of the classes.
        palette: RGB colour of each class.
        max_side: Longest side of each picture; larger ones are shrunk, small ones enlarged by a whole factor.
        ignore_index: The truth's value for pixels that are not scored.

    Returns:
        RGB, uint8 (H', W', 3).
    """
    maps = [torch.as_tensor(x).to("cpu", torch.uint8) for x in (truth, prediction)]
    right, iou = _scores(maps[0].numpy(), maps[1].numpy(), ignore_index)
    size = drawn_size(maps[0].shape[0], maps[0].shape[1], max_side)
    pixels = as_pixels(resized(image.cpu(), size, "nearest" if size[0] > image.shape[1] else "bilinear"))
    true, guessed = (resized(classes[None], size, "nearest")[0].numpy() for classes in maps)
    wrong = percent(1 - right)
    pictures = {
        "picture": pixels,
        "truth": mask_over(pixels, true, palette, ignore_index=ignore_index),
        "prediction": mask_over(pixels, guessed, palette, ignore_index=ignore_index),
        f"mistakes: {wrong} of pixels": mistakes_over(pixels, true, guessed, ignore_index),
    }
    width = max(size[1], NARROWEST)
    cells = [below([words(title, width=width), framed(p, size[0], width)], 2) for title, p in pictures.items()]
    row = beside(cells, 8)
    entries = _entries(np.concatenate([true, guessed]), class_names, palette)
    entries.append((swatch(WRONG), "wrong"))
    if (true == ignore_index).any():
        hatched = _hatched(np.full((13, 13, 3), 128, np.uint8), np.ones((13, 13), bool))
        entries.append((hatched, "not scored"))
    scores = f"{percent(right)} of pixels right, mIoU {percent(iou)}"
    room = row.shape[1] - text_width(scores, TITLE) - 16
    head = beside([words(name, TITLE, width=room, middle=True, bold=True), words(scores, TITLE, GREY)], 16)
    return margin(below([head, row, legend(entries, row.shape[1])], 6), 8)


def overlay_with_legend(
    image: Pixels, classes: Pixels, class_names: Sequence[str], palette: Palette
) -> Pixels:
    """A prediction over its picture, with a legend of its classes below.

    Args:
        image: RGB, uint8 (H, W, 3); small ones are enlarged by a whole factor.
        classes: uint8 (H, W).
        class_names: Names of the classes.
        palette: RGB colour of each class.
    """
    times = max(1, SMALL // max(classes.shape))
    image, classes = (x.repeat(times, 0).repeat(times, 1) for x in (image, classes))
    width = max(image.shape[1], NARROWEST)
    drawn = framed(mask_over(image, classes, palette), image.shape[0], width)
    entries = _entries(classes, class_names, palette)
    return below([drawn, legend(entries, width)], 6) if entries else drawn


def _tinted(
    image: Pixels, masks: Sequence[tuple[NDArray[np.bool_], Sequence[int]]], opacity: float
) -> Pixels:
    """A new picture with colours laid over the pixels of masks (H, W)."""
    masks = [(mask, colour) for mask, colour in masks if mask.any()]
    if not masks:
        return image.copy()
    where = np.stack([mask for mask, _ in masks])
    colours = [tuple(int(value) for value in colour) for _, colour in masks]
    drawn = draw_segmentation_masks(as_tensor(image), torch.from_numpy(where), opacity, colours)
    # torchvision rounds down, which would darken the rest.
    return np.where(where.any(0)[..., None], as_pixels(drawn), image)


def _hatched(image: Pixels, where: NDArray[np.bool_]) -> Pixels:
    """The picture, whitened and hatched where a mask (H, W) is set; changed in place."""
    rows, columns = np.nonzero(where)
    shade = np.where((rows + columns) % 5 < 1.5, 90, 250)[:, None]
    image[rows, columns] = (0.25 * image[rows, columns] + 0.75 * shade).astype(np.uint8)
    return image


def _entries(
    classes: Pixels, names: Sequence[str], palette: Palette
) -> list[tuple[Pixels, str]]:
    """Legend entries of the classes shown, those of the largest area first; the background is clear."""
    areas = np.bincount(classes.ravel(), minlength=256)[: len(names)]
    areas[0] = 0
    shown = [k for k in np.argsort(-areas, kind="stable") if areas[k]]
    return [(swatch(palette[k]), names[k]) for k in shown]


def _scores(truth: Pixels, prediction: Pixels, ignore_index: int) -> tuple[float, float]:
    """Shares of right pixels and the mean IoU over the classes in either map; NaN where none is scored."""
    known = truth != ignore_index
    true, guessed = truth[known].astype(np.int64), prediction[known]
    pairs = np.bincount(256 * true + guessed, minlength=256 * 256).reshape(256, 256)
    both, either = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    shown = either > 0
    if not shown.any():
        return float("nan"), float("nan")
    return float(both.sum() / known.sum()), float((both[shown] / either[shown]).mean())
