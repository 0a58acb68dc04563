"""YOLO's ``data.yaml``: class names, and where each split's images are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from attnlab.data.folders import files_below, is_picture, names_in
from attnlab.data.names import SPLIT_NAMES, check_names, listed, split_called
from attnlab.data.text_files import read_lines, read_text
from attnlab.errors import AttnlabError

_YAML = (".yaml", ".yml")
_CALLS = {call for calls in SPLIT_NAMES.values() for call in calls}


@dataclass(frozen=True)
class YOLOYaml:
    """The content of a ``data.yaml``.

    Attributes:
        path: The file.
        content: Its keys and values.
        names: Names of the classes 0, 1, …; None if it has none.
        keypoint_numbers: How many keypoint numbers follow each box; 0 if none.
    """

    path: Path
    content: dict[str, Any]
    names: list[str] | None
    keypoint_numbers: int

    def images(self, split: str) -> list[Path]:
        """The image files of a split, each folder's sorted by name, each list's in its order.

        Files named in a list may be missing, or not be images.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``, which is ``val`` if the file has no ``test``.

        Raises:
            AttnlabError: The file lacks the split, its entries do not exist or have no images, or an image is
                listed twice.
        """
        key, entries = self._entries(split)
        found: dict[Path, None] = {}
        for entry in entries:
            for image in self._images_of(key, split, entry):
                if image in found:
                    raise AttnlabError(
                        f"'{self.path}' lists the image '{image}' more than once in '{key}': it would count "
                        "twice in the metrics."
                    )
                found[image] = None
        return list(found)

    def _entries(self, split: str) -> tuple[str, list[str]]:
        """The key and entries of a split."""
        named = [key for key, value in self.content.items() if value not in (None, "", [])]
        keys = split_called(split, [key for key in named if isinstance(key, str)])
        if split == "test" and not keys:
            return self._entries("val")
        if not keys:
            raise AttnlabError(
                f"'{self.path}' does not say where the images of its '{split}' split are. Add a line "
                f"'{split}: …' with a folder of images, a text file that lists them, or a list of these. "
                f"Its folder contains: {listed(names_in(self.path.parent), 12) or 'nothing'}."
            )
        value = self.content[keys[0]]
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, str) and entry.strip() for entry in entries):
            raise AttnlabError(
                f"In '{self.path}', '{keys[0]}' is {value!r}; it must be a folder of images, a text file "
                "that lists them, or a list of these."
            )
        return keys[0], entries

    def _images_of(self, key: str, split: str, entry: str) -> list[Path]:
        place, tried = self._find(split, entry)
        if place is None:
            where = "".join(f"\n  {path}" for path in tried)
            raise AttnlabError(
                f"In '{self.path}', '{key}' is '{entry}', but there is no such folder or file. Looked "
                f"for:{where}\nCorrect it, or the key 'path' that it is relative to."
            )
        if place.is_file():
            return self._listed(place)
        images = [place / name for name in files_below(place) if is_picture(name)]
        if not images:
            raise AttnlabError(
                f"There are no images in '{place}', the '{key}' of '{self.path}'. It contains: "
                f"{listed(names_in(place)) or 'nothing'}."
            )
        return images

    def _find(self, split: str, entry: str) -> tuple[Path | None, list[Path]]:
        """Where an entry leads, or None; and all places tried."""
        tried: dict[Path, None] = {}
        bases = self._bases()
        for place in self._places(entry, bases):
            if place.exists():
                return place, list(tried)
            tried[place] = None
        others = {place: None for text in _other_calls(entry, split) for place in self._places(text, bases)}
        there = [place for place in others if place.is_dir()]
        if len(there) > 1:
            raise AttnlabError(
                f"'{self.path}' names a folder '{entry}' for the split '{split}', which does not exist; "
                f"{listed([str(place) for place in there])} may be meant. Correct the entry."
            )
        return (there[0] if there else None), [*tried]

    def _bases(self) -> list[Path]:
        """The folders that entries may be relative to, likeliest first."""
        beside = self.path.parent
        stated = self.content.get("path")
        if stated is None:
            return [beside]
        if not isinstance(stated, str):
            raise AttnlabError(f"In '{self.path}', 'path' is {stated!r}; it must be the data set's folder.")
        as_it_stands = _simplified(beside / stated.strip())
        guesses = [place for place in self._places(stated, [beside, beside.parent]) if place.is_dir()]
        # After the file's own folder: a copy of the data set must not read the original.
        first = [as_it_stands] if as_it_stands.is_dir() else []
        return list(dict.fromkeys([*first, beside, *guesses]))

    def _places(self, entry: str, bases: Sequence[Path]) -> Iterator[Path]:
        """Where an entry may lead: as written, or else its last parts, as many as exist.

        Roboflow exports write ``../train/images`` for ``train/images``; others are relative to a working
        directory, or absolute on another machine.
        """
        text = entry.strip().replace("\\", "/")
        if text.startswith("/") or re.match("[A-Za-z]:/", text):
            yield Path(entry.strip())
        else:
            yield from (_simplified(base / text) for base in bases)
        parts = re.sub(r"^([A-Za-z]:)?(\.?\.?/)+", "", text).split("/")
        # The split's name is never dropped: train and val would be the same folder.
        most = max((k for k, part in enumerate(parts) if part.lower() in _CALLS), default=len(parts) - 1)
        for start in range(most + 1):
            yield from (base.joinpath(*parts[start:]) for base in bases)

    def _listed(self, file: Path) -> list[Path]:
        """The images listed in a text file, whether they exist or not."""
        if file.suffix.lower() != ".txt":
            raise AttnlabError(
                f"'{file}' in '{self.path}' is neither a folder nor a text file (.txt) that lists images."
            )
        lines = read_lines(file)
        if not lines:
            raise AttnlabError(f"The list of images '{file}' is empty.")
        bases = list(dict.fromkeys([file.parent, *self._bases(), self.path.parent.parent]))
        found: list[Path] = []
        # A list's lines are similar: what led to the last image is tried first.
        last = 0
        for line in lines:
            places = list(dict.fromkeys(self._places(line, bases)))
            order = [last, *range(len(places))] if last < len(places) else range(len(places))
            last = next((k for k in order if places[k].is_file()), 0)
            found.append(places[last])
        return found


def find_yaml(root: Path, data_yaml: str | None) -> Path:
    """The YAML that describes a data set.

    Args:
        root: The data set's folder.
        data_yaml: The file, absolute or relative to the root; None means ``data.yaml``, or the only YAML
            there.

    Raises:
        AttnlabError: It does not exist or is ambiguous.
    """
    if data_yaml is not None:
        if (root / data_yaml).is_file():
            return root / data_yaml
        raise AttnlabError(f"There is no '{root / data_yaml}' (data.data_yaml).{_there(root)}")
    if root.is_file():
        raise AttnlabError(
            f"data.root is the file '{root}'; it is the data set's folder. Set --data.root {root.parent} and "
            f"--data.data_yaml {root.name}."
        )
    for suffix in _YAML:
        if (root / f"data{suffix}").is_file():
            return root / f"data{suffix}"
    found = [name for name in names_in(root) if name.lower().endswith(_YAML)]
    if len(found) == 1:
        return root / found[0]
    if found:
        raise AttnlabError(
            f"There is no data.yaml in '{root}', but {listed(found)} may be meant: choose one with "
            "--data.data_yaml."
        )
    raise AttnlabError(
        f"There is no data.yaml in '{root}'.{_there(root)} Set --data.root to its folder, or "
        "--data.data_yaml to the file."
    )


def read_data_yaml(path: Path) -> YOLOYaml:
    """Read the YAML that describes a data set.

    Raises:
        AttnlabError: It cannot be read, is not YAML with keys, or its names are not those of the classes 0,
            1, …, ``nc`` in number.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise AttnlabError(f"'{path}' is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise AttnlabError(f"'{path}' is not a data.yaml: it has no keys such as train, val and names.")
    names = _names(path, content["names"]) if content.get("names") is not None else None
    number = content.get("nc")
    if number is not None and (type(number) is not int or (names is not None and number != len(names))):
        shown = f" ({listed(names)})" if names is not None else ""
        has = (
            f"but 'names' has {len(names)}{shown}"
            if names is not None
            else "which is not a number of classes"
        )
        raise AttnlabError(f"In '{path}', 'nc' is {number!r}, {has}. Correct one of the two.")
    return YOLOYaml(path, content, names, _keypoint_numbers(path, content.get("kpt_shape")))


def _names(path: Path, value: Any) -> list[str]:
    if isinstance(value, dict):
        keys = [int(key) if isinstance(key, str) and key.isdecimal() else key for key in value]
        if sorted(keys, key=str) != sorted(range(len(keys)), key=str):
            raise AttnlabError(
                f"In '{path}', 'names' has the numbers {listed([str(key) for key in keys])}; they must be 0 "
                f"to {len(keys) - 1}, each once. Name the missing classes, too, or renumber the labels."
            )
        by_number = dict(zip(keys, value.values(), strict=True))
        value = [by_number[number] for number in range(len(keys))]
    if not isinstance(value, list):
        raise AttnlabError(f"In '{path}', 'names' is {value!r}; it must be a list, or 'number: name' lines.")
    for number, name in enumerate(value):
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise AttnlabError(
                f"In '{path}', the name of class {number} is not text: YAML reads it as {name!r}. Put it in "
                "quotes."
            )
    names = [str(name) for name in value]
    check_names(names, f"'names' in '{path}'", case=True)
    return names


def _keypoint_numbers(path: Path, shape: Any) -> int:
    if shape is None:
        return 0
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n > 0 for n in shape):
        raise AttnlabError(f"In '{path}', 'kpt_shape' is {shape!r}; it must be two numbers, such as [17, 3].")
    return math.prod(shape)


def _other_calls(entry: str, split: str) -> list[str]:
    """An entry with each alternative name of the split in place of its name."""
    parts = entry.replace("\\", "/").split("/")
    calls = SPLIT_NAMES[split]
    return [
        "/".join([*parts[:k], call, *parts[k + 1 :]])
        for k, part in enumerate(parts)
        if part.lower() in calls
        for call in calls
        if call != part
    ]


def _simplified(path: Path) -> Path:
    """A path without ``./`` and ``folder/../``, unless the folder is a link."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] not in ("..", path.anchor) and not Path(*parts).is_symlink():
            parts.pop()
        else:
            parts.append(part)
    return Path(*parts) if parts else Path()


def _there(root: Path) -> str:
    if not root.is_dir():
        return f" There is no folder '{root}' either."
    return f" It contains: {listed(names_in(root), 12) or 'nothing'}."
