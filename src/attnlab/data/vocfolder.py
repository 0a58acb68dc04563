"""Pascal VOC's folder layout: where images, masks, boxes and split lists lie."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from attnlab.data.images import IMAGE_SUFFIXES
from attnlab.data.segmentation_sets import LabelledImage
from attnlab.errors import AttnlabError

NEEDED_FOLDERS = {
    "Segmentation": ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
    "Main": ("JPEGImages", "Annotations", "ImageSets/Main"),
}
"""What there must be, by the folder of the lists: those of segmentation, or of detection."""


def colour_map(num_classes: int) -> list[list[int]]:
    """Pascal VOC's colours: the bits of the index, dealt out to red, green and blue from the top bit down.

    Args:
        num_classes: Number of colours, at most 256.

    Returns:
        RGB values, 0..255, a class each.
    """
    colours = []
    for index in range(num_classes):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours.append(channels)
    return colours


class VOCFolder:
    """A folder in Pascal VOC's layout.

    Args:
        folder: The folder that holds ``JPEGImages``, ``ImageSets`` and the masks or annotations.
        lists: The folder in ``ImageSets`` with the split lists.
    """

    def __init__(self, folder: Path, lists: str = "Segmentation") -> None:
        self.folder = folder
        self.lists = lists

    @classmethod
    def find(
        cls, root: str, year: str, how_to_get: str, lists: str = "Segmentation", itself: bool = True
    ) -> VOCFolder:
        """The layout's folder in a root that is it, or holds ``VOC<year>``, or ``VOCdevkit/VOC<year>``.

        Args:
            root: Where to look.
            year: The release that is looked for.
            how_to_get: The last sentence of the error, for when it is not there.
            lists: The folder in ``ImageSets`` with the split lists: ``"Segmentation"``, or ``"Main"`` for
                detection.
            itself: Whether the root may be the folder itself.

        Raises:
            AttnlabError: There is none, or only part of one, or that of another year.
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
            raise AttnlabError(f"'{folder}' is not complete: {', '.join(missing)} is not there. {how_to_get}")
        other = re.fullmatch(r"VOC(\d{4})", folder.resolve().name)
        if other and other[1] != year:
            raise AttnlabError(
                f"'{folder}' is VOC {other[1]}, but data.year is {year}. Set --data.year {other[1]}."
            )
        return cls(folder, lists)

    def list_file(self, split: str) -> Path:
        """Where the list of a split is, or would be."""
        return self.folder / "ImageSets" / self.lists / f"{split}.txt"

    def items(self, split: str, masks: str = "SegmentationClass") -> list[LabelledImage]:
        """The images of a split and their masks, in the order of its list.

        Whether their files are there is not looked at.

        Args:
            split: A list's name, without ``.txt``.
            masks: The folder with the masks.

        Raises:
            AttnlabError: There is no such list, it is empty, or names an image twice.
        """
        names = self.names(split)
        return [LabelledImage(name, self.image(name), self.folder / masks / f"{name}.png") for name in names]

    def names(self, split: str) -> list[str]:
        """The names of a split's images, in the order of its list.

        Args:
            split: A list's name, without ``.txt``.

        Raises:
            AttnlabError: There is no such list, it is empty, or names an image twice.
        """
        path = self.list_file(split)
        if not path.is_file():
            known = sorted(file.stem for file in path.parent.glob("*.txt"))
            raise AttnlabError(
                f"No split '{split}': '{path}' is not there. Known: {', '.join(known) or 'none'}."
            )
        names = [_name(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
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
        """An image's file: VOC's own ``.jpg``, or, in data made after VOC's model, any that is there."""
        usual = self.folder / "JPEGImages" / f"{name}.jpg"
        if usual.is_file():
            return usual
        others = (usual.with_name(name + suffix) for suffix in IMAGE_SUFFIXES)
        return next((path for path in others if path.is_file()), usual)


def _name(line: str) -> str:
    """The image's name in a line that holds it alone, or a path of it first (as lists of other tools do)."""
    path = Path(line.split()[0])
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
