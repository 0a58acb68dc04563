"""Pascal VOC's segmentation data, and data of one's own in its layout; the two are told apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from attnlab.data.download import download_voc, how_to_get_voc, refuse_idle_mirror
from attnlab.data.names import listed
from attnlab.data.segmentation.base import SegmentationDataModule
from attnlab.data.segmentation.mask_values import MaskCensus, sampled_values
from attnlab.data.segmentation.sets import LabelledImage
from attnlab.data.voc_xml import read_annotation
from attnlab.data.vocfolder import VOC_CLASSES, VOCFolder, colour_map
from attnlab.errors import AttnlabError

_AUG_LISTS = ("train_aug", "trainaug")
_AUG_MASKS = "SegmentationClassAug"
# The years in which VOC 2012's pictures were gathered.
_OFFICIAL_NAMES = {"2007": re.compile(r"\d{6}"), "2012": re.compile(r"20(0[789]|1[012])_\d{6}")}


class VOCSegmentationDataModule(SegmentationDataModule):
    """Pascal VOC 2007 or 2012 segmentation, or data in the same folder layout.

    Images are read as stored, whatever their EXIF orientation says: masks are drawn on, and aligned with,
    stored pixels, and VOC's own tools read them so. The check names images for which that cannot be right.

    Args:
        root: The folder that is the data set (with ``JPEGImages``, ``SegmentationClass``, ``ImageSets``), or
            that holds it as ``VOC<year>`` or ``VOCdevkit/VOC<year>``.
        year: The release.
        class_names: Names of the classes 0, 1, …, the background's included. None means Pascal VOC's 21, and
            data that is not VOC's own is then refused.
        train_split: What to train on. ``train_aug`` is VOC 2012's train images and those that the Semantic
            Boundaries Dataset adds: masks in ``SegmentationClassAug``, the list in
            ``ImageSets/Segmentation/train_aug.txt`` or ``trainaug.txt``.
        val_split: A list in ``ImageSets/Segmentation``.
        test_split: A list in ``ImageSets/Segmentation``. VOC 2007 comes with a ``test``; that of 2012 has no
            public masks, so ``val`` is what is usually reported.
        download: Fetch the official archives into ``root`` if the data set is not there. An interrupted
            download goes on where it stopped.
        mirror: Address of a folder with the archives, instead of the official host.
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
                "data.train_split train_aug belongs to VOC 2012; VOC 2007 has train and trainval."
            )
        refuse_idle_mirror(mirror, download)
        self.year = year
        self.train_split = train_split
        self.val_split = val_split
        self.test_split = test_split
        self.download = download
        self.mirror = mirror

    def fetch(self) -> None:
        """Fetch the data set if asked to and it is not there; see `DataModule.fetch`."""
        if not self.download:
            return
        try:
            self._folder()
        except AttnlabError:
            download_voc(self.root, self.year, self.mirror)

    def items(self, split: str) -> list[LabelledImage]:
        """The files of a split.

        Raises:
            AttnlabError: The data set is not at ``root`` or not complete, has no such split, or is not VOC's
                and ``class_names`` is None.
        """
        folder = self._folder()
        if split == "train":
            items = self._trained_on(folder)
        else:
            items = labelled_images(folder, self.val_split if split == "val" else self.test_split)
        if not self._classes_given:
            refuse_ones_own(folder, items, self.year, self.ignore_index)
        return items

    def _folder(self) -> VOCFolder:
        return VOCFolder.find(self.root, self.year, how_to_get_voc(self.year))

    def _trained_on(self, folder: VOCFolder) -> list[LabelledImage]:
        if self.train_split != "train_aug":
            return labelled_images(folder, self.train_split)
        lists = [name for name in _AUG_LISTS if folder.list_file(name).is_file()]
        if lists and (folder.folder / _AUG_MASKS).is_dir():
            return labelled_images(folder, lists[0], _AUG_MASKS)
        raise AttnlabError(
            f"train_aug needs the masks '{folder.folder / _AUG_MASKS}' and the list "
            f"'{folder.list_file(_AUG_LISTS[0])}' (or {_AUG_LISTS[1]}.txt). They are made from the Semantic "
            "Boundaries Dataset (http://home.bharathh.info/pubs/codes/SBD/download.html): its masks as index "
            "PNGs, the names of its train and val images without those in VOC's val.txt as the list. Without "
            "it, use --data.train_split train."
        )


def labelled_images(folder: VOCFolder, split: str, masks: str = "SegmentationClass") -> list[LabelledImage]:
    """The images of a split and their masks, there or not, in its list's order; see `VOCFolder.names`."""
    return [LabelledImage(name, folder.image(name), folder.mask(name, masks)) for name in folder.names(split)]


def refuse_ones_own(folder: VOCFolder, items: Sequence[LabelledImage], year: str, ignore_index: int) -> None:
    """Refuse data for which VOC's classes stand, since none were given, and that is not VOC's.

    VOC's pictures are named by year and number; its masks have its palette; and where there are annotations,
    they name its classes. Other people's data in these folders may share one of these, hardly all three.

    Args:
        folder: Where the data lies.
        items: Its images and masks, those of one split.
        year: The release that it should be.
        ignore_index: The mask value that is no class.

    Raises:
        AttnlabError: It is data of somebody else. The message says what its masks hold.
    """
    strange = _strange(folder, items, year)
    if strange is None:
        return
    census = MaskCensus(sampled_values([item.mask for item in items], most=64), ignore_index)
    values = sorted(census.total)
    binary = census.binary()
    classes = [value for value in values if value != ignore_index]
    if binary is not None:
        found, number = f"As to its masks, {binary}", 2
    elif classes:
        shown = [f"{value} (ignore)" if value == ignore_index else str(value) for value in values]
        found, number = f"Its masks hold the values {listed(shown, 12)}.", max(classes) + 1
    else:
        found, number = "None of its masks could be read.", 2
    example = ",".join([*["background", "name1", "name2", "name3"][:number], *["…"] * (number > 4)])
    raise AttnlabError(
        f"data.class_names is not set, so the classes would be Pascal VOC's {len(VOC_CLASSES)}, but the data "
        f"in '{folder.folder}' is not Pascal VOC's: {strange}. {found} Name the classes 0, 1, … with "
        f"--data.class_names '[{example}]', the background's first. (If VOC's classes are meant, give "
        f"these: '[{','.join(VOC_CLASSES)}]'.)"
    )


def _strange(folder: VOCFolder, items: Sequence[LabelledImage], year: str) -> str | None:
    """What shows that the data is not VOC's; None if nothing does."""
    others = [item.name for item in items if not _OFFICIAL_NAMES[year].fullmatch(item.name)]
    if others:
        return f"its pictures are named otherwise, e.g. '{others[0]}'"
    sample = items[:: max(1, len(items) // 8)]
    # Those that train_aug adds are grey, wherever they come from, but lie beside VOC's own.
    masks = (folder.folder / "SegmentationClass" / f"{item.name}.png" for item in sample)
    if any(_has_vocs_colours(mask) is False for mask in masks):
        return "its masks do not have VOC's palette"
    for annotation in (folder.annotation(item.name) for item in sample):
        try:
            names = [entry.name for entry in read_annotation(annotation).objects]
        except AttnlabError:  # Segmentation needs none.
            continue
        if strange := next((name for name in names if name not in VOC_CLASSES), None):
            return f"'{annotation}' names the class '{strange}'"
    return None


def _has_vocs_colours(mask: Path) -> bool | None:
    """Whether a mask's first colours are VOC's; None if it cannot be read."""
    colours = [channel for colour in colour_map(len(VOC_CLASSES)) for channel in colour]
    try:
        with Image.open(mask) as picture:
            palette = picture.getpalette() if picture.mode == "P" else None
    except Exception:  # What cannot be opened is found, and said, by the check of the files.
        return None
    return palette is not None and palette[: len(colours)] == colours
