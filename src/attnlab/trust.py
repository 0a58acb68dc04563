"""What a checkpoint may ask for: values, attnlab's own classes, and some transforms.

A checkpoint's tensors are read without running code, but its options name classes. Imported and built as if
the user had typed them, they run whatever their author wants.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from attnlab.errors import AttnlabError

PLAIN = (NoneType, bool, int, float)
# Transforms that take no callables; those of `INNER` take further transforms.
TORCHVISION = (
    *("AugMix", "AutoAugment", "CenterCrop", "ColorJitter", "Compose", "ElasticTransform"),
    *("GaussianBlur", "GaussianNoise", "Grayscale", "JPEG", "Normalize", "Pad", "RGB"),
    *("RandAugment", "RandomAdjustSharpness", "RandomAffine", "RandomApply", "RandomAutocontrast"),
    *("RandomChannelPermutation", "RandomChoice", "RandomCrop", "RandomEqualize", "RandomErasing"),
    *("RandomGrayscale", "RandomHorizontalFlip", "RandomInvert", "RandomOrder"),
    *("RandomPerspective", "RandomPhotometricDistort", "RandomPosterize", "RandomResize"),
    *("RandomResizedCrop", "RandomRotation", "RandomShortestSize", "RandomSolarize"),
    *("RandomVerticalFlip", "RandomZoomOut", "Resize", "ScaleJitter", "TrivialAugmentWide"),
)
INNER = "transforms"
OWN = {
    "RandomHSV": "attnlab.data.detection.transforms",
    "RandomResizedCropFlip": "attnlab.data.transforms",
    "RandomScaleCrop": "attnlab.data.transforms",
    "ResizeCentreCrop": "attnlab.data.transforms",
}
# Torchvision defines its transforms in private modules, whose names a checkpoint may hold.
_OF_TORCHVISION = re.compile(r"torchvision\.transforms\.v2(?:\._\w+)?\.(\w+)")
_OF_ATTNLAB = re.compile(r"attnlab\.data(?:\.\w+)*\.(\w+)")

Classes = Mapping[str, Mapping[str, type]]


def refuse_strangers(
    recipe: Mapping[str, Any], path: str | Path, classes: Classes, given: Collection[str] = ()
) -> dict[str, Any]:
    """Refuse a checkpoint's recipe that asks for anything but values and known classes.

    Options are compared with the types that the classes declare, so that text is only where text belongs: the
    parser takes text elsewhere for an import path or for a file to read.

    Args:
        recipe: ``model`` and ``data``, each with ``class_path`` and ``init_args``.
        path: The checkpoint's path, for messages.
        classes: The classes allowed for each block, by name or import path. A block without classes is left
            out.
        given: Import paths that the user has named; their code runs anyway.

    Returns:
        The recipe, with the import paths of the classes as they are checked here.

    Raises:
        AttnlabError: It asks for something else, which the message names.
    """
    judge, result = _Judge(path, frozenset(given)), {}
    for block, allowed in classes.items():
        if block not in recipe:
            continue
        name, options = recipe[block].get("class_path"), recipe[block].get("init_args") or {}
        cls = judge.class_of(name, block, allowed)
        kinds = option_kinds(cls)
        options = {
            key: judge.value(value, kinds.get(key, Any), f"{block}.{key}") for key, value in options.items()
        }
        own = cls.__module__.startswith("attnlab.")
        result[block] = {"class_path": cls.__name__ if own else name, "init_args": options}
    return result


def classes_of(home: ModuleType, base: type) -> dict[str, type]:
    """The public classes of one of attnlab's packages that are of a kind, by name."""
    found = {name: getattr(home, name) for name in home.__all__}
    return {name: cls for name, cls in found.items() if isinstance(cls, type) and issubclass(cls, base)}


def option_kinds(cls: type) -> dict[str, Any]:
    """The declared types of a class's options and, where it passes some on, of those above it."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        own = vars(base).get("__init__")
        if own is None or base is object:
            continue
        try:
            found = get_type_hints(own) | found
        except NameError:  # names that only a type checker sees
            found = dict.fromkeys(getattr(own, "__annotations__", {}), Any) | found
    return found


class _Judge:
    """Looks at the values of one checkpoint.

    Args:
        path: The checkpoint's path, for messages.
        given: Import paths that the user has named.
    """

    def __init__(self, path: str | Path, given: frozenset[str]) -> None:
        self.path = path
        self.given = given

    def class_of(self, name: Any, block: str, allowed: Mapping[str, type]) -> type:
        if isinstance(name, str):
            module, _, last = name.rpartition(".")
            if name in allowed:
                return allowed[name]
            if module.startswith("attnlab.") and last in allowed:
                return allowed[last]
        raise self.refused(name, block)

    def value(self, value: Any, kind: Any, where: str) -> Any:
        """A value as it may be used.

        Raises:
            AttnlabError: It is not a value of this kind.
        """
        if type(value) in PLAIN:
            return value
        kinds = list(_members(kind))
        if isinstance(value, str):
            if where.endswith(".attention.name") and "." in value and value not in self.given:
                raise self.refused(value, where)
            if any(_admits_text(each) for each in kinds):
                return value
        elif isinstance(value, list | tuple):
            inner = tuple(_element(each) for each in kinds if _is_sequence(each))
            if inner:
                return [self.value(each, Union[inner], where) for each in value]  # noqa: UP007
        elif isinstance(value, Mapping):
            found = self.mapping(value, kinds, where)
            if found is not None:
                return found
        if any(_is_module(each) for each in kinds):
            return self.transform(value, where)
        raise self.refused(value, where)

    def mapping(self, value: Mapping[Any, Any], kinds: Sequence[Any], where: str) -> dict[Any, Any] | None:
        """The value as a mapping or as the options of a dataclass; None if neither is expected."""
        if {"class_path", "init_args"} & value.keys() or not all(type(key) in (*PLAIN, str) for key in value):
            return None
        for each in kinds:
            if is_dataclass(each) and isinstance(each, type):
                of = get_type_hints(each)
                return {
                    key: self.value(item, of.get(key, Any), f"{where}.{key}") for key, item in value.items()
                }
            if each is Any or each is dict or get_origin(each) is dict:
                of_values = (get_args(each) or (Any, Any))[-1]
                return {key: self.value(item, of_values, f"{where}.{key}") for key, item in value.items()}
        return None

    def transform(self, value: Any, where: str) -> Any:
        """A transform: one of the lists, with numbers and words as its options."""
        block = value if isinstance(value, Mapping) else {"class_path": value}
        name, options = block.get("class_path"), block.get("init_args") or {}
        if not isinstance(name, str):
            raise self.refused(value, where)
        for key in block.keys() - {"class_path", "init_args"}:
            raise self.refused(f"{key}={block[key]}", where)
        known, found = name in self.given, name
        if (match := _OF_TORCHVISION.fullmatch(name)) and match[1] in TORCHVISION:
            known, found = True, f"torchvision.transforms.v2.{match[1]}"
        elif (match := _OF_ATTNLAB.fullmatch(name)) and match[1] in OWN:
            known, found = True, f"{OWN[match[1]]}.{match[1]}"
        if not known or not isinstance(options, Mapping):
            raise self.refused(name, where)
        taken = {}
        for key, item in options.items():
            if key == INNER and isinstance(item, list | tuple):
                taken[key] = [self.transform(each, where) for each in item]
            elif not isinstance(key, str) or not _is_simple(item):
                raise self.refused(f"{name}({key}={item})", where)
            else:
                taken[key] = item
        return {"class_path": found, "init_args": taken}

    def refused(self, what: Any, where: str) -> AttnlabError:
        text = str(what)
        text = text if len(text) <= 100 else f"{text[:100]}…"
        return AttnlabError(
            f"{self.path} asks for '{text}' as {where}. From a checkpoint come only plain values, attnlab's "
            "own classes and the transforms in docs/security.md: other code could do anything. If you trust "
            "whoever made the file, add --trust_checkpoint true (in Python, trust=True). If the code is "
            f"yours, giving {where} in the YAML is enough."
        )


def _members(kind: Any) -> Iterable[Any]:
    """The alternatives of a union, or the type itself."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _admits_text(kind: Any) -> bool:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return True
    return kind in (str, Any, Path) or get_origin(kind) is Literal


def _is_sequence(kind: Any) -> bool:
    return kind in (Any, list, tuple) or get_origin(kind) in (list, tuple, Sequence)


def _element(kind: Any) -> Any:
    return (get_args(kind) or (Any,))[0]


def _is_module(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, nn.Module)


def _is_simple(value: Any) -> bool:
    """A number, a word, or a list of them; text with dots could be an import path."""
    if isinstance(value, list | tuple):
        return all(_is_simple(each) for each in value)
    return type(value) in PLAIN or (isinstance(value, str) and "." not in value)
