"""Pascal VOC's folder layout: images, masks, boxes and split lists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from attnlab.data.folders import listing
from attnlab.data.images import IMAGE_SUFFIXES
from attnlab.data.names import listed, split_called
from attnlab.data.text_files import read_lines
from attnlab.errors import AttnlabError

VOC_CLASSES = ["background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"]
VOC_CLASSES += ["cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"]
VOC_CLASSES += ["train", "tvmonitor"]
"""The classes of Pascal VOC; detection has no background."""

NEEDED_FOLDERS = {
    "Segmentation": ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
    "Main": ("JPEGImages", "Annotations", "ImageSets/Main"),
}
"""Required folders, by the folder of the lists: for segmentation or detection."""


def colour_map(num_classes: int) -> list[list[int]]:
    """Pascal VOC's colours, RGB in 0..255, of at most 256 classes.

    They are the bits of the index, distributed over red, green and blue from the top bit down.
    """
    return [
        [sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3)]
        for index in range(num_classes)
    ]


class VOCFolder:
    """A folder in Pascal VOC's layout.

    Args:
        folder: The folder with ``JPEGImages``, ``ImageSets`` and the masks or annotations.
        lists: The folder in ``ImageSets`` with the split lists: ``"Segmentation"``, or ``"Main"`` for
            detection.
    """

    def __init__(self, folder: Path, lists: str = "Segmentation") -> None:
        self.folder = folder
        self.lists = lists
        self._listed: dict[str, dict[str, Path]] = {}

    @classmethod
    def find(
        cls, root: str, year: str, how_to_get: str, lists: str = "Segmentation", itself: bool = True
    ) -> VOCFolder:
        """The folder of the layout: the root, or ``VOC<year>`` or ``VOCdevkit/VOC<year>`` in it.

        Args:
            root: Where to look.
            year: The release to look for.
            how_to_get: The last sentence of the error if it is missing.
            lists: As for the class.
            itself: Whether the root may be the folder itself.

        Raises:
            AttnlabError: It is missing, incomplete, or of another year.
        """
        top = Path(root)
        needed = NEEDED_FOLDERS[lists]
        candidates = [top / "VOCdevkit" / f"VOC{year}", top / f"VOC{year}", *([top] if itself else [])]
        started = [folder for folder in candidates if any((folder / part).is_dir() for part in needed)]
        if not started:
            raise AttnlabError(
                f"No Pascal VOC {year} in '{root}'. Looked for {', '.join(needed)} in "
                f"{', '.join(str(folder) for folder in candidates)}. {how_to_get}"
            )
        folder = started[0]
        missing = [part for part in needed if not (folder / part).is_dir()]
        if missing:
            raise AttnlabError(f"'{folder}' is incomplete: {', '.join(missing)} is missing. {how_to_get}")
        other = re.fullmatch(r"VOC(\d{4})", folder.resolve().name)
        if other and other[1] != year:
            raise AttnlabError(
                f"'{folder}' is VOC {other[1]}, but data.year is {year}. Set --data.year {other[1]}."
            )
        return cls(folder, lists)

    def list_file(self, split: str) -> Path:
        """The file of a split's list, existing or not; ``valid.txt`` for ``val`` is found, too.

        Raises:
            AttnlabError: It is ambiguous.
        """
        usual = self.folder / "ImageSets" / self.lists / f"{split}.txt"
        if usual.is_file():
            return usual
        there = self._there(f"ImageSets/{self.lists}", (".txt",))
        found = split_called(split, there)
        if len(found) > 1:
            raise AttnlabError(
                f"No split '{split}': '{usual}' does not exist, but {listed(found)} may be meant. Choose "
                "the list with --data.val_split or --data.test_split, or rename it."
            )
        return there[found[0]] if found else usual

    def names(self, split: str) -> list[str]:
        """The names of a split's images, in the list's order; a split is a list's name without ``.txt``.

        Raises:
            AttnlabError: The list does not exist, has an unknown encoding, is empty, or names an image twice.
        """
        path = self.list_file(split)
        if not path.is_file():
            known = ", ".join(sorted(self._there(f"ImageSets/{self.lists}", (".txt",)))) or "none"
            raise AttnlabError(f"No split '{split}': '{path}' does not exist. Known: {known}.")
        names = self._names(read_lines(path))
        if not names:
            raise AttnlabError(f"The split list '{path}' is empty.")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise AttnlabError(
                f"The split list '{path}' names {len(twice)} images more than once, e.g. "
                f"{', '.join(twice[:3])}. Each would count twice in the metrics."
            )
        return names

    def image(self, name: str) -> Path:
        """An image's file: VOC's ``.jpg``, or another format that exists."""
        return self._file("JPEGImages", name, IMAGE_SUFFIXES)

    def mask(self, name: str, folder: str = "SegmentationClass") -> Path:
        """The file of an image's mask, in one of the mask folders."""
        return self._file(folder, name, (".png",))

    def annotation(self, name: str) -> Path:
        """The file of an image's boxes."""
        return self._file("Annotations", name, (".xml",))

    def _file(self, folder: str, name: str, suffixes: tuple[str, ...]) -> Path:
        """The file of a name or, if there is none, the usual one."""
        usual = self.folder / folder / f"{name}{suffixes[0]}"
        return self._there(folder, suffixes).get(name, usual)

    def _there(self, folder: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
        """The files with these suffixes, in any case, by name without suffix; of several, the usual one."""
        if folder not in self._listed:
            place = self.folder / folder
            files = [place / name for name in listing(place)[0] if name.lower().endswith(suffixes)]
            files.sort(key=lambda path: (-suffixes.index(path.suffix.lower()), path.suffix.islower()))
            self._listed[folder] = {path.stem: path for path in files}
        return self._listed[folder]

    def _names(self, lines: list[str]) -> list[str]:
        """The images in a list's lines.

        A line is a name, possibly with spaces; the paths of an image and its mask; or, in VOC's per-class
        lists, a name and 1, 0 or -1. As "photo 1" is ambiguous, a list is per class if all lines end so and
        none, as a whole, is an image.
        """
        images = self._there("JPEGImages", IMAGE_SUFFIXES)
        flagged = [_FLAGGED.fullmatch(line) for line in lines]
        if all(flagged) and not any(_bare_name(line) in images for line in lines):
            return [_bare_name(match[1]) for match in flagged if match]
        names = []
        for line in lines:
            paths = None if _bare_name(line) in images else _TWO_PATHS.fullmatch(line)
            names.append(_bare_name(paths[paths.lastgroup or 0] if paths else line))
        return names


def _bare_name(name: str) -> str:
    """A name without folders and image suffix."""
    path = Path(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


_SUFFIX = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
# An image's path and another, e.g. "/JPEGImages/my dog.jpg /Masks/my dog.png", or separated by a tab.
_TWO_PATHS = re.compile(
    rf"(?:(?P<file>.+?(?:{_SUFFIX}))\s+\S.*(?:{_SUFFIX})|(?P<path>\S*/\S*)\s+\S*/\S*|(?P<field>[^\t]+)\t.+)",
    re.IGNORECASE,
)
_FLAGGED = re.compile(r"(.+?)\s+(?:-1|0|1)")
