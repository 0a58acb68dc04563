"""A command's options, from the signature and docstring of the function that it calls."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from docstring_parser import parse

from attnlab.errors import AttnlabError

# For all commands: an error does not say which of them did not know a word.
_FLAGS: set[str] = set()


class CommandParser(argparse.ArgumentParser):
    """A parser without abbreviations whose errors suggest the nearest options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": _Help, **options})

    def error(self, message: str) -> NoReturn:
        """Raise the message as an AttnlabError."""
        pattern = r"--[\w-]+" if message.startswith("unrecognized") else r"(?<=invalid choice: ')[^']+"
        words = re.findall(pattern, message)
        known = [*_FLAGS, *re.findall(r"\w+", message.partition("choose from")[2])]
        # A flag of another command is no more known here than one of none.
        near = [
            match
            for word in words
            for match in get_close_matches(word, [name for name in known if name != word], n=2)
        ]
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise AttnlabError(f"{message[0].upper()}{message[1:]}.{meant} See {self.prog} --help.")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Adds each option's default and keeps the layout of examples."""


def add_parameters(parser: argparse.ArgumentParser, function: Callable[..., None]) -> None:
    """Add a function's parameters to a parser as options.

    Parameters that are not keyword-only become positional. A bool is a switch, a list may be repeated, a
    tuple takes several words, a Literal gives the choices. If the default is None, the help text states what
    that means.

    Args:
        parser: The parser; parsed arguments are named as the parameters.
        function: A function with type hints and a Google docstring.
    """
    described = _docstring(function).params
    helps = {each.arg_name: " ".join((each.description or "").split()) for each in described}
    for name, parameter in inspect.signature(function).parameters.items():
        hint, default = _without_none(get_type_hints(function)[name]), parameter.default
        options: dict[str, Any] = {"help": helps[name].replace("%", "%%"), "default": default}
        if default in (None, False, ()):
            options["default"] = argparse.SUPPRESS
        if hint is bool:
            options["action"] = "store_true"
        elif get_origin(hint) is list:
            options |= {"action": "append", "type": get_args(hint)[0]}
        elif get_origin(hint) is tuple:
            options |= {"nargs": "+", "type": get_args(hint)[0]}
        elif get_origin(hint) is Literal:
            options["choices"] = get_args(hint)
        else:
            options["type"] = hint
        if parameter.kind is parameter.KEYWORD_ONLY:
            flags = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
            _FLAGS.update(flags)
            parser.add_argument(*flags, dest=name, **options)
            continue
        if default is parameter.empty:
            options.pop("default")
        elif "nargs" in options:
            options["nargs"] = "*"
        parser.add_argument(name, metavar=name.removesuffix("s").upper(), **options)


def add_command(commands: Any, name: str, function: Callable[..., None], examples: str = "") -> None:
    """Add a function as a subcommand; its docstring becomes the help page.

    Args:
        commands: The result of ``add_subparsers``.
        name: The command's name.
        function: See `add_parameters`; stored in the parsed arguments as ``run``.
        examples: Example commands, one per line.
    """
    text = _docstring(function)
    lines = "".join(f"\n  {line}" for line in examples.split("\n")) if examples else ""
    parser = commands.add_parser(
        name,
        help=(text.short_description or "").rstrip("."),
        description=text.description,
        epilog=f"examples:{lines}" if lines else None,
    )
    add_parameters(parser, function)
    parser.set_defaults(run=function)


def _docstring(function: Callable[..., None]) -> Any:
    return parse(inspect.getdoc(function) or "")


def _without_none(hint: Any) -> Any:
    kept = [each for each in get_args(hint) if each is not NoneType]
    return kept[0] if NoneType in get_args(hint) and len(kept) == 1 else hint
