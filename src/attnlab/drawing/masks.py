"""Class maps over images, and their mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.utils import draw_segmentation_masks

from attnlab.drawing.figures import GREY, WRONG, words
from attnlab.drawing.layout import NARROWEST, framed, legend, margin, panel, stacked, swatch
from attnlab.drawing.pixels import Palette, Pixels, as_pixels, drawn_to, percent, resized

# VOC's colour for borders, in the files of masks.
IGNORE_COLOUR = (224, 224, 192)
# Overlays of smaller images are enlarged up to this side.
SMALL = 320
Mask = NDArray[np.bool_]


def palette_image(classes: Pixels, palette: Palette) -> Image.Image:
    """A palette image of classes, uint8 (H, W), as in Pascal VOC's masks."""
    image = Image.fromarray(classes)
    table = np.full((256, 3), IGNORE_COLOUR, np.uint8)
    table[: len(palette)] = palette
    image.putpalette(table.tobytes())
    return image


def mask_over(
    image: Pixels, classes: Pixels, palette: Palette, opacity: float = 0.5, ignore_index: int = 255
) -> Pixels:
    """The colours of all classes but 0 (background) over an image, with solid edges and a white rim.

    Image (H, W, 3) and classes (H, W) are uint8; the opacity, in 0..1, is the share of the class's colour.
    Pixels of ``ignore_index`` or without a class in the palette are hatched.
    """
    ignored = (classes == ignore_index) | (classes >= len(palette))
    inside = (classes != 0) & ~ignored
    drawn = _tinted(image, {int(k): classes == k for k in np.unique(classes[inside])}, palette, opacity)
    # At an edge, a pixel differs from one of its neighbours.
    around = np.pad(classes, 1, "edge")
    shifted = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    edge = np.any([classes != other for other in shifted], 0)
    drawn[edge & inside] = np.asarray(palette, np.uint8)[classes[edge & inside]]
    drawn[edge & (classes == 0)] = 255
    return _hatched(drawn, ignored)


def mistakes_over(image: Pixels, truth: Pixels, prediction: Pixels, ignore_index: int = 255) -> Pixels:
    """The image in pale grey; red where truth and prediction (H, W) differ, hatched where ignored."""
    pale = (110 + 0.55 * np.asarray(Image.fromarray(image).convert("L").convert("RGB"))).astype(np.uint8)
    ignored = truth == ignore_index
    return _hatched(_tinted(pale, {0: (truth != prediction) & ~ignored}, [WRONG], 0.85), ignored)


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
    """Image, truth, prediction and mistakes side by side, with the image's scores and a legend.

    The image is uint8 (3, h, w), truth and prediction are classes (H, W), with the image's aspect ratio:
    larger images are shrunk to a longest side of ``max_side`` pixels, small ones enlarged by an integer
    factor. Pixels whose truth is ``ignore_index`` are hatched and not scored.
    """
    maps = [torch.as_tensor(x).to("cpu", torch.uint8) for x in (truth, prediction)]
    right, iou = _scores(maps[0].numpy(), maps[1].numpy(), ignore_index)
    pixels = drawn_to(image, (maps[0].shape[0], maps[0].shape[1]), max_side)
    size = (pixels.shape[0], pixels.shape[1])
    true, guessed = (resized(classes[None], size, "nearest")[0].numpy() for classes in maps)
    pictures = {
        "picture": pixels,
        "truth": mask_over(pixels, true, palette, ignore_index=ignore_index),
        "prediction": mask_over(pixels, guessed, palette, ignore_index=ignore_index),
        f"mistakes: {percent(1 - right)} of pixels": mistakes_over(pixels, true, guessed, ignore_index),
    }
    key = [(swatch(WRONG), "wrong")]
    if (true == ignore_index).any():
        key.append((_hatched(swatch(GREY), np.ones((13, 13), bool)), "not scored"))
    key += _entries(np.concatenate([true, guessed]), class_names, palette)
    scores = f"{percent(right)} of pixels correct, mIoU {percent(iou)}"
    return panel(name, scores, [(words(what), picture) for what, picture in pictures.items()], key)


def overlay_with_legend(
    image: Pixels, classes: Pixels, class_names: Sequence[str], palette: Palette
) -> Pixels:
    """Classes uint8 (H, W) over their image (H, W, 3), both enlarged if small, with a legend below."""
    times = max(1, SMALL // max(classes.shape))
    image, classes = (x.repeat(times, 0).repeat(times, 1) for x in (image, classes))
    width = max(image.shape[1], NARROWEST)
    drawn = framed(mask_over(image, classes, palette), image.shape[0], width)
    entries = _entries(classes, class_names, palette)
    return stacked([drawn, margin(legend(entries, width - 12), 6)], 0) if entries else drawn


def _tinted(image: Pixels, masks: dict[int, Mask], palette: Palette, opacity: float) -> Pixels:
    """A new image with the classes' colours over their masks (H, W)."""
    if not masks:
        return image.copy()
    where = torch.from_numpy(np.stack(list(masks.values())))
    colours = [tuple(int(value) for value in palette[k]) for k in masks]
    drawn = as_pixels(draw_segmentation_masks(torch.tensor(image).permute(2, 0, 1), where, opacity, colours))
    # torchvision rounds down, which would darken the rest.
    return np.where(where.any(0).numpy()[..., None], drawn, image)


def _hatched(image: Pixels, where: Mask) -> Pixels:
    """The image, whitened and hatched where a mask (H, W) is set; changed in place."""
    rows, columns = np.nonzero(where)
    shade = np.where((rows + columns) % 5 < 2, 80, 250)[:, None]
    image[rows, columns] = (0.25 * image[rows, columns] + 0.75 * shade).astype(np.uint8)
    return image


def _entries(classes: Pixels, names: Sequence[str], palette: Palette) -> list[tuple[Pixels, str]]:
    """Legend entries of the classes shown, by descending area, without background."""
    areas = np.bincount(classes.ravel(), minlength=256)[: len(names)]
    return [(swatch(palette[k]), names[k]) for k in np.argsort(-areas, kind="stable") if k and areas[k]]


def _scores(truth: Pixels, prediction: Pixels, ignore_index: int) -> tuple[float, float]:
    """Pixel accuracy, and the mean IoU of the classes in either map; NaN if no pixel is scored."""
    known = truth != ignore_index
    pairs = np.ravel_multi_index((truth[known], prediction[known]), (256, 256))
    table = np.bincount(pairs, minlength=256 * 256).reshape(256, 256)
    both, either = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    if not known.any():
        return float("nan"), float("nan")
    return float(both.sum() / table.sum()), float((both[either > 0] / either[either > 0]).mean())
