"""Data in YOLO's format: a ``data.yaml``, and a text file of boxes for each image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from attnlab.data.checks import MANY_FILES, look_at_all
from attnlab.data.detection.base import DetectionDataModule
from attnlab.data.detection.items import DetectionItems, ImageAndBoxes
from attnlab.data.detection.yolo_labels import LabelFormat, YOLOLabels, look_up_labels
from attnlab.data.detection.yolo_yaml import YOLOYaml, find_yaml, read_data_yaml
from attnlab.data.names import check_names, differences, listed
from attnlab.errors import AttnlabError

_IMAGES, _LABELS = "images", "labels"


class YOLODetectionDataModule(DetectionDataModule):
    """Detection data in YOLO format, as written by Ultralytics, Roboflow, CVAT and others.

    A ``data.yaml`` has the ``names`` of the classes and, for each split, a folder of images, a text file that
    lists them, or several of these. The labels of ``…/images/…/x.jpg`` are ``…/labels/…/x.txt``, or, without
    such a folder, ``x.txt`` beside the image; an image without that file has no objects. Without ``test``,
    the test split is the validation split. Images are read as stored; annotated images with an EXIF rotation
    are rejected, since their boxes refer to the rotated image.

    Args:
        root: Folder that contains ``data.yaml``.
        data_yaml: The file, absolute or relative to ``root``. None means ``data.yaml``, or the only YAML in
            ``root``.
        class_names: Names of the classes 0, 1, …; None means the file's ``names``; if given, they must match
            them. Checkpoints store them, so prediction needs no data set.
        **options: The other options of `DetectionDataModule`.
    """

    def __init__(
        self,
        root: str = "data",
        data_yaml: str | None = None,
        class_names: list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if class_names is not None:
            # Case counts: the file's names, which checkpoints store, may differ in case only.
            check_names(class_names, "data.class_names", case=True)
        self.data_yaml = data_yaml
        self.names = None if class_names is None else list(class_names)
        self._said: set[str] = set()

    def remembered(self) -> dict[str, Any]:
        """The class names, so that a checkpoint suffices for prediction."""
        return {"class_names": self.class_names}

    def categories(self) -> dict[int, str]:
        """The classes, numbered from 0 as in the labels.

        Raises:
            AttnlabError: They must be read from ``data.yaml``, which does not exist or has none.
        """
        names = self._yaml.names if self.names is None else self.names
        if names is None:
            raise AttnlabError(
                f"'{self._yaml.path}' has no class 'names'. Add them there, or set the names of the classes "
                "0, 1, … with --data.class_names."
            )
        return dict(enumerate(names))

    def items(self, split: str) -> DetectionItems:
        """The images of a split with their labels.

        Reads all labels and all images' headers; in a distributed run each process reads its share. Unusable
        images become ``problems``.

        Raises:
            AttnlabError: ``data.yaml`` is missing or invalid; its names differ from ``class_names``; a
                split's images are missing; or none of them has labels.
        """
        self._compare_names()
        images = self._yaml.images(split)
        find_label = label_finder()
        expected = LabelFormat(self.num_classes, self._yaml.keypoint_numbers)

        def look(position: int) -> YOLOLabels:
            image = images[position]
            return look_up_labels(image, find_label(image)[0], expected)

        title = f"Reading {len(images)} labels" if len(images) > MANY_FILES else None
        looks = list(look_at_all(len(images), look, title).values())
        if not any(look.found for look in looks):
            tried = " and ".join(f"'{path}'" for path in find_label(images[0])[1])
            raise AttnlabError(
                f"None of the {len(images)} '{split}' images has labels. For '{images[0]}', for example, "
                f"looked at {tried}. Labels must be in a folder 'labels' beside 'images', or beside the "
                "images."
            )
        self._say_what_is_passed_over(images, looks)
        return _items(images, looks)

    @cached_property
    def _yaml(self) -> YOLOYaml:
        return read_data_yaml(find_yaml(Path(self.root), self.data_yaml).absolute())

    def _compare_names(self) -> None:
        """Reject a file whose names differ from ``class_names``."""
        file = self._yaml
        there, known = file.names, self.class_names
        number = file.content.get("nc")
        if there is None and number not in (None, len(known)):
            raise AttnlabError(
                f"In '{file.path}', 'nc' is {number}, but data.class_names has {len(known)}: {listed(known)}."
            )
        if there is None or there == known:
            return
        how = differences(known, there) or f"The order differs: {listed(there)}, and {listed(known)}."
        raise AttnlabError(
            f"The names in '{file.path}' differ from data.class_names (or the checkpoint). {how} Leave "
            "data.class_names out to use the file's."
        )

    def _say_what_is_passed_over(self, images: Sequence[Path], looks: Sequence[YOLOLabels]) -> None:
        for what, counts in (
            ("repeat another line of their image and count once", [look.repeated for look in looks]),
            (
                "have a confidence after the box, which is ignored",
                [look.confidences for look in looks],
            ),
        ):
            where = [image for image, count in zip(images, counts, strict=True) if count]
            text = f"{sum(counts)} label lines in {len(where)} files {what}"
            # The test split is often the validation split.
            if where and (text := f"{text}, e.g. for '{where[0]}'.") not in self._said:
                self._said.add(text)
                rank_zero_warn(text)


def label_finder() -> Callable[[Path], tuple[Path | None, list[Path]]]:
    """Make a function that finds an image's label file.

    Returns:
        A function of an image's path. It returns the file, or None, and the places that it looked at: where
        the last folder ``images`` of the path is replaced by ``labels``; and, if there is no such folder,
        beside the image. It may be called from many threads.
    """
    folders: dict[Path, list[Path]] = {}

    def find(image: Path) -> tuple[Path | None, list[Path]]:
        parent = image.parent
        if parent not in folders:
            folders[parent] = _label_folders(parent)
        tried = [folder / f"{image.stem}.txt" for folder in folders[parent]]
        return next((path for path in tried if path.is_file()), None), tried

    return find


def _label_folders(folder: Path) -> list[Path]:
    """Folders that may hold the labels of a folder's images: one if it exists, else two."""
    parts = folder.parts
    for k in reversed(range(len(parts))):
        if parts[k] == _IMAGES:
            labels = Path(*parts[:k], _LABELS, *parts[k + 1 :])
            return [labels] if labels.is_dir() else [labels, folder]
    return [folder]


def _items(images: Sequence[Path], looks: Sequence[YOLOLabels]) -> DetectionItems:
    """The images and objects, packed; images are named by their path below the common folder."""
    top = os.path.commonpath([image.parent for image in images])
    return DetectionItems.of(
        [
            ImageAndBoxes(
                name=image.relative_to(top).as_posix(),
                path=image,
                image_id=position,
                size=look.size,
                boxes=look.boxes,
                labels=look.labels,
            )
            for position, (image, look) in enumerate(zip(images, looks, strict=True))
        ],
        problems={position: look.problem for position, look in enumerate(looks) if look.problem is not None},
    )
