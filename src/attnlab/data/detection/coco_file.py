"""COCO's annotation files: one JSON with the images, objects and categories of a split."""

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
    """What an annotation file says.

    Attributes:
        path: The file.
        categories: Name by id, in rising order of ids, which is that of the labels 0, 1, ….
        groups: Ids of categories that are no classes by the look of them: a category that all others name as
            their supercategory, that is in none itself, and that no object is of. Exports of labelling tools
            have one, named after the project.
        items: The images, in the file's order, each with its objects in the file's order. Their paths are
            relative to a folder that the file does not name; see `located`.
    """

    path: Path
    categories: dict[int, str]
    items: DetectionItems
    groups: tuple[int, ...] = ()

    def without(self, ids: Collection[int]) -> COCOFile:
        """The file without some categories, of which there are no objects."""
        labels = [label for label, number in enumerate(self.categories) if number not in ids]
        items = replace(self.items, labels=np.searchsorted(np.array(labels, np.int64), self.items.labels))
        kept = {number: name for number, name in self.categories.items() if number not in ids}
        return replace(self, categories=kept, items=items, groups=())


def read_coco(path: Path) -> COCOFile:
    """Read an annotation file in the format of COCO's instances.

    Boxes (x, y, width, height) become corners, clipped to the image; those without area then are left out.
    Segmentations are passed over, so that the 450 MB of COCO's training file stay small in memory.

    Args:
        path: The file. One without ``annotations``, as of test-dev, need have nothing but images.

    Raises:
        AttnlabError: It is not there, no JSON, or of another structure; ids are not unique; an object is of
            an unknown image or category; or a box is not four numbers, or of negative size.
    """
    content = _parsed(path)
    if not isinstance(content, dict):
        raise AttnlabError(
            f"'{path}' is not in COCO's format: it is a list, or a value, instead of an object with "
            "'images', 'categories' and 'annotations'. (Lists are detections that somebody submits.)"
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
    objects.refuse([_is_area(value) for value in area], "an area that is no number from 0 up", area)
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
    """The items with the paths of their files in a folder; those that are not there become ``problems``.

    Raises:
        AttnlabError: There is no such folder, or none of the files is in it.
    """
    if not folder.is_dir():
        raise AttnlabError(
            f"There is no folder of images '{folder}'. Name it with --data.train_images, --data.val_images "
            "or --data.test_images, as the split is."
        )
    # One listing is much faster than asking for 118 000 files one by one.
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
            f"None of the {len(items)} images that the annotations name is in '{folder}', e.g. not "
            f"'{items.names[0]}'."
        )
    problems = {k: f"The image '{folder / items.names[k]}' is not there." for k in missing}
    return replace(
        items,
        paths=PackedStrings(str(folder / names.get(k, name)) for k, name in enumerate(items.names)),
        problems=problems,
    )


def _otherwise_spelt(there: Collection[str]) -> dict[str, str]:
    """Names of files by their small letters, of those whom no other file equals but for case."""
    count = Counter(name.lower() for name in there)
    return {name.lower(): name for name in there if count[name.lower()] == 1}


def _from_elsewhere(names: dict[int, str], folder: Path) -> dict[int, str]:
    """Names relative to another folder, or with the backslashes of Windows, as they are in this folder.

    A name's last parts that are there are taken, of those that no other name has, too.
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
        cut = " The file ends there: it may be cut short." if error.pos >= len(error.doc.rstrip()) else ""
        raise AttnlabError(
            f"'{path}' is no JSON: {error.msg} at line {error.lineno}, column {error.colno}.{cut}"
        ) from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise AttnlabError(f"'{path}' is no JSON: {error}.") from error


def _without_segmentation(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


class _Entries:
    """One of the lists in a file's content: its ``images``, ``annotations`` or ``categories``."""

    def __init__(self, path: Path, content: dict[str, Any], kind: str) -> None:
        entries = content.get(kind)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            state = "is no list of objects" if kind in content else "is not there"
            raise AttnlabError(f"'{path}' is not in COCO's format: its '{kind}' {state}.")
        self.path = path
        self.kind = kind
        self.entries = entries

    def values(self, key: str, default: Sequence[Any] | None = None) -> list[Any]:
        """One key's values of all entries, with each one's own default."""
        if default is None:
            return [entry.get(key) for entry in self.entries]
        return [entry.get(key, other) for entry, other in zip(self.entries, default, strict=True)]

    def column(self, key: str, is_good: Callable[[Any], bool], expected: str) -> list[Any]:
        """One key's values of all entries, each of which must be good."""
        values = self.values(key)
        for position, value in enumerate(values):
            if not is_good(value):
                entry = self.entries[position]
                which = f"number {position + 1}" if key == "id" else f"with the id {entry.get('id')}"
                state = f"is {value!r}" if key in entry else "is not there"
                raise AttnlabError(
                    f"'{self.path}' is not in COCO's format: in its '{self.kind}', the '{key}' of the one "
                    f"{which} {state}; it must be {expected}."
                )
        return values

    def ids(self) -> list[int]:
        """The entries' ids, each of which must be its own."""
        ids = self.column("id", _is_id, "a whole number")
        twice = [value for value, count in Counter(ids).items() if count > 1]
        if twice:
            raise AttnlabError(
                f"In '{self.path}', {len(twice)} ids of '{self.kind}' are not unique, e.g. {twice[0]}. Give "
                "each its own."
            )
        return ids

    def positions(self, key: str, known: Sequence[int], what: str) -> np.ndarray:
        """Where the ids that annotations name are among the known ones."""
        ids = self.column(key, _is_id, "a whole number")
        places = {number: place for place, number in enumerate(known)}
        strange = [k for k, number in enumerate(ids) if number not in places]
        if strange:
            first = self.entries[strange[0]]
            raise AttnlabError(
                f"In '{self.path}', {len(strange)} annotations are of an unknown {what}, e.g. the one with "
                f"the id {first['id']}, whose {key} {first[key]} is not among the {len(known)} ids."
            )
        return np.array([places[number] for number in ids], np.int64)

    def refuse(self, good: Sequence[bool], what: str, values: Sequence[Any]) -> None:
        """Refuse annotations with values that are not good."""
        if not all(good):
            first = good.index(False)
            raise AttnlabError(
                f"In '{self.path}', the annotation with the id {self.entries[first]['id']} has {what}: "
                f"{values[first]!r}."
            )


def _groups(entries: Sequence[dict[str, Any]], shown: Collection[int]) -> tuple[int, ...]:
    """The categories that only group the others; see `COCOFile`."""
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
        raise AttnlabError(f"'{categories.path}' has no category: its 'categories' is empty.")
    ids = categories.ids()
    names = categories.column("name", _is_name, "a name")
    classes = [name for number, name in zip(ids, names, strict=True) if number not in groups]
    twice = alike(classes, case=True)
    if twice:
        raise AttnlabError(
            f"In '{categories.path}', {len(twice)} names of categories are not unique: {shown_alike(twice)}. "
            "Give all objects of a class one category, and take the others out, or give these other names."
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
    # A NaN is not within any limits.
    return (
        type(value) is list
        and len(value) == 4
        and all(type(number) in _NUMBERS and -_LARGEST < number < _LARGEST for number in value)
        and value[2] >= 0
        and value[3] >= 0
    )
