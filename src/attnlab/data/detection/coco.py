"""MS COCO, and other detection data in its format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from attnlab.data.base import STAGE_SPLITS
from attnlab.data.detection.base import DetectionDataModule
from attnlab.data.detection.coco_file import COCOFile, located, read_coco
from attnlab.data.detection.items import DetectionItems
from attnlab.data.download import COCO_ARCHIVES, COCO_HOST, download_coco, refuse_idle_mirror
from attnlab.data.names import SPLIT_NAMES, alike, check_names, differences, listed, shown_alike
from attnlab.errors import AttnlabError

COCO_CLASSES = ["person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"]
COCO_CLASSES += ["traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"]
COCO_CLASSES += ["horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"]
COCO_CLASSES += ["handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"]
COCO_CLASSES += ["baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"]
COCO_CLASSES += ["wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"]
COCO_CLASSES += ["orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"]
COCO_CLASSES += ["potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"]
COCO_CLASSES += ["keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"]
COCO_CLASSES += ["clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"]

# Ids that were never used.
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_CATEGORIES = dict(zip((k for k in range(1, 91) if k not in _UNUSED_IDS), COCO_CLASSES, strict=True))
"""COCO's 80 categories by id."""

_ANNOTATIONS = "annotations"
# COCO's split by default annotation file.
_OFFICIAL = {f"{_ANNOTATIONS}/instances_{split}2017.json": split for split in ("train", "val")}
# COCO's other annotation files of the same split.
_OTHER_KINDS = ("captions", "person_keypoints", "image_info", "stuff", "panoptic")


class COCODetectionDataModule(DetectionDataModule):
    """MS COCO 2017 for detection, or data in its format: one JSON and one image folder per split.

    Labels 0, 1, … are the categories in ascending order of id. Crowd boxes are not trained on and are marked
    in evaluation. Images are read as stored; their EXIF orientation is ignored.

    Args:
        root: Folder that all other paths are relative to.
        classes: Category names by id. None reads them from the annotations. Checkpoints store them, so
            prediction needs no data set.
        train_annotations: JSON of the training split.
        train_images: Folder of its images.
        val_annotations: JSON of the validation split.
        val_images: Folder of its images.
        test_annotations: JSON of the test split; None means the validation split's. Images of a JSON without
            ``annotations``, such as ``image_info_test-dev2017.json``, can be predicted on but not scored.
        test_images: Folder of its images; None means the validation split's.
        download: Download what is missing in ``root`` from the official archives: annotations (240 MB),
            ``val2017`` (0.8 GB) and, for training, ``train2017`` (19 GB). Interrupted downloads are resumed.
        mirror: URL of a folder with the archives, instead of the official host.
        **options: The other options of `DetectionDataModule`.
    """

    def __init__(
        self,
        root: str = "data/coco",
        classes: dict[int, str] | None = None,
        train_annotations: str = "annotations/instances_train2017.json",
        train_images: str = "train2017",
        val_annotations: str = "annotations/instances_val2017.json",
        val_images: str = "val2017",
        test_annotations: str | None = None,
        test_images: str | None = None,
        download: bool = False,
        mirror: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if classes is not None:
            # Case counts: the annotations' names, which checkpoints store, may differ in case only.
            check_names(list(classes.values()), "data.classes", case=True)
        if (test_annotations is None) != (test_images is None):
            raise AttnlabError(
                "data.test_annotations and data.test_images belong together: set both, or leave both out to "
                "test on the validation split."
            )
        refuse_idle_mirror(mirror, download)
        self.classes = None if classes is None else dict(sorted(classes.items()))
        self.annotations = {
            "train": train_annotations,
            "val": val_annotations,
            "test": test_annotations or val_annotations,
        }
        self.images = {"train": train_images, "val": val_images, "test": test_images or val_images}
        self.download = download
        self.mirror = mirror
        self._files: dict[Path, COCOFile] = {}

    def remembered(self) -> dict[str, Any]:
        """The categories, so that a checkpoint suffices for prediction."""
        return {"classes": dict(zip(self.category_ids, self.class_names, strict=True))}

    def categories(self) -> dict[int, str]:
        """The option, or the annotations' categories; COCO's 80 if the annotations are not downloaded yet."""
        if self.classes is not None:
            return self.classes
        # The validation split's file is much smaller.
        for split in ("val", "test", "train"):
            if self._path(split).is_file():
                return self._classes_of(self._read(split))
        if self.download:
            return COCO_CATEGORIES
        raise self._no_file("val")

    def items(self, split: str) -> DetectionItems:
        """The images of a split.

        Raises:
            AttnlabError: A file or folder does not exist, the file is invalid (see `read_coco`), or its
                categories differ from those of other splits or of ``classes``.
        """
        file = self._read(split)
        groups = [number for number in file.groups if number not in self._categories]
        if groups:
            file = file.without(groups)
        self._compare_categories(file)
        if split == "train":
            self._say_what_looks_odd(file, groups)
        return located(file.items, self._image_folder(split))

    def _classes_of(self, file: COCOFile) -> dict[int, str]:
        """A file's categories, without one that only groups the others in all splits' files."""
        groups = set(file.groups)
        for split in ("train", "val", "test") if groups else ():
            if self._path(split).is_file():
                groups &= set(self._read(split).groups)
        return {number: name for number, name in file.categories.items() if number not in groups}

    def _say_what_looks_odd(self, file: COCOFile, groups: Sequence[int]) -> None:
        for number in groups:
            every = self._read("train").categories
            rank_zero_warn(
                f"In '{file.path}', category {number} ('{every[number]}') is the supercategory of all "
                "others and has no boxes: it is not used as a class. To keep it, list all with "
                f"--data.classes '{{{', '.join(f'{k}: {name}' for k, name in every.items())}}}'."
            )
        twice = alike(file.categories.values())
        if twice:
            rank_zero_warn(
                f"In '{file.path}', some categories differ only in case or spaces, but are used as "
                f"different classes: {shown_alike(twice)}."
            )

    def fetch(self) -> None:
        """Download the official archives of what is needed and missing, if asked to."""
        if not self.download:
            return
        stage = None if self.trainer is None else self.trainer.state.fn
        splits = [s for s in STAGE_SPLITS[None if stage is None else stage.value] if s in self.annotations]
        root = Path(self.root)
        there = all(self.annotations[s] not in _OFFICIAL or self._path(s).is_file() for s in splits)
        wanted = [] if there else [_ANNOTATIONS]
        wanted += [self.images[s] for s in splits if not (root / self.images[s]).is_dir()]
        for folder in dict.fromkeys(wanted):
            if folder in COCO_ARCHIVES:
                download_coco(root, folder, self.mirror)

    def _path(self, split: str) -> Path:
        """The annotation file of a split: the option's, or else one with another name."""
        path = Path(self.root) / self.annotations[split]
        official = _OFFICIAL.get(self.annotations[split])
        if path.is_file() or self.download or official is None:
            return path
        return _find_annotations(Path(self.root), official) or path

    def _image_folder(self, split: str) -> Path:
        """The image folder of a split: the option's, or else one with another name."""
        folder = Path(self.root) / self.images[split]
        official = _OFFICIAL.get(self.annotations[split])
        if folder.is_dir() or self.download or official is None or folder.name != f"{official}2017":
            return folder
        return _find_images(Path(self.root), official, self._path(split)) or folder

    def _read(self, split: str) -> COCOFile:
        """The annotation file of a split, read once."""
        path = self._path(split)
        if path not in self._files:
            if not path.is_file():
                raise self._no_file(split)
            self._files[path] = read_coco(path)
        return self._files[path]

    def _no_file(self, split: str) -> AttnlabError:
        root = Path(self.root)
        found = [str(path.relative_to(root)) for path in _jsons(root)]
        there = f"There are: {listed(found)}. " if found else ""
        return AttnlabError(
            f"No annotations '{self._path(split)}'. {there}Set --data.root to COCO's folder, or "
            f"--data.{split}_annotations to the file; or download COCO 2017 with --data.download true (20 "
            f"GB from {COCO_HOST}; see https://cocodataset.org)."
        )

    def _compare_categories(self, file: COCOFile) -> None:
        """Reject a file whose categories differ from another split's or from ``classes``."""
        there, known = file.categories, self._categories
        if there == known or (not there and not file.items.annotated):
            return
        numbered = [[f"{number} {name}" for number, name in names.items()] for names in (known, there)]
        source = "the other split's" if self.classes is None else "data.classes (or the checkpoint)"
        raise AttnlabError(
            f"The categories in '{file.path}' differ from {source}. {differences(*numbered)} Every split "
            "needs the same ids and names."
        )


def _find_annotations(root: Path, split: str) -> Path | None:
    """A split's annotation file in a place other than COCO's, or None.

    The split is told by the file's name or its folder's, as in ``valid/_annotations.coco.json``
    (`SPLIT_NAMES`). Several candidates are an error.
    """
    found = [
        path
        for path in _jsons(root)
        if not path.name.lower().startswith(_OTHER_KINDS)
        and (_called(path.stem, split) or (path.parent != root and _called(path.parent.name, split)))
    ]
    if len(found) > 1:
        raise AttnlabError(
            f"Several files in '{root}' may be the annotations of the '{split}' split: "
            f"{listed([str(path.relative_to(root)) for path in found])}. Choose one with "
            f"--data.{split}_annotations, and its image folder with --data.{split}_images."
        )
    return found[0] if found else None


def _find_images(root: Path, split: str, annotations: Path) -> Path | None:
    """A split's image folder in a place other than COCO's, or None.

    A folder that is named after the split and holds its annotations also holds the images.
    """
    if annotations.parent != root and _called(annotations.parent.name, split):
        return annotations.parent
    images, calls = root / "images", SPLIT_NAMES[split]
    there = [path for place in (images, root) for path in _folders(place) if _called(path.name, split)]
    there.sort(key=lambda path: [path.name.lower().startswith(call) for call in calls], reverse=True)
    return next(iter([*there, *([images] if images.is_dir() else [])]), None)


def _jsons(root: Path) -> list[Path]:
    """JSON files in the root, its ``annotations``, and folders named after splits."""
    folders = _folders(root)
    named = [path for path in folders if any(_called(path.name, split) for split in SPLIT_NAMES)]
    places = [root, *(path for path in folders if path.name.lower() == "annotations"), *named]
    return [
        path
        for place in places
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.suffix.lower() == ".json" and not path.name.startswith(".") and path.is_file()
    ]


def _called(name: str, split: str) -> bool:
    """Whether one of a name's words is a name of the split."""
    return any(word in SPLIT_NAMES[split] for word in re.findall(r"[a-z]+", name.lower()))


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
