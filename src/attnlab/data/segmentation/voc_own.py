"""Telling Pascal VOC's own pictures and masks from data of one's own in the same folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from attnlab.data.names import listed
from attnlab.data.segmentation.mask_values import binary_masks, sampled_values
from attnlab.data.segmentation.sets import LabelledImage
from attnlab.data.voc_xml import read_annotation
from attnlab.data.vocfolder import VOCFolder, colour_map
from attnlab.errors import AttnlabError

# The years in which VOC 2012's pictures were gathered.
_OFFICIAL_NAMES = {"2007": re.compile(r"\d{6}"), "2012": re.compile(r"20(0[789]|1[012])_\d{6}")}
_SAMPLE = 8
_VALUES_SAMPLE = 64


def refuse_ones_own(
    folder: VOCFolder,
    items: Sequence[LabelledImage],
    year: str,
    class_names: Sequence[str],
    ignore_index: int,
) -> None:
    """Refuse data for which VOC's classes stand, since none were given, and that is not VOC's.

    VOC's pictures are named by year and number; its masks have its palette; and where there are annotations,
    they name its classes. Other people's data in these folders may share one of these, hardly all three.

    Args:
        folder: Where the data lies.
        items: Its images and masks, those of one split.
        year: The release that it should be.
        class_names: VOC's own names, the background's first.
        ignore_index: The mask value that is no class.

    Raises:
        AttnlabError: It is data of somebody else. The message says what its masks hold.
    """
    strange = _strange(folder, items, year, class_names)
    if strange is None:
        return
    masks = sampled_values([item.mask for item in items], most=_VALUES_SAMPLE)
    values = sorted({value for mask in masks for value in mask})
    binary = binary_masks(masks, ignore_index)
    classes = [value for value in values if value != ignore_index]
    if binary is not None:
        found, number = f"As to its masks, {binary}", 2
    elif classes:
        shown = [f"{value} (ignore)" if value == ignore_index else str(value) for value in values]
        found, number = f"Its masks hold the values {listed(shown, 12)}.", max(classes) + 1
    else:
        found, number = "None of its masks could be read.", 2
    example = ["background", *(f"name{k}" for k in range(1, number))]
    shown_names = ",".join([*example[:4], *(["…"] if number > 4 else [])])
    raise AttnlabError(
        f"data.class_names is not set, so the classes would be Pascal VOC's {len(class_names)}, but the data "
        f"in '{folder.folder}' is not Pascal VOC's: {strange}. {found} Name the classes 0, 1, … with "
        f"--data.class_names '[{shown_names}]', the background's first. (If VOC's classes are meant, give "
        f"these: '[{','.join(class_names)}]'.)"
    )


def _strange(
    folder: VOCFolder, items: Sequence[LabelledImage], year: str, class_names: Sequence[str]
) -> str | None:
    """What shows that the data is not VOC's; None if nothing does."""
    others = [item.name for item in items if not _OFFICIAL_NAMES[year].fullmatch(item.name)]
    if others:
        return f"its pictures are named otherwise, e.g. '{others[0]}'"
    sample = items[:: max(1, len(items) // _SAMPLE)]
    # Those that train_aug adds are grey, wherever they come from, but lie beside VOC's own.
    masks = [folder.folder / "SegmentationClass" / f"{item.name}.png" for item in sample]
    coloured = [found for mask in masks if mask.is_file() and (found := _has_vocs_colours(mask)) is not None]
    if coloured and not all(coloured):
        return "its masks do not have VOC's palette"
    for item in sample:
        annotation = folder.annotation(item.name)
        if annotation.is_file() and (name := _other_class(annotation, class_names)) is not None:
            return f"'{annotation}' names the class '{name}'"
    return None


def _has_vocs_colours(mask: Path) -> bool | None:
    """Whether a mask's first colours are VOC's; None if it cannot be read."""
    colours = [channel for colour in colour_map(21) for channel in colour]
    try:
        with Image.open(mask) as picture:
            palette = picture.getpalette() if picture.mode == "P" else None
    except Exception:  # What cannot be opened is found, and said, by the check of the files.
        return None
    return palette is not None and palette[: len(colours)] == colours


def _other_class(annotation: Path, class_names: Sequence[str]) -> str | None:
    """A class that an annotation names and VOC does not have."""
    try:
        names = [entry.name for entry in read_annotation(annotation).objects]
    except AttnlabError:
        return None
    return next((name for name in names if name not in class_names), None)
