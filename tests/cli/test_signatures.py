"""Options from signatures, of functions written for the purpose."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import pytest

from attnlab.cli.signatures import CommandParser, add_command, add_parameters
from attnlab.errors import AttnlabError


def measure(
    networks: tuple[str, ...] = (),
    *,
    sizes: list[int] | None = None,
    at: tuple[str, ...] = (),
    layout: Literal["wide", "tall"] = "wide",
    no_time: bool = False,
    share: float = 0.5,
    csv_file: Path | None = None,
) -> None:
    """Measure networks.

    All of them, one by one.

    Args:
        networks: Their names.
        sizes: Side of an image, in pixels; may be repeated.
        at: Where, in several words.
        layout: Of the table.
        no_time: Count only.
        share: Of the machine: 100% of it is 1.
        csv_file: A file, over
            two lines.
    """


def show(name: str, others: tuple[str, ...]) -> None:
    """Show one.

    Args:
        name: Its name.
        others: More of them.
    """


@pytest.fixture
def parser() -> CommandParser:
    parser = CommandParser(prog="main.py measure")
    add_parameters(parser, measure)
    return parser


def read(parser: CommandParser, *words: str) -> dict[str, Any]:
    return vars(parser.parse_args(words))


def test_nothing_typed_leaves_the_functions_own_defaults(parser: CommandParser) -> None:
    """A default that says nothing is not passed at all."""
    given = read(parser)
    assert given.pop("networks", ()) in ((), [])
    assert given == {"layout": "wide", "share": 0.5}
    measure(**given)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["a", "b"], "networks", ["a", "b"]),
        (["--sizes", "3", "--sizes=5"], "sizes", [3, 5]),
        (["--at", "one", "two"], "at", ["one", "two"]),
        (["--layout=tall"], "layout", "tall"),
        (["--no-time"], "no_time", True),
        (["--no_time"], "no_time", True),
        (["--share", "-0.25"], "share", -0.25),
        (["--csv-file", "x.csv"], "csv_file", Path("x.csv")),
        (["--csv_file=x.csv"], "csv_file", Path("x.csv")),
    ],
)
def test_each_kind_of_parameter(parser: CommandParser, words: list[str], name: str, value: object) -> None:
    assert read(parser, *words)[name] == value


def test_positionals_without_a_default_are_needed() -> None:
    parser = CommandParser(prog="main.py show")
    add_parameters(parser, show)
    assert read(parser, "se", "eca", "simam") == {"name": "se", "others": ["eca", "simam"]}
    with pytest.raises(AttnlabError, match="OTHER"):
        parser.parse_args(["se"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "3"], "Did you mean --sizes"),
        (["--no-tim"], "Did you mean --no-time or --no_time"),
        (["--layout=tal"], "Did you mean tall"),
        (["--sizes=many"], "invalid int value: 'many'"),
        (["--completely-other"], r"--completely-other\. See main.py measure --help"),
    ],
)
def test_errors_name_what_may_have_been_meant(parser: CommandParser, words: list[str], said: str) -> None:
    with pytest.raises(AttnlabError, match=said):
        parser.parse_args(words)


def test_the_help_page(parser: CommandParser) -> None:
    page = " ".join(parser.format_help().split())
    assert "100% of it is 1. (default: 0.5)" in page
    assert "A file, over two lines." in page
    assert "None" not in page
    assert "SUPPRESS" not in page
    assert "[NETWORK ...]" in page


def test_a_command_has_the_functions_page_and_calls_it() -> None:
    parser = CommandParser(prog="main.py")
    commands = parser.add_subparsers()
    add_command(commands, "measure", measure, "main.py measure a\nmain.py measure b")
    given = parser.parse_args(["measure", "a"])
    assert isinstance(given, argparse.Namespace)
    assert (given.run, given.networks) == (measure, ["a"])
    assert "Measure networks\n" in parser.format_help()
    page = commands.choices["measure"].format_help()
    assert "All of them, one by one." in page
    assert page.endswith("examples:\n  main.py measure a\n  main.py measure b\n")
