"""Data sets with one folder per class, as in ImageNet."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from attnlab.data.classification.base import ClassificationDataModule
from attnlab.data.classification.sets import ImageAndLabel
from attnlab.data.folders import files_below, is_picture, listing
from attnlab.data.images import IMAGE_SUFFIXES
from attnlab.data.names import SPLIT_NAMES, differences, listed, split_called
from attnlab.errors import AttnlabError

_WORDNET_ID = re.compile(r"n\d{8}")


class ImageFolderDataModule(ClassificationDataModule):
    """Classification data with one folder per class: ``root/train/<class>/…`` and ``root/val/<class>/…``.

    Class folders are searched recursively; files of other kinds and hidden folders are ignored. The classes
    are the folders of the training split in order of name, or those of the validation split if there is no
    training data. Folders named by a WordNet id, as in ImageNet, are displayed by their first word.

    Args:
        root: The folder that contains the splits' folders.
        train_folder: Folder of the training split in ``root``.
        val_folder: Folder of the validation split in ``root``.
        test_folder: Folder of the test split in ``root``; None means the validation split.
        **options: The other options of `ClassificationDataModule`.
    """

    def __init__(
        self,
        root: str,
        train_folder: str = "train",
        val_folder: str = "val",
        test_folder: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.folders = {"train": train_folder, "val": val_folder, "test": test_folder or val_folder}

    def folder(self, split: str) -> Path:
        """The folder with a split's class folders.

        If there is none of the given name, a common alternative is used: ``valid`` for ``val``.

        Raises:
            AttnlabError: It is ambiguous.
        """
        root, name = Path(self.root), self.folders[split]
        if name not in SPLIT_NAMES or (root / name).is_dir():
            return root / name
        found = split_called(name, listing(root)[1])
        if len(found) > 1:
            raise AttnlabError(
                f"There is no '{root / name}', but {listed(found)} may be meant. Choose the folder with "
                f"--data.{split}_folder."
            )
        return root / (found[0] if found else name)

    def data_classes(self) -> dict[str, str]:
        """The class folders of the training split (or else of another), with display names.

        Raises:
            AttnlabError: There is no folder of a split, or it contains no folders.
        """
        for split in ("train", "val", "test"):
            if self.folder(split).is_dir():
                return shown_names(self._class_folders(split))
        raise self._no_folder("val")

    def items(self, split: str) -> list[ImageAndLabel]:
        """The images of a split, sorted by class and name.

        Raises:
            AttnlabError: The split does not exist, its classes differ from the training split's or from
                ``classes``, or a class has no images.
        """
        folder = self.folder(split)
        found = self._class_folders(split)
        labels = {name: label for label, name in enumerate(self.class_folders)}
        if how := differences(labels, found):
            raise AttnlabError(
                f"The class folders in '{folder}' are not the {len(labels)} classes of the data set. {how} "
                "Every split needs the same class folders."
            )
        items: list[ImageAndLabel] = []
        empty: list[str] = []
        for name, label in labels.items():
            files, others = list_pictures(folder / name)
            if not files:
                empty.append(f"{name} ({others} files of other kinds)" if others else name)
            prefix = f"{folder}{os.sep}{name}{os.sep}"
            items += [ImageAndLabel(f"{name}/{file}", Path(prefix + file), label) for file in files]
        if empty:
            raise AttnlabError(
                f"In '{folder}', {len(empty)} of {len(labels)} class folders contain no images: "
                f"{listed(empty)}. Looked for files ending in {' '.join(IMAGE_SUFFIXES)}. Add images, or "
                "remove these folders from every split."
            )
        return items

    def _class_folders(self, split: str) -> list[str]:
        folder = self.folder(split)
        if not folder.is_dir():
            raise self._no_folder(split)
        if found := listing(folder)[1]:
            return found
        raise AttnlabError(
            f"'{folder}' contains no class folders. Expected {folder / '<class>' / '<image>'}, one folder "
            "per class."
        )

    def _no_folder(self, split: str) -> AttnlabError:
        root = Path(self.root)
        train, val = (root / self.folders[split] / "<class>" / "<image>" for split in ("train", "val"))
        layout = f"{train} and {val}"
        if not root.is_dir():
            return AttnlabError(f"There is no folder '{root}'. Set --data.root to the data set: {layout}.")
        there = listing(root)[1]
        but = f", but {listed(there)}" if there else ""
        if there and not any(self.folder(split).is_dir() for split in self.folders):
            return AttnlabError(
                f"'{root}' contains no folder of a split, but {listed(there)}. Expected {layout}. If these "
                f"are class folders, move them into '{self.folder('train')}', and validation images into "
                f"folders of the same names in '{self.folder('val')}'."
            )
        return AttnlabError(
            f"There is no '{self.folder(split)}'{but}. Expected {layout}; for another name, set "
            f"--data.{split}_folder."
        )


def list_pictures(folder: Path) -> tuple[list[str], int]:
    """The image paths of `files_below`, by suffix, and the number of other files."""
    files = files_below(folder, hidden=True)
    pictures = [name for name in files if is_picture(name)]
    return pictures, len(files) - len(pictures)


def shown_names(folders: Iterable[str]) -> dict[str, str]:
    """Unique display names of class folders, by folder.

    A WordNet id is replaced by its first word, with the id in brackets if two classes share the word.
    """
    names = {folder: _word(folder) for folder in folders}
    count = Counter(names.values())
    return {
        folder: name if count[name] == 1 or name == folder else f"{name} ({folder})"
        for folder, name in names.items()
    }


def _word(folder: str) -> str:
    if not _WORDNET_ID.fullmatch(folder):
        return folder
    try:
        return str(wordnet().label_name_to_description(folder)).split(",")[0]
    except KeyError:
        return folder


@cache
def wordnet() -> Any:
    """The WordNet ids and words that timm has."""
    from timm.data import ImageNetInfo  # Slow to import, and few data sets need it.

    return ImageNetInfo()
