"""The options of an attention module, read from its signature and its docstring.

Name, type and default come from the constructor's signature, help from ``Args:`` in the class's Google
docstring.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from attnlab.errors import AttnlabError, unknown


@dataclass(frozen=True)
class Option:
    """One option of an attention module.

    Attributes:
        name: Keyword of the constructor.
        annotation: Its type; ``Any`` if not annotated.
        default: Its default; ``inspect.Parameter.empty`` if it is required.
        help: Its entry in the docstring's ``Args:``, on one line.
    """

    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def type_name(self) -> str:
        """The type as text: ``int | None``, ``'bn' | 'gn'``."""
        return _type_name(self.annotation)

    @property
    def required(self) -> bool:
        """Whether the option has no default."""
        return self.default is inspect.Parameter.empty

    def __str__(self) -> str:
        return f"{self.name}: {self.type_name}" + ("" if self.required else f" = {self.default!r}")


def read_options(module: type, presets: Mapping[str, Any] | None = None) -> list[Option]:
    """The options of a module class: its constructor's parameters after ``channels``.

    Args:
        module: A class built as ``module(channels, **options)``.
        presets: Defaults that replace the signature's.

    Returns:
        The options in the constructor's order.
    """
    presets = presets or {}
    hints = get_type_hints(module.__init__)  # type: ignore[misc]
    helps = _docstring_args(inspect.getdoc(module) or "")
    _, *parameters = inspect.signature(module).parameters.values()
    return [
        Option(
            name=parameter.name,
            annotation=hints.get(parameter.name, Any),
            default=presets.get(parameter.name, parameter.default),
            help=helps.get(parameter.name, ""),
        )
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def check_options(owner: str, options: Sequence[Option], values: Mapping[str, Any]) -> None:
    """Check values against the options.

    Args:
        owner: Whose options they are, e.g. ``"attention 'cbam'"``.
        options: All options.
        values: Values by option name.

    Raises:
        AttnlabError: An unknown option (similar ones are named), a missing one, or a value of the wrong type.
    """
    by_name = {option.name: option for option in options}
    described = f"Options of {owner}: {'; '.join(map(str, options)) or 'none'}."
    for name, value in values.items():
        if name not in by_name:
            raise unknown(f"option of {owner}", name, by_name, described)
        if not _accepts(by_name[name].annotation, value):
            raise AttnlabError(
                f"Option '{name}' of {owner} takes {by_name[name].type_name}, "
                f"got {value!r} ({type(value).__name__}). {described}"
            )
    missing = [option.name for option in options if option.required and option.name not in values]
    if missing:
        raise AttnlabError(
            f"{owner[0].upper()}{owner[1:]} needs the option {', '.join(missing)}. {described}"
        )


def _accepts(annotation: Any, value: Any) -> bool:
    """Whether a value from YAML or Python fits an annotation; unusual annotations accept all."""
    origin = get_origin(annotation)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        return any(_accepts(member, value) for member in get_args(annotation))
    if origin is not None:
        return not isinstance(origin, type) or isinstance(value, origin)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(annotation, type) or isinstance(value, annotation)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(map(repr, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(map(_type_name, get_args(annotation)))
    if annotation is types.NoneType:
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).removeprefix("typing.")


def _docstring_args(docstring: str) -> dict[str, str]:
    """The entries under ``Args:`` of a Google docstring, each on one line."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    lines = inspect.cleandoc(" \n" + section.group(1)).splitlines()
    entries: dict[str, str] = {}
    name = ""
    for line in lines:
        start = re.match(r"(\w+)(?: \([^)]*\))?:\s*(.*)", line)
        if start:
            name, entries[start.group(1)] = start.group(1), start.group(2)
        elif name and line.strip():
            entries[name] = f"{entries[name]} {line.strip()}".strip()
    return entries
