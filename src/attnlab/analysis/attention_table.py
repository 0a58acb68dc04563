"""What attention modules there are and what each costs: ``attention list`` and ``attention show``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Literal, get_args

from rich.console import Console, Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from attnlab.attention import AttentionSpec, get_attention, list_attentions
from attnlab.attention.macs import count_macs
from attnlab.errors import unknown

Sort = Literal["name", "year", "parameters", "macs"]
SORTS: tuple[str, ...] = get_args(Sort)


@dataclass(frozen=True)
class AttentionRow:
    """One attention module, at its default options.

    Attributes:
        spec: The module's registry entry.
        parameters: Its parameters.
        macs: Its multiply-accumulates on one map.
    """

    spec: AttentionSpec
    parameters: int
    macs: int


def attention_rows(channels: int = 64, size: int = 56, sort: str = "name") -> list[AttentionRow]:
    """All registered modules with their cost on a map of (1, channels, size, size).

    Args:
        channels: Channels of the map.
        size: Height and width of the map.
        sort: ``name``, ``year``, ``parameters`` or ``macs``, smallest first.

    Returns:
        One row a name.

    Raises:
        AttnlabError: For an unknown sort, or a width that a module cannot take.
    """
    keys = {
        "name": lambda row: row.spec.name,
        "year": lambda row: (row.spec.year or 0, row.spec.name),
        "parameters": lambda row: (row.parameters, row.spec.name),
        "macs": lambda row: (row.macs, row.spec.name),
    }
    if sort not in keys:
        raise unknown("sort", sort, keys)
    return sorted((_row(name, channels, size) for name in list_attentions()), key=keys[sort])


def attention_table(rows: list[AttentionRow], channels: int, size: int) -> RenderableType:
    """The rows as a table for the terminal."""
    table = Table(title=f"Attention modules; cost on one map of {channels} x {size} x {size}")
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("year")
    table.add_column("paper", no_wrap=True)
    table.add_column("options and defaults")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    for row in rows:
        options = ", ".join(f"{option.name}={option.default}" for option in row.spec.options())
        table.add_row(
            row.spec.name,
            str(row.spec.year or ""),
            row.spec.paper.removeprefix("https://"),
            options,
            f"{row.parameters:,d}",
            f"{row.macs:,d}",
        )
    note = "MACs are those of convolutions and matrix products; element-wise operations count as zero."
    return Group(table, Text(note, style="dim"))


def attention_markdown(rows: list[AttentionRow]) -> str:
    """The rows as a Markdown table, with the papers' titles."""
    lines = [
        "| name | paper | options and defaults | parameters | MACs |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for row in rows:
        spec = row.spec
        paper = f"[{spec.title}]({spec.paper}), {spec.year}" if spec.paper else spec.title
        options = ", ".join(f"`{option.name}={option.default}`" for option in spec.options())
        lines.append(f"| `{spec.name}` | {paper} | {options} | {row.parameters:,d} | {row.macs:,d} |")
    return "\n".join(lines)


def attention_page(name: str) -> RenderableType:
    """One module in full: paper, formula, options, and the YAML and flags that use it.

    Args:
        name: A registered name or an import path.

    Returns:
        The page for the terminal.

    Raises:
        AttnlabError: If there is no such module.
    """
    spec = get_attention(name)
    table = Table(
        "option", "type", "default", "meaning", title=f"Options of {spec.name}", title_justify="left"
    )
    for option in spec.options():
        default = "to be given" if option.required else repr(option.default)
        table.add_row(option.name, option.type_name, default, option.help)
    return Group(
        Text(spec.name, style="bold"),
        Text(f"{spec.title}{', ' if spec.paper else ''}{spec.paper}\n{_formula(spec)}\n"),
        table if spec.options() else Text("No options."),
        Text("\nIn YAML:", style="bold"),
        Syntax(_yaml(spec), "yaml", background_color="default"),
        Text("\nOn the command line:", style="bold"),
        Text(_flags(spec)),
    )


def make_console() -> Console:
    """A console that is wide enough for the tables where the output goes to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _row(name: str, channels: int, size: int) -> AttentionRow:
    spec = get_attention(name)
    module = spec.build(channels)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return AttentionRow(spec, parameters, count_macs(module, 1, channels, size, size))


def _formula(spec: AttentionSpec) -> str:
    """What the module's file says after its title, or what the class says."""
    text = inspect.getdoc(inspect.getmodule(spec.module)) or inspect.getdoc(spec.module) or ""
    return text.partition("\n")[2] if spec.title else text


def _yaml(spec: AttentionSpec) -> str:
    return f"model:\n  attention:\n    name: {spec.name}\n    at: auto\n    mode: replace\n    options: {{}}"


def _flags(spec: AttentionSpec) -> str:
    options = [f" --model.attention.{option.name}={option.default}" for option in spec.options()[:1]]
    return f"--model.attention={spec.name}" + "".join(options)
