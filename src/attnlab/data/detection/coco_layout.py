"""Where annotation files and images lie in data sets of COCO's format, whatever tool wrote them."""

from __future__ import annotations

import re
from pathlib import Path

from attnlab.data.names import SPLIT_NAMES, listed
from attnlab.errors import AttnlabError

# COCO's other files of the same split.
_OTHER_KINDS = ("captions", "person_keypoints", "image_info", "stuff", "panoptic")


def find_annotations(root: Path, split: str) -> Path | None:
    """The annotation file of a split that is not where COCO has it.

    Looked for are the files that end in ``.json`` in ``root``, in its ``annotations`` and in its folders that
    are named after a split, such as ``valid/_annotations.coco.json``; its own name or the folder's tells
    which split a file is of (`SPLIT_NAMES`).

    Args:
        root: The data set's folder.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Returns:
        The file, or None if there is none.

    Raises:
        AttnlabError: Several may be meant.
    """
    found = [path for path in _jsons(root) if _is_of(path, root, split)]
    if len(found) > 1:
        raise AttnlabError(
            f"Several files in '{root}' may be the annotations of the '{split}' split: "
            f"{listed([str(path.relative_to(root)) for path in found])}. Name the one that is meant with "
            f"--data.{split}_annotations, and the folder of its images with --data.{split}_images."
        )
    return found[0] if found else None


def find_images(root: Path, split: str, annotations: Path) -> Path | None:
    """The folder of a split's images that is not where COCO has it.

    Args:
        root: The data set's folder.
        split: ``"train"``, ``"val"`` or ``"test"``.
        annotations: The split's annotation file. A folder named after the split that it lies in holds the
            images too.

    Returns:
        The folder, or None if there is none.
    """
    calls = SPLIT_NAMES[split]
    if annotations.parent != root and _called(annotations.parent.name, split):
        return annotations.parent
    places = [root / "images", root]
    there = [path for place in places for path in _folders(place) if _called(path.name, split)]
    there.sort(key=lambda path: [path.name.lower().startswith(call) for call in calls], reverse=True)
    if there:
        return there[0]
    return places[0] if places[0].is_dir() else None


def annotations_there(root: Path) -> list[str]:
    """The files that may be annotations, relative to the root."""
    return [str(path.relative_to(root)) for path in _jsons(root)]


def _is_of(path: Path, root: Path, split: str) -> bool:
    if path.name.lower().startswith(_OTHER_KINDS):
        return False
    return _called(path.stem, split) or (path.parent != root and _called(path.parent.name, split))


def _called(name: str, split: str) -> bool:
    """Whether one of a name's words is what the split is called."""
    return any(word in SPLIT_NAMES[split] for word in re.findall(r"[a-z]+", name.lower()))


def _jsons(root: Path) -> list[Path]:
    named = [path for path in _folders(root) if any(_called(path.name, split) for split in SPLIT_NAMES)]
    folders = [root, *(path for path in _folders(root) if path.name.lower() == "annotations"), *named]
    return [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".json" and not path.name.startswith(".") and path.is_file()
    ]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
