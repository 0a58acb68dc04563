"""Pascal VOC, and other segmentation data in its layout."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from attnlab.data.download import download_voc, how_to_get_voc, refuse_idle_mirror
from attnlab.data.headers import opened
from attnlab.data.names import listed
from attnlab.data.segmentation.base import SegmentationDataModule
from attnlab.data.segmentation.mask_values import MaskCensus, sampled_values
from attnlab.data.segmentation.sets import ImageAndMask
from attnlab.data.voc_xml import read_annotation
from attnlab.data.vocfolder import VOC_CLASSES, VOCFolder, colour_map
from attnlab.errors import AttnlabError

_AUG_LISTS = ("train_aug", "trainaug")
_AUG_MASKS = "SegmentationClassAug"
# The years of VOC 2012's images.
_OFFICIAL_NAMES = {"2007": re.compile(r"\d{6}"), "2012": re.compile(r"20(0[789]|1[012])_\d{6}")}


class VOCSegmentationDataModule(SegmentationDataModule):
    """Pascal VOC 2007 or 2012 segmentation, or data in the same folder layout.

    Images are read as stored, as their masks are; their EXIF orientation is ignored, as by VOC's own tools.
    The check reports images for which this cannot be right.

    Args:
        root: Folder of the data set (with ``JPEGImages``, ``SegmentationClass``, ``ImageSets``), or one that
            contains it as ``VOC<year>`` or ``VOCdevkit/VOC<year>``.
        year: The release.
        class_names: Names of the classes 0, 1, …, including the background. None means Pascal VOC's 21; other
            data is then rejected.
        train_split: Training list. ``train_aug`` is VOC 2012's train images plus those of the Semantic
            Boundaries Dataset: masks in ``SegmentationClassAug``, the list in
            ``ImageSets/Segmentation/train_aug.txt`` or ``trainaug.txt``.
        val_split: A list in ``ImageSets/Segmentation``.
        test_split: A list in ``ImageSets/Segmentation``. VOC 2007 has a ``test``; 2012's test masks are not
            public, so papers usually report ``val``.
        download: Download the official archives into ``root`` if the data set is missing. Interrupted
            downloads are resumed.
        mirror: URL of a folder with the archives, instead of the official host.
        **options: The other options of `SegmentationDataModule`.
    """

    def __init__(
        self,
        root: str = "data",
        year: Literal["2007", "2012"] = "2012",
        class_names: list[str] | None = None,
        train_split: Literal["train", "trainval", "train_aug"] = "train",
        val_split: str = "val",
        test_split: str = "val",
        download: bool = False,
        mirror: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, VOC_CLASSES if class_names is None else class_names, **options)
        self._classes_given = class_names is not None
        if year not in ("2007", "2012"):
            raise AttnlabError(f"data.year is '{year}'; it must be 2007 or 2012.")
        if train_split == "train_aug" and year == "2007":
            raise AttnlabError(
                "data.train_split train_aug exists only for VOC 2012; VOC 2007 has train and trainval."
            )
        refuse_idle_mirror(mirror, download)
        self.year = year
        self.train_split = train_split
        self.val_split = val_split
        self.test_split = test_split
        self.download = download
        self.mirror = mirror

    def fetch(self) -> None:
        """Download the data set if it is missing and ``download`` is set; see `DataModule.fetch`."""
        if not self.download:
            return
        try:
            self._folder()
        except AttnlabError:
            download_voc(self.root, self.year, self.mirror)

    def items(self, split: str) -> list[ImageAndMask]:
        """The files of a split.

        Raises:
            AttnlabError: The data set is not at ``root`` or incomplete, has no such split, or is not VOC's
                and ``class_names`` is None.
        """
        folder = self._folder()
        if split == "train":
            items = self._trained_on(folder)
        else:
            items = images_and_masks(folder, self.val_split if split == "val" else self.test_split)
        if not self._classes_given:
            refuse_ones_own(folder, items, self.year, self.ignore_index)
        return items

    def _folder(self) -> VOCFolder:
        return VOCFolder.find(self.root, self.year, how_to_get_voc(self.year))

    def _trained_on(self, folder: VOCFolder) -> list[ImageAndMask]:
        if self.train_split != "train_aug":
            return images_and_masks(folder, self.train_split)
        lists = [name for name in _AUG_LISTS if folder.list_file(name).is_file()]
        if lists and (folder.folder / _AUG_MASKS).is_dir():
            return images_and_masks(folder, lists[0], _AUG_MASKS)
        raise AttnlabError(
            f"train_aug needs the masks '{folder.folder / _AUG_MASKS}' and the list "
            f"'{folder.list_file(_AUG_LISTS[0])}' (or {_AUG_LISTS[1]}.txt). They come from the Semantic "
            "Boundaries Dataset (http://home.bharathh.info/pubs/codes/SBD/download.html): its masks as "
            "index PNGs, and a list of its train and val images without those in VOC's val.txt. Or use "
            "--data.train_split train."
        )


def images_and_masks(folder: VOCFolder, split: str, masks: str = "SegmentationClass") -> list[ImageAndMask]:
    """The images of a split and their masks, existing or not, in its list's order; see `VOCFolder.names`."""
    return [ImageAndMask(name, folder.image(name), folder.mask(name, masks)) for name in folder.names(split)]


def refuse_ones_own(folder: VOCFolder, items: Sequence[ImageAndMask], year: str, ignore_index: int) -> None:
    """Reject data that is not VOC's if no class names were given.

    VOC's images are named by year and number, its masks have its palette, and its annotations, if any, name
    its classes. Other data may share one of these, but hardly all three.

    Args:
        folder: The data's folder.
        items: Images and masks of one split.
        year: The expected release.
        ignore_index: The mask value of ignored pixels.

    Raises:
        AttnlabError: It is not VOC's. The message lists its masks' values.
    """
    strange = _strange(folder, items, year)
    if strange is None:
        return
    census = MaskCensus(sampled_values([item.mask for item in items], most=64), ignore_index)
    values = sorted(census.total)
    binary = census.binary()
    classes = [value for value in values if value != ignore_index]
    if binary is not None:
        found, number = f"As for its masks, {binary}", 2
    elif classes:
        shown = [f"{value} (ignore)" if value == ignore_index else str(value) for value in values]
        found, number = f"Its masks have the values {listed(shown, 12)}.", max(classes) + 1
    else:
        found, number = "None of its masks could be read.", 2
    example = ",".join([*["background", "name1", "name2", "name3"][:number], *["…"] * (number > 4)])
    raise AttnlabError(
        f"data.class_names is not set, so the classes would be Pascal VOC's {len(VOC_CLASSES)}, but the "
        f"data in '{folder.folder}' is not Pascal VOC's: {strange}. {found} Name the classes 0, 1, … with "
        f"--data.class_names '[{example}]', background first. (For VOC's classes, give "
        f"'[{','.join(VOC_CLASSES)}]'.)"
    )


def _strange(folder: VOCFolder, items: Sequence[ImageAndMask], year: str) -> str | None:
    """Evidence that the data is not VOC's, or None."""
    others = [item.name for item in items if not _OFFICIAL_NAMES[year].fullmatch(item.name)]
    if others:
        return f"its images are named differently, e.g. '{others[0]}'"
    sample = items[:: max(1, len(items) // 8)]
    # The masks that train_aug adds are grey, but are beside VOC's own.
    masks = (folder.folder / "SegmentationClass" / f"{item.name}.png" for item in sample)
    if any(_has_vocs_colours(mask) is False for mask in masks):
        return "its masks do not have VOC's palette"
    for annotation in (folder.annotation(item.name) for item in sample):
        try:
            names = [entry.name for entry in read_annotation(annotation).objects]
        except AttnlabError:  # Not needed for segmentation.
            continue
        if strange := next((name for name in names if name not in VOC_CLASSES), None):
            return f"'{annotation}' names the class '{strange}'"
    return None


def _has_vocs_colours(mask: Path) -> bool | None:
    """Whether a mask's first colours are VOC's; None if it cannot be read."""
    colours = [channel for colour in colour_map(len(VOC_CLASSES)) for channel in colour]
    try:
        with mask.open("rb") as file, opened(file, mask, "mask", math.inf) as picture:
            palette = picture.getpalette() if picture.mode == "P" else None
    except Exception:  # Files that cannot be opened are reported by the file check.
        return None
    return palette is not None and palette[: len(colours)] == colours
