"""Images with the boxes of Pascal VOC's annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attnlab.data.detection.items import AnnotatedImage, DetectionItems
from attnlab.data.names import listed
from attnlab.data.voc_xml import VOCAnnotation, read_annotation
from attnlab.data.vocfolder import VOCFolder
from attnlab.errors import AttnlabError, unknown


class VOCFiles(NamedTuple):
    """An image and its annotation.

    Attributes:
        name: What reports call the two by.
        image: The image file.
        annotation: The XML file.
    """

    name: str
    image: Path
    annotation: Path


def files_of(folder: VOCFolder, split: str) -> list[VOCFiles]:
    """The images and annotations of a split, in the order of its list; see `VOCFolder.names`."""
    return [VOCFiles(name, folder.image(name), folder.annotation(name)) for name in folder.names(split)]


def read_items(
    files: Iterable[VOCFiles], class_names: Sequence[str], option: str, given: bool = True
) -> DetectionItems:
    """The images of a split with the objects that their annotations list.

    Boxes are clipped to the image. Those that have no area then are left out and counted. An annotation that
    cannot be read becomes one of the items' ``problems``.

    Args:
        files: In the split's order.
        class_names: Names of the classes 0, 1, ….
        option: Where the names come from, for the error.
        given: Whether the user gave them; otherwise they are Pascal VOC's, for want of others.

    Raises:
        AttnlabError: Objects are of classes that are not among the names; all that are found are listed.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    images: list[AnnotatedImage] = []
    problems: dict[int, str] = {}
    dropped: dict[int, int] = {}
    found: Counter[str] = Counter()
    strange: dict[str, Path] = {}
    for position, item in enumerate(files):
        try:
            annotation = read_annotation(item.annotation)
        except AttnlabError as error:
            problems[position] = str(error)
            annotation = VOCAnnotation((1, 1), [])
        for entry in annotation.objects:
            found[entry.name] += 1
            if entry.name not in labels:
                strange.setdefault(entry.name, item.annotation)
        if strange:
            continue  # Nothing is made of the rest but a list of its classes.
        height, width = annotation.size
        corners = np.array([entry.box for entry in annotation.objects], np.float32).reshape(-1, 4)
        boxes = corners.clip(0, np.array([width, height, width, height], np.float32))
        keep = (boxes[:, 2:] > boxes[:, :2]).all(1)
        if not keep.all():
            dropped[position] = int((~keep).sum())
        images.append(
            AnnotatedImage(
                name=item.name,
                path=item.image,
                image_id=position,
                size=annotation.size,
                boxes=boxes[keep],
                labels=np.array([labels[entry.name] for entry in annotation.objects], np.int64)[keep],
                difficult=np.array([entry.difficult for entry in annotation.objects], bool)[keep],
            )
        )
    if strange:
        raise _unknown_classes(found, strange, class_names, option, given)
    return DetectionItems.of(images, problems, dropped)


def _unknown_classes(
    found: Counter[str], strange: dict[str, Path], class_names: Sequence[str], option: str, given: bool
) -> AttnlabError:
    """The error for objects of classes that are not among the names, with a file of each."""
    name, annotation = next(iter(strange.items()))
    counts = listed([f"{key} ({count})" for key, count in found.most_common()], 30)
    if given:
        hint = f"It is in '{annotation}'. Add it to {option}, or take the object out."
        hint += f" The annotations hold: {counts}."
        return unknown("class", name, class_names, hint)
    return AttnlabError(
        f"{option} is not set, so the classes would be Pascal VOC's {len(class_names)}, but the annotations "
        f"hold others, e.g. '{name}' in '{annotation}'. They hold: {counts}. Name the classes with "
        f"--{option} '[{','.join(sorted(found)[:30])}]'."
    )
