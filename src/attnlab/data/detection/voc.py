"""Pascal VOC, and other detection data in its layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from attnlab.data.detection.base import DetectionDataModule
from attnlab.data.detection.items import DetectionItems, ImageAndBoxes
from attnlab.data.download import download_voc, how_to_get_voc, refuse_idle_mirror
from attnlab.data.names import check_names, listed
from attnlab.data.voc_xml import VOCAnnotation, read_annotation
from attnlab.data.vocfolder import VOC_CLASSES, VOCFolder
from attnlab.errors import AttnlabError, unknown

_SPLITS = {"2007": ("trainval", "test"), "2012": ("train", "val"), "2007+2012": ("trainval", "test")}
"""Training and validation lists by the option ``year``."""


class VOCDetectionDataModule(DetectionDataModule):
    """Pascal VOC 2007, 2012 or both for detection, or data in the same folder layout.

    Difficult objects are not trained on and are marked in evaluation. Parts of objects (heads, hands, feet)
    are ignored. Images are read as stored, as their boxes are; their EXIF orientation is ignored.

    Args:
        root: Folder of the data set (with ``JPEGImages``, ``Annotations``, ``ImageSets``), or one that
            contains it as ``VOC<year>`` or ``VOCdevkit/VOC<year>``; for two years, the folder that contains
            both.
        year: The release. ``2007+2012`` trains on both and validates and tests on 2007, as in papers.
        class_names: For your own data: names of the classes 0, 1, …, without background. None means Pascal
            VOC's 20.
        train_split: A list in ``ImageSets/Main``; None means ``trainval``, or ``train`` for 2012 alone.
        val_split: A list in ``ImageSets/Main``; None means ``test``, or ``val`` for 2012 alone, whose test
            boxes are not public.
        test_split: A list in ``ImageSets/Main``; None means ``val_split``.
        download: Download the official archives into ``root`` if the data set is missing. Interrupted
            downloads are resumed.
        mirror: URL of a folder with the archives, instead of the official host.
        **options: The other options of `DetectionDataModule`.
    """

    def __init__(
        self,
        root: str = "data",
        year: Literal["2007", "2012", "2007+2012"] = "2012",
        class_names: list[str] | None = None,
        train_split: str | None = None,
        val_split: str | None = None,
        test_split: str | None = None,
        download: bool = False,
        mirror: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if year not in _SPLITS:
            raise AttnlabError(f"data.year is '{year}'; it must be one of {', '.join(_SPLITS)}.")
        refuse_idle_mirror(mirror, download)
        self.names = VOC_CLASSES[1:] if class_names is None else list(class_names)
        check_names(self.names, "data.class_names")
        self._classes_given = class_names is not None
        self.year = year
        train, val = _SPLITS[year]
        val = val_split or val
        self.splits = {"train": train_split or train, "val": val, "test": test_split or val}
        self.download = download
        self.mirror = mirror

    def categories(self) -> dict[int, str]:
        """The classes, numbered from 1."""
        return dict(enumerate(self.names, start=1))

    def fetch(self) -> None:
        """Download missing releases, if asked to."""
        for year in self.year.split("+") if self.download else ():
            try:
                self._folder(year)
            except AttnlabError:
                download_voc(self.root, year, self.mirror)

    def items(self, split: str) -> DetectionItems:
        """The images of a split.

        Raises:
            AttnlabError: The data set is not at ``root`` or incomplete, has no such split, or an object's
                class is unknown.
        """
        return read_items(self._files(split), self.names, "data.class_names", self._classes_given)

    def _files(self, split: str) -> list[VOCFiles]:
        years = self.year.split("+")
        folders = [self._folder(year) for year in (years if split == "train" else years[:1])]
        return [files for folder in folders for files in files_of(folder, self.splits[split])]

    def _folder(self, year: str) -> VOCFolder:
        how = how_to_get_voc(self.year)
        if self.year != year:
            how = f"For data.year {self.year}, the root must contain both VOC2007 and VOC2012. {how}"
        return VOCFolder.find(self.root, year, how, lists="Main", itself=self.year == year)


class VOCFiles(NamedTuple):
    """An image and its XML annotation; ``name`` is used in messages."""

    name: str
    image: Path
    annotation: Path


def files_of(folder: VOCFolder, split: str) -> list[VOCFiles]:
    """The images and annotations of a split, in the order of its list; see `VOCFolder.names`."""
    return [VOCFiles(name, folder.image(name), folder.annotation(name)) for name in folder.names(split)]


def read_items(
    files: Sequence[VOCFiles], class_names: Sequence[str], option: str, given: bool = True
) -> DetectionItems:
    """The images of a split with their annotated objects.

    An annotation that cannot be read becomes one of the items' ``problems``.

    Args:
        files: In the split's order.
        class_names: Names of the classes 0, 1, ….
        option: The option that the names come from, for the error.
        given: Whether the user gave them; else they are Pascal VOC's.

    Raises:
        AttnlabError: Objects have unknown classes; all classes found are listed.
    """
    annotations: list[VOCAnnotation] = []
    problems: dict[int, str] = {}
    for position, item in enumerate(files):
        try:
            annotations.append(read_annotation(item.annotation))
        except AttnlabError as error:
            problems[position] = str(error)
            annotations.append(VOCAnnotation((1, 1), []))
    labels = {name: label for label, name in enumerate(class_names)}
    for item, annotation in zip(files, annotations, strict=True):
        for entry in annotation.objects:
            if entry.name not in labels:
                found = Counter(entry.name for annotation in annotations for entry in annotation.objects)
                raise _unknown_class(entry.name, item.annotation, found, class_names, option, given)
    images = [
        ImageAndBoxes(
            name=item.name,
            path=item.image,
            image_id=position,
            size=annotation.size,
            boxes=[entry.box for entry in annotation.objects],
            labels=[labels[entry.name] for entry in annotation.objects],
            difficult=[entry.difficult for entry in annotation.objects],
        )
        for position, (item, annotation) in enumerate(zip(files, annotations, strict=True))
    ]
    return DetectionItems.of(images, problems)


def _unknown_class(
    name: str, annotation: Path, found: Counter[str], class_names: Sequence[str], option: str, given: bool
) -> AttnlabError:
    """The error for an object of an unknown class."""
    counts = listed([f"{key} ({count})" for key, count in found.most_common()], 30)
    if given:
        hint = f"It is in '{annotation}'. Add it to {option}, or remove the object."
        return unknown("class", name, class_names, f"{hint} The annotations contain: {counts}.")
    return AttnlabError(
        f"{option} is not set, so the classes would be Pascal VOC's {len(class_names)}, but the annotations "
        f"contain others, e.g. '{name}' in '{annotation}'. They contain: {counts}. Set the classes with "
        f"--{option} '[{','.join(sorted(found)[:30])}]'."
    )
