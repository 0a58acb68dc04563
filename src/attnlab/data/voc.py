"""Pascal VOC's segmentation data, and data of one's own in its layout."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn

from attnlab.data.download import OFFICIAL_HOST, download_voc
from attnlab.data.segmentation import SegmentationDataModule
from attnlab.data.segmentation_sets import LabelledImage
from attnlab.data.voc_own import refuse_ones_own
from attnlab.data.vocfolder import VOCFolder
from attnlab.errors import AttnlabError

VOC_CLASSES = ["background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"]
VOC_CLASSES += ["cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"]
VOC_CLASSES += ["train", "tvmonitor"]

_AUG_LISTS = ("train_aug", "trainaug")
_AUG_MASKS = "SegmentationClassAug"


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
        if mirror is not None and not download:
            raise AttnlabError(
                "data.mirror is set, but data.download is off: nothing would be fetched from it."
            )
        self.year = year
        self.train_split = train_split
        self.val_split = val_split
        self.test_split = test_split
        self.download = download
        self.mirror = mirror

    def fetch(self) -> None:
        """Fetch the data set if asked to.

        Raises:
            AttnlabError: The download failed; the message says what else can be done.
        """
        if not self.download:
            return
        try:
            VOCFolder.find(self.root, self.year, self._how_to_get())
        except AttnlabError:
            download_voc(self.root, self.year, self.mirror)

    def items(self, split: str) -> list[LabelledImage]:
        """The files of a split.

        Raises:
            AttnlabError: The data set is not at ``root`` or not complete, has no such split, or is not VOC's
                and ``class_names`` is None.
        """
        items = self._listed(split)
        if not self._classes_given:
            folder = VOCFolder.find(self.root, self.year, self._how_to_get())
            refuse_ones_own(folder, items, self.year, self.class_names, self.ignore_index)
        return items

    def _listed(self, split: str) -> list[LabelledImage]:
        folder = VOCFolder.find(self.root, self.year, self._how_to_get())
        if split == "train":
            return (
                self._augmented(folder) if self.train_split == "train_aug" else folder.items(self.train_split)
            )
        items = folder.items(self.val_split if split == "val" else self.test_split)
        if split == "val" and "train" in self.datasets:
            self._warn_of_overlap(folder, items)
        return items

    def _how_to_get(self) -> str:
        archives = "the official archive" if self.year == "2012" else "the official archives"
        return (
            f"Set --data.root to where it is, or fetch {archives} with --data.download true (from "
            f"{OFFICIAL_HOST})."
        )

    def _augmented(self, folder: VOCFolder) -> list[LabelledImage]:
        lists = [name for name in _AUG_LISTS if folder.list_file(name).is_file()]
        if lists and (folder.folder / _AUG_MASKS).is_dir():
            return folder.items(lists[0], _AUG_MASKS)
        raise AttnlabError(
            f"train_aug needs the masks '{folder.folder / _AUG_MASKS}' and the list "
            f"'{folder.list_file(_AUG_LISTS[0])}' (or {_AUG_LISTS[1]}.txt). They are made from the Semantic "
            "Boundaries Dataset (http://home.bharathh.info/pubs/codes/SBD/download.html): its masks as index "
            "PNGs, the names of its train and val images without those in VOC's val.txt as the list. Without "
            "it, use --data.train_split train."
        )

    def _warn_of_overlap(self, folder: VOCFolder, items: list[LabelledImage]) -> None:
        trained_on = (
            self._augmented(folder) if self.train_split == "train_aug" else folder.items(self.train_split)
        )
        shared = {item.name for item in items} & {item.name for item in trained_on}
        if shared:
            rank_zero_warn(
                f"{len(shared)} of the {len(items)} '{self.val_split}' images are trained on too "
                f"(data.train_split is {self.train_split}): their scores say nothing about new images."
            )
