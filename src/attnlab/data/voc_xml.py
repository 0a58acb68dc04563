"""Pascal VOC's XML annotations, read with a parser that never expands or fetches entities."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from attnlab.errors import AttnlabError

_DEEPEST = 32


class VOCObject(NamedTuple):
    """An annotated object: class; x0, y0, x1, y1; whether metrics ignore it.

    The box is in pixels from 0, the maxima exclusive.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VOCAnnotation(NamedTuple):
    """An annotation file: the stated height and width of the image in pixels; its objects, without parts."""

    size: tuple[int, int]
    objects: list[VOCObject]


def read_annotation(path: str | Path) -> VOCAnnotation:
    """Read an annotation file.

    In the file, coordinates count from 1 and the maxima are the last pixels inside; they may be fractions.

    Raises:
        AttnlabError: The file is missing, not XML, declares a document type (which could expand or fetch
            entities), or lacks the size, a name or a coordinate.
    """
    try:
        root = parse(Path(path).read_bytes())
        return VOCAnnotation(_size(root), [_object(entry) for entry in root.findall("object")])
    except OSError as error:
        raise AttnlabError(f"Cannot open the annotation '{path}': {error.strerror or error}.") from error
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise AttnlabError(f"Cannot read the annotation '{path}': {error}.") from error


def parse(data: bytes) -> ElementTree.Element:
    """Parse XML without a document type, and return its root element.

    Entities are declared in a document type, so without one there is nothing to expand or fetch; the time is
    linear in the length.

    Raises:
        ValueError: There is a document type, or elements are nested more than 32 deep.
        expat.ExpatError: It is not XML.
    """
    builder, depth = ElementTree.TreeBuilder(), 0
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"its elements are nested more than {_DEEPEST} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> NoReturn:
        raise ValueError(
            "it declares a document type (DOCTYPE), which annotations do not need and attacks use"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(data, True)
    return builder.close()


def _size(root: ElementTree.Element) -> tuple[int, int]:
    size = root.find("size")
    if size is None:
        raise ValueError("it does not state the image's size")
    height, width = (_number(size, tag) for tag in ("height", "width"))
    if min(height, width) < 1 or not (height.is_integer() and width.is_integer()):
        raise ValueError(f"it states an image size of {width:g} x {height:g} pixels")
    return int(height), int(width)


def _object(entry: ElementTree.Element) -> VOCObject:
    name = (entry.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    box = entry.find("bndbox")
    if box is None:
        raise ValueError(f"the object '{name}' has no bndbox")
    x0, y0, x1, y1 = (_number(box, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return VOCObject(name, (x0 - 1, y0 - 1, x1, y1), (entry.findtext("difficult") or "").strip() == "1")


def _number(parent: ElementTree.Element, tag: str) -> float:
    text = parent.findtext(tag)
    if text is None:
        raise ValueError(f"its {parent.tag} has no {tag}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"its {parent.tag} has the {tag} '{text.strip()[:40]}', which is not a number")
    return value
