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
        head: The column headings, of one or two lines.
        rows: The cells.
        title: The table's title.
        names: Number of columns, from the left, with names; the others have figures.
        wrap: Wrap the first column's names if the table is too wide. Figures are never wrapped.
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
    """A console, wide enough for the tables if the output goes to a file or pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def check_least(options: object, **least: int) -> None:
    """Raise an AttnlabError for options below a number; None is allowed."""
    for name, number in least.items():
        value = getattr(options, name)
        if value is not None and value < number:
            raise AttnlabError(f"--{name} must be at least {number}, got {value}.")
