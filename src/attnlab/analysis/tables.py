"""Tables of names and figures, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from attnlab.errors import AttnlabError


def terminal_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    names: int = 1,
    wrap: bool = False,
) -> Table:
    """A table for the terminal.

    Args:
        head: What stands above each column; it may have two lines.
        rows: The cells.
        title: What stands above the table.
        names: How many of the columns, from the left, hold names; the others hold figures.
        wrap: Where the width does not suffice, the names of the first column wrap. Figures stay whole.
    """
    table = Table(title=title)
    for number, words in enumerate(head):
        whole = number >= names or (number == 0 and not wrap)
        table.add_column(
            words, justify="right" if number >= names else "left", no_wrap=whole, overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """A table in Markdown; see `terminal_table`."""
    rules = ["---"] * names + ["---:"] * (len(head) - names)
    lines = [[words.replace("\n", " ") for words in head], rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def make_console() -> Console:
    """A console that is wide enough for the tables where the output goes to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def check_least(options: object, **least: int) -> None:
    """Refuse options that are below a number, by an AttnlabError; None is no number."""
    for name, number in least.items():
        value = getattr(options, name)
        if value is not None and value < number:
            raise AttnlabError(f"--{name} is at least {number}, got {value}.")
