"""ImageNet as class folders, with a flat validation set, or as the official archives."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn

from attnlab.data.classification.imagefolder import ImageFolderDataModule, shown_names, wordnet
from attnlab.data.classification.imagenet_archive import (
    DEVKIT_ARCHIVE,
    TRAIN_ARCHIVE,
    VAL_ARCHIVE,
    WHERE_FROM,
    Devkit,
    extract_train,
    extract_val,
    is_filled,
    part_of,
    read_devkit,
)
from attnlab.data.classification.sets import ImageAndLabel
from attnlab.data.folders import is_picture, listing
from attnlab.data.names import listed
from attnlab.errors import AttnlabError


class ImageNetDataModule(ImageFolderDataModule):
    """ImageNet-1k (ILSVRC2012), or a part of it in the same layout.

    Training images lie in ``root/train/<wnid>/…``. Validation images lie in ``root/val/<wnid>/…``; or
    directly in ``root/val`` as ``ILSVRC2012_val_00000001.JPEG`` …, in which case the development kit in
    ``root`` (``ILSVRC2012_devkit_t12.tar.gz`` or unpacked; needs scipy) gives their classes. A part of the
    50,000 will do.

    Args:
        root: The folder that contains the splits' folders, or the official archives.
        extract: Extract the official archives in ``root``: ``ILSVRC2012_img_train.tar`` and, with
            ``ILSVRC2012_devkit_t12.tar.gz``, ``ILSVRC2012_img_val.tar``. Archives are verified once and kept.
            An interrupted extraction is resumed; a split's folder appears when it is complete. Existing
            folders are left unchanged.
        **options: The other options of `ImageFolderDataModule`.
    """

    def __init__(self, root: str = "data/imagenet", extract: bool = False, **options: Any) -> None:
        super().__init__(root, **options)
        self.extract = extract

    def fetch(self) -> None:
        """Extract the archives if asked to; for evaluation, only the validation archive.

        Raises:
            AttnlabError: Wrong checksum, unsafe archive, no devkit, no scipy, or too little disk space.
        """
        if not self.extract:
            return
        # Validation first: problems with the devkit show up before the training archive takes an hour.
        if self._archive("val").is_file():
            extract_val(Path(self.root), self.folder("val"))
        stage = None if self.trainer is None else self.trainer.state.fn
        if self._archive("train").is_file() and stage not in (TrainerFn.VALIDATING, TrainerFn.TESTING):
            extract_train(Path(self.root), self.folder("train"))

    def data_classes(self) -> dict[str, str]:
        """The class folders; if there are none yet, ImageNet's 1000 synsets, or the devkit's.

        Raises:
            AttnlabError: There are neither class folders nor archives to extract.
        """
        if not is_filled(self.folder("train")):
            if self._is_flat("val"):
                return shown_names(self._devkit.wnids)
            archives = any(self._archive(split).is_file() for split in ("train", "val"))
            if self.extract and archives and not is_filled(self.folder("val")):
                return shown_names(sorted(wordnet().label_names()))
        return super().data_classes()

    def items(self, split: str) -> list[ImageAndLabel]:
        """The images of a split; those of a flat validation folder are sorted by number.

        Raises:
            AttnlabError: As `ImageFolderDataModule.items`; or a flat folder's images are not named by number,
                the devkit is missing or lacks a number, or a class is not in the training split.
        """
        if split == "train" or not self._is_flat(split):
            return super().items(split)
        folder = self.folder(split)
        labels = {wnid: label for label, wnid in enumerate(self.class_folders)}
        wnids = {name: self._devkit.wnid(name) for name in listing(folder)[0] if is_picture(name)}
        strange = sorted(set(wnids.values()) - set(labels))
        if strange:
            count = sum(wnid not in labels for wnid in wnids.values())
            raise AttnlabError(
                f"{count} of the {len(wnids)} images in '{folder}' belong to classes that the data set does "
                f"not have: {listed(strange)}. Add these classes to '{self.folder('train')}', or remove the "
                "images."
            )
        if len({Path(name).stem for name in wnids}) < len(wnids):
            raise AttnlabError(f"In '{folder}', several images have the same number: keep only one of each.")
        return [ImageAndLabel(name, folder / name, labels[wnid]) for name, wnid in wnids.items()]

    @cached_property
    def _devkit(self) -> Devkit:
        return read_devkit(Path(self.root))

    def _archive(self, split: str) -> Path:
        return Path(self.root) / (TRAIN_ARCHIVE if split == "train" else VAL_ARCHIVE)

    def _is_flat(self, split: str) -> bool:
        """Whether a split's images lie directly in its folder."""
        folder = self.folder(split)
        files, folders = listing(folder)
        pictures = [name for name in files if is_picture(name)]
        numbered = [name for name in pictures if name.startswith("ILSVRC2012_val_")]
        if numbered and folders:
            raise AttnlabError(
                f"'{folder}' contains both images ({listed(numbered, 2)}) and folders "
                f"({listed(folders, 2)}). Use either class folders or a flat folder."
            )
        return bool(pictures) and not folders

    def _no_folder(self, split: str) -> AttnlabError:
        folder, archive = self.folder(split), self._archive(split)
        if not self.extract and part_of(folder).is_dir():
            return AttnlabError(
                f"'{folder}' is incomplete because its extraction was interrupted. Resume with "
                "--data.extract true."
            )
        if not self.extract and archive.is_file():
            return AttnlabError(
                f"There is no '{folder}', but '{archive}' exists. Extract it with --data.extract true."
            )
        archives = f"{TRAIN_ARCHIVE}, {VAL_ARCHIVE} and {DEVKIT_ARCHIVE}"
        return AttnlabError(
            f"{super()._no_folder(split)} Or put the official archives {archives} into '{self.root}' and set "
            f"--data.extract true. {WHERE_FROM}."
        )
