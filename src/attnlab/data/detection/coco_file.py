"""COCO's annotation files: a JSON with the images, objects and categories of a split."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attnlab.data.detection.items import DetectionItems
from attnlab.data.names import alike, shown_alike
from attnlab.data.sets import PackedStrings
from attnlab.data.text_files import decode_text
from attnlab.errors import AttnlabError

_LARGEST = 1e9
_NUMBERS = (int, float)


@dataclass(frozen=True, eq=False)
class COCOFile:
    """The content of an annotation file.

    Attributes:
        path: The file.
        categories: Name by id, in ascending order of id, which is the order of the labels 0, 1, ….
        groups: Ids of categories that are not classes: the supercategory of all others, itself without a
            supercategory and without objects. Labelling tools export one named after the project.
        items: The images and their objects, in the file's order. Paths are relative to a folder that the file
            does not name; see `located`.
    """

    path: Path
    categories: dict[int, str]
    items: DetectionItems
    groups: tuple[int, ...] = ()

    def without(self, ids: Collection[int]) -> COCOFile:
        """The file without some categories, which must have no objects."""
        labels = [label for label, number in enumerate(self.categories) if number not in ids]
        items = replace(self.items, labels=np.searchsorted(np.array(labels, np.int64), self.items.labels))
        kept = {number: name for number, name in self.categories.items() if number not in ids}
        return replace(self, categories=kept, items=items, groups=())


def read_coco(path: Path) -> COCOFile:
    """Read an annotation file in the format of COCO's instances.

    Boxes (x, y, width, height) become corners, clipped to the image; those without area are dropped.
    Segmentations are skipped to keep COCO's 450 MB training file small in memory.

    Args:
        path: The file. Without ``annotations``, as for test-dev, it needs only images.

    Raises:
        AttnlabError: The file does not exist, is not JSON, or has another structure; ids are not unique; an
            object belongs to an unknown image or category; or a box is not four numbers, or has a negative
            size.
    """
    content = _parsed(path)
    if not isinstance(content, dict):
        raise AttnlabError(
            f"'{path}' is not in COCO's format: it must be an object with 'images', 'categories' and "
            "'annotations', not a list or a value. (Lists are for submitting detections.)"
        )
    images = _Entries(path, content, "images")
    annotated = "annotations" in content
    objects = _Entries(path, {"annotations": [], **content}, "annotations")
    groups: tuple[int, ...] = ()
    known: dict[int, str] = {}
    if annotated or "categories" in content:
        categories = _Entries(path, content, "categories")
        groups = _groups(categories.entries, {k for k in objects.values("category_id") if _is_id(k)})
        known = _categories(categories, groups)
    image_ids = images.ids()
    objects.ids()
    pixels = "a whole number of pixels, at least 1"
    sides = [images.column(key, _is_size, pixels) for key in ("height", "width")]
    names = images.column("file_name", _is_name, "the name of a file")

    owners = objects.positions("image_id", image_ids, "image")
    labels = objects.positions("category_id", list(known), "category")
    expected = "[x, y, width, height] in numbers, the latter two not negative"
    boxes = np.array(objects.column("bbox", _is_box, expected), np.float64).reshape(-1, 4)
    area = objects.values("area", (boxes[:, 2] * boxes[:, 3]).tolist())
    objects.refuse([_is_area(value) for value in area], "an area that is not a number of at least 0", area)
    crowd = objects.values("iscrowd", [0] * len(boxes))
    objects.refuse([value in (0, 1) for value in crowd], "an iscrowd that is neither 0 nor 1", crowd)
    items = DetectionItems.packed(
        owners,
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        labels=labels,
        area=np.array(area, np.float32),
        iscrowd=np.array(crowd, bool),
        names=PackedStrings(names),
        paths=PackedStrings(names),
        image_ids=np.array(image_ids, np.int64),
        sizes=np.array(sides, np.int64).T,
        annotated=annotated,
    )
    return COCOFile(path, known, items, groups)


def located(items: DetectionItems, folder: Path) -> DetectionItems:
    """The items with their files' paths in a folder; missing files become ``problems``.

    Raises:
        AttnlabError: The folder does not exist, or contains none of the files.
    """
    if not folder.is_dir():
        raise AttnlabError(
            f"There is no image folder '{folder}'. Set it with --data.train_images, --data.val_images or "
            "--data.test_images."
        )
    # One listing is much faster than looking up 118 000 files one by one.
    with os.scandir(folder) as entries:
        there = {entry.name for entry in entries if entry.is_file()}
    missing = [
        k
        for k, name in enumerate(items.names)
        if name not in there and not ("/" in name and (folder / name).is_file())
    ]
    otherwise = _otherwise_spelt(there) if missing else {}
    names = {k: otherwise[name] for k in missing if (name := items.names[k].lower()) in otherwise}
    names |= _from_elsewhere({k: items.names[k] for k in missing if k not in names}, folder)
    missing = [k for k in missing if k not in names]
    if missing and len(missing) == len(items):
        raise AttnlabError(
            f"None of the {len(items)} images in the annotations is in '{folder}'; '{items.names[0]}', for "
            "example, is missing."
        )
    problems = {k: f"The image '{folder / items.names[k]}' does not exist." for k in missing}
    return replace(
        items,
        paths=PackedStrings(str(folder / names.get(k, name)) for k, name in enumerate(items.names)),
        problems=problems,
    )


def _otherwise_spelt(there: Collection[str]) -> dict[str, str]:
    """File names by their lower-case form, where that is unique."""
    count = Counter(name.lower() for name in there)
    return {name.lower(): name for name in there if count[name.lower()] == 1}


def _from_elsewhere(names: dict[int, str], folder: Path) -> dict[int, str]:
    """Names relative to another folder, or with Windows backslashes, as they are in this folder.

    Uses the last parts of a name that exist here and that no other name shares.
    """
    found: dict[int, str] = {}
    for k, name in names.items():
        parts = [part for part in re.split(r"[\\/]", name) if part]
        ends = ("/".join(parts[start:]) for start in range(len(parts))) if len(parts) > 1 else ()
        found[k] = next((end for end in ends if (folder / end).is_file()), "")
    shared = Counter(found.values())
    return {k: name for k, name in found.items() if name and shared[name] == 1}


def _parsed(path: Path) -> Any:
    try:
        return json.loads(decode_text(path.read_bytes(), path), object_hook=_without_segmentation)
    except OSError as error:
        raise AttnlabError(f"Cannot open the annotations '{path}': {error.strerror or error}.") from error
    except json.JSONDecodeError as error:
        cut = " The file ends there; it may be truncated." if error.pos >= len(error.doc.rstrip()) else ""
        raise AttnlabError(
            f"'{path}' is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.{cut}"
        ) from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise AttnlabError(f"'{path}' is not valid JSON: {error}.") from error


def _without_segmentation(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


class _Entries:
    """One of a file's lists: ``images``, ``annotations`` or ``categories``."""

    def __init__(self, path: Path, content: dict[str, Any], kind: str) -> None:
        entries = content.get(kind)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            state = "is not a list of objects" if kind in content else "is not there"
            raise AttnlabError(f"'{path}' is not in COCO's format: its '{kind}' {state}.")
        self.path = path
        self.kind = kind
        self.entries = entries

    def values(self, key: str, default: Sequence[Any] | None = None) -> list[Any]:
        """The values of a key in all entries, with a default for each."""
        if default is None:
            return [entry.get(key) for entry in self.entries]
        return [entry.get(key, other) for entry, other in zip(self.entries, default, strict=True)]

    def column(self, key: str, is_good: Callable[[Any], bool], expected: str) -> list[Any]:
        """The values of a key in all entries, each checked."""
        values = self.values(key)
        for position, value in enumerate(values):
            if not is_good(value):
                entry = self.entries[position]
                which = f"number {position + 1}" if key == "id" else f"with the id {entry.get('id')}"
                state = f"is {value!r}" if key in entry else "is not there"
                raise AttnlabError(
                    f"'{self.path}' is not in COCO's format: in '{self.kind}', the '{key}' of the entry "
                    f"{which} {state}; it must be {expected}."
                )
        return values

    def ids(self) -> list[int]:
        """The entries' ids, which must be unique."""
        ids = self.column("id", _is_id, "a whole number")
        twice = [value for value, count in Counter(ids).items() if count > 1]
        if twice:
            raise AttnlabError(
                f"In '{self.path}', {len(twice)} ids of '{self.kind}' are not unique, e.g. {twice[0]}."
            )
        return ids

    def positions(self, key: str, known: Sequence[int], what: str) -> np.ndarray:
        """Positions of the annotations' ids among the known ones."""
        ids = self.column(key, _is_id, "a whole number")
        places = {number: place for place, number in enumerate(known)}
        strange = [k for k, number in enumerate(ids) if number not in places]
        if strange:
            first = self.entries[strange[0]]
            raise AttnlabError(
                f"In '{self.path}', {len(strange)} annotations belong to an unknown {what}, e.g. the one "
                f"with id {first['id']}: its {key} {first[key]} is not among the {len(known)} ids."
            )
        return np.array([places[number] for number in ids], np.int64)

    def refuse(self, good: Sequence[bool], what: str, values: Sequence[Any]) -> None:
        """Reject annotations with invalid values."""
        if not all(good):
            first = good.index(False)
            raise AttnlabError(
                f"In '{self.path}', the annotation with id {self.entries[first]['id']} has {what}: "
                f"{values[first]!r}."
            )


def _groups(entries: Sequence[dict[str, Any]], shown: Collection[int]) -> tuple[int, ...]:
    """Categories that only group others; see `COCOFile`."""
    if len(entries) < 2:
        return ()
    return tuple(
        entry["id"]
        for entry in entries
        if _is_id(entry.get("id"))
        and entry["id"] not in shown
        and entry.get("supercategory") in (None, "", "none")
        and all(entry.get("name") == e.get("supercategory") for e in entries if e is not entry)
    )


def _categories(categories: _Entries, groups: Collection[int]) -> dict[int, str]:
    if not categories.entries:
        raise AttnlabError(f"'{categories.path}' has no categories: its 'categories' is empty.")
    ids = categories.ids()
    names = categories.column("name", _is_name, "a name")
    classes = [name for number, name in zip(ids, names, strict=True) if number not in groups]
    twice = alike(classes, case=True)
    if twice:
        raise AttnlabError(
            f"In '{categories.path}', {len(twice)} category names are not unique: {shown_alike(twice)}. "
            "Merge these categories, or rename them."
        )
    return dict(sorted(zip(ids, names, strict=True)))


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 62


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value < _LARGEST


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_area(value: Any) -> bool:
    return type(value) in _NUMBERS and 0 <= value < _LARGEST**2


def _is_box(value: Any) -> bool:
    # NaN is outside any limits.
    return (
        type(value) is list
        and len(value) == 4
        and all(type(number) in _NUMBERS and -_LARGEST < number < _LARGEST for number in value)
        and value[2] >= 0
        and value[3] >= 0
    )
