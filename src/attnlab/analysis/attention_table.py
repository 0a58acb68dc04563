"""What attention modules there are and what each costs: ``attention list`` and ``attention show``."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal, get_args

import torch
from rich.console import Console, Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from torch import Tensor

from attnlab.analysis.profile import Device, paired_rounds, saved_bytes
from attnlab.attention import AttentionSpec, get_attention, list_attentions
from attnlab.attention.macs import count_macs
from attnlab.errors import AttnlabError, unknown

Sort = Literal["name", "year", "parameters", "macs", "memory", "forward", "backward"]
SORTS: tuple[str, ...] = get_args(Sort)

_NOTES = (
    "MACs are those of convolutions and matrix products; element-wise operations count as zero. Kept: what "
    "autograd holds for the backward pass, the map that goes in among it where a module needs it again.",
    "Times: medians of {rounds} rounds in which all modules take turns, {device}, {threads} thread(s), "
    "PyTorch {version}, float32, contiguous. They are this machine's: compare within one table.",
)


@dataclass(frozen=True)
class Trial:
    """The map on which modules are tried, and how they are timed.

    Attributes:
        channels: Channels of the map.
        size: Height and width of the map.
        batch: Maps in a batch; MACs are those of one map, memory and times those of the batch.
        rounds: Rounds that are timed; 0 takes no times.
        device: Where they are timed.

    Raises:
        AttnlabError: For a number that is too small, or a device that is not there.
    """

    channels: int = 64
    size: int = 56
    batch: int = 1
    rounds: int = 5
    device: Device = "cpu"

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("size", 1), ("batch", 1), ("rounds", 0)):
            if getattr(self, name) < least:
                raise AttnlabError(f"--{name} is at least {least}, got {getattr(self, name)}.")
        if self.rounds and self.device == "cuda" and not torch.cuda.is_available():
            raise AttnlabError("This PyTorch sees no CUDA device; use --device cpu, or --no-time for counts.")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the batch, (B,C,H,W)."""
        return self.batch, self.channels, self.size, self.size


@dataclass(frozen=True)
class AttentionRow:
    """One attention module, at its default options.

    Attributes:
        spec: The module's registry entry.
        parameters: Its parameters.
        macs: Its multiply-accumulates on one map.
        kept_bytes: Bytes that autograd holds for the backward pass of the batch, the input among them where
            the module needs it again.
        forward: Milliseconds of a forward pass without gradients; None if it was not timed.
        backward: Milliseconds of a backward pass in training; likewise.
    """

    spec: AttentionSpec
    parameters: int
    macs: int
    kept_bytes: int
    forward: float | None = None
    backward: float | None = None


def attention_rows(trial: Trial, sort: str = "name") -> list[AttentionRow]:
    """All registered modules with their cost.

    Args:
        trial: The map, and how times are taken.
        sort: One of `SORTS`, smallest first.

    Returns:
        One row a name.

    Raises:
        AttnlabError: For an unknown sort, a sort by times that are not taken, or a width that a module cannot
            take.
    """
    keys: dict[str, Callable[[AttentionRow], Any]] = {
        "name": lambda row: row.spec.name,
        "year": lambda row: row.spec.year or 0,
        "parameters": lambda row: row.parameters,
        "macs": lambda row: row.macs,
        "memory": lambda row: row.kept_bytes,
        "forward": lambda row: row.forward,
        "backward": lambda row: row.backward,
    }
    if sort not in keys:
        raise unknown("sort", sort, keys)
    if sort in ("forward", "backward") and not trial.rounds:
        raise AttnlabError(f"--sort {sort} needs times; leave --no-time out, or sort by another column.")
    rows = [_row(name, trial) for name in list_attentions()]
    if trial.rounds:
        rows = _with_times(rows, trial)
    return sorted(rows, key=lambda row: (keys[sort](row), row.spec.name))


def attention_table(rows: list[AttentionRow], trial: Trial) -> RenderableType:
    """The rows as a table for the terminal."""
    table = Table(title=f"Attention modules at their default options; cost on {_map(trial)}")
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("year")
    table.add_column("paper")
    for header in _headers(trial):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        paper = row.spec.paper.removeprefix("https://")
        table.add_row(row.spec.name, str(row.spec.year or ""), paper, *_cells(row))
    return Group(table, *(Text(note, style="dim") for note in _notes(trial)))


def attention_markdown(rows: list[AttentionRow], trial: Trial) -> str:
    """The rows as a Markdown table, with the papers' titles, and what it was measured on."""
    headers = _headers(trial)
    lines = [
        f"| name | paper | {' | '.join(headers)} |",
        f"| --- | --- | {' | '.join(['---:'] * len(headers))} |",
    ]
    for row in rows:
        spec = row.spec
        paper = f"[{spec.title}]({spec.paper}), {spec.year}" if spec.paper else spec.title
        lines.append(f"| `{spec.name}` | {paper} | {' | '.join(_cells(row))} |")
    return "\n".join([*lines, "", f"Cost on {_map(trial)}. {' '.join(_notes(trial))}"])


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


def _row(name: str, trial: Trial) -> AttentionRow:
    spec = get_attention(name)
    module = spec.build(trial.channels)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    macs = count_macs(module, 1, *trial.shape[1:])
    # A leaf of the graph, as the map is in a network: autograd may keep it for the modules before, too.
    x = torch.empty(trial.shape, device="meta", requires_grad=True)
    kept = saved_bytes(copy.deepcopy(module).to("meta").train(), x)
    return AttentionRow(spec, parameters, macs, kept)


def _with_times(rows: list[AttentionRow], trial: Trial) -> list[AttentionRow]:
    """The rows with medians over rounds in which all modules take turns."""
    x = torch.randn(trial.shape, generator=torch.Generator().manual_seed(0)).to(trial.device).requires_grad_()
    modules = {row.spec.name: row.spec.build(trial.channels).to(trial.device).train() for row in rows}
    backward: dict[str, list[float]] = {name: [] for name in modules}

    def step(name: str) -> None:
        y = modules[name](x)
        _finish(x)
        start = time.perf_counter()
        y.backward(torch.ones_like(y))
        _finish(x)
        backward[name].append(time.perf_counter() - start)
        modules[name].zero_grad(set_to_none=True)
        x.grad = None

    def forward(name: str) -> None:
        with torch.no_grad():
            modules[name](x)
        _finish(x)

    paired_rounds({name: partial(step, name) for name in modules}, trial.rounds)
    forwards = paired_rounds({name: partial(forward, name) for name in modules}, trial.rounds)
    return [
        replace(
            row,
            forward=1000 * median(forwards[row.spec.name]),
            backward=1000 * median(backward[row.spec.name][-trial.rounds :]),
        )
        for row in rows
    ]


def _finish(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def _headers(trial: Trial) -> list[str]:
    return ["parameters", "MACs", "kept, MiB", *(["forward, ms", "backward, ms"] if trial.rounds else [])]


def _cells(row: AttentionRow) -> list[str]:
    times = [f"{taken:.2f}" for taken in (row.forward, row.backward) if taken is not None]
    return [f"{row.parameters:,d}", f"{row.macs:,d}", f"{row.kept_bytes / 2**20:.2f}", *times]


def _map(trial: Trial) -> str:
    maps = "one map" if trial.batch == 1 else f"a batch of {trial.batch} maps (MACs: one)"
    return f"{maps} of {trial.channels} x {trial.size} x {trial.size}"


def _notes(trial: Trial) -> list[str]:
    given = {
        "rounds": trial.rounds,
        "device": trial.device,
        "threads": torch.get_num_threads(),
        "version": torch.__version__,
    }
    return [note.format(**given) for note in _NOTES[: 2 if trial.rounds else 1]]


def _formula(spec: AttentionSpec) -> str:
    """What the module's file says after its title, or what the class says."""
    text = inspect.getdoc(inspect.getmodule(spec.module)) or inspect.getdoc(spec.module) or ""
    return text.partition("\n")[2] if spec.title else text


def _yaml(spec: AttentionSpec) -> str:
    return f"model:\n  attention:\n    name: {spec.name}\n    at: auto\n    mode: replace\n    options: {{}}"


def _flags(spec: AttentionSpec) -> str:
    options = [f" --model.attention.{option.name}={option.default}" for option in spec.options()[:1]]
    return f"--model.attention={spec.name}" + "".join(options)
