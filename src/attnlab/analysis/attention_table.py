"""Tables of the attention modules and their cost: ``attention list`` and ``attention show``."""

from __future__ import annotations

import copy
import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from attnlab.analysis.measure import Device, check_device, finish, forward_pass, paired_rounds, saved_bytes
from attnlab.analysis.tables import check_least, markdown_table, terminal_table
from attnlab.attention import AttentionSpec, get_attention, list_attentions
from attnlab.attention.macs import count_macs
from attnlab.errors import AttnlabError, unknown

COUNTS = (
    "MACs cover convolutions and matrix products; element-wise operations are not counted. Kept: memory "
    "that autograd holds for the backward pass, including the input map if the module needs it again."
)
# Elements of a map that is computed rather than only shaped.
SMALL_MAP = 2**20


@dataclass(frozen=True)
class Trial:
    """The feature map on which modules are measured, and how they are timed.

    Attributes:
        channels: Channels of the map.
        size: Height and width of the map.
        batch: Batch size; MACs are per map, memory and times per batch.
        rounds: Timed rounds; 0 skips timing.
        device: Device to time on.

    Raises:
        AttnlabError: A number is too small, or the device does not exist.
    """

    channels: int = 64
    size: int = 56
    batch: int = 1
    rounds: int = 5
    device: Device = "cpu"

    def __post_init__(self) -> None:
        check_least(self, channels=1, size=1, batch=1, rounds=0)
        check_device(self.device, timed=self.rounds > 0)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the batch, (B,C,H,W)."""
        return self.batch, self.channels, self.size, self.size


@dataclass(frozen=True)
class AttentionRow:
    """One attention module with default options.

    Attributes:
        spec: The module's registry entry.
        parameters: Its parameters.
        macs: Its MACs on one map.
        kept_bytes: Bytes that autograd holds for the batch's backward pass, including the input if the module
            needs it again.
        forward: Milliseconds of a forward pass without gradients; None if it was not timed.
        backward: Milliseconds of a backward pass in training, or None.
    """

    spec: AttentionSpec
    parameters: int
    macs: int
    kept_bytes: int
    forward: float | None = None
    backward: float | None = None

    def cells(self) -> list[str]:
        """The figures as text."""
        times = [f"{taken:.2f}" for taken in (self.forward, self.backward) if taken is not None]
        return [f"{self.parameters:,d}", f"{self.macs:,d}", f"{self.kept_bytes / 2**20:.2f}", *times]


SORTS: dict[str, Callable[[AttentionRow], Any]] = {
    "name": lambda row: row.spec.name,
    "year": lambda row: row.spec.year or 0,
    "parameters": lambda row: row.parameters,
    "macs": lambda row: row.macs,
    "memory": lambda row: row.kept_bytes,
    "forward": lambda row: row.forward,
    "backward": lambda row: row.backward,
}


def attention_rows(trial: Trial, sort: str = "name") -> list[AttentionRow]:
    """All registered modules with their cost, sorted by one of `SORTS`, ascending.

    Raises:
        AttnlabError: Unknown sort column, sorting by time without timing, or a number of channels that a
            module cannot take.
    """
    if sort not in SORTS:
        raise unknown("sort", sort, SORTS)
    if sort in ("forward", "backward") and not trial.rounds:
        raise AttnlabError(f"--sort {sort} needs times: leave --no-time out, or sort by another column.")
    # Threads of so short operations would mostly wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [_row(name, trial) for name in list_attentions()]
    finally:
        torch.set_num_threads(threads)
    if trial.rounds:
        rows = _with_times(rows, trial)
    return sorted(rows, key=lambda row: (SORTS[sort](row), row.spec.name))


def attention_table(rows: list[AttentionRow], trial: Trial) -> RenderableType:
    """The rows as a table for the terminal."""
    cells = [
        (
            f"[bold]{row.spec.name}",
            str(row.spec.year or ""),
            row.spec.paper.removeprefix("https://"),
            *row.cells(),
        )
        for row in rows
    ]
    title = f"Attention modules with default options; cost on {_words(trial)}"
    table = terminal_table(["name", "year", "paper", *_head(trial)], cells, title, names=3)
    return Group(table, *(Text(note, style="dim") for note in _notes(trial)))


def attention_markdown(rows: list[AttentionRow], trial: Trial) -> str:
    """The rows as a Markdown table with the papers' titles, and the measuring conditions."""
    cells = []
    for row in rows:
        spec = row.spec
        paper = f"[{spec.title}]({spec.paper}), {spec.year}" if spec.paper else spec.title
        cells.append((f"`{spec.name}`", paper, *row.cells()))
    table = markdown_table(["name", "paper", *_head(trial)], cells, names=2)
    return f"{table}\n\nCost on {_words(trial)}. {' '.join(_notes(trial))}"


def attention_page(name: str) -> RenderableType:
    """One module for the terminal: paper, formula, options, and the YAML and flags that use it.

    Raises:
        AttnlabError: There is no module of this registered name or import path.
    """
    spec = get_attention(name)
    options = spec.options()
    table = Table(
        "option", "type", "default", "meaning", title=f"Options of {spec.name}", title_justify="left"
    )
    for option in options:
        default = "to be given" if option.required else repr(option.default)
        table.add_row(option.name, option.type_name, default, option.help)
    # The formula is the module file's docstring without its title, or the class's.
    text = inspect.getdoc(inspect.getmodule(spec.module)) or inspect.getdoc(spec.module) or ""
    formula = text.partition("\n")[2] if spec.title else text
    keys = f"name: {spec.name}", "at: auto", "mode: replace", "options: {}"
    yaml = "\n      ".join(("model:\n  init_args:\n    attention:", *keys))
    flags = [f"--model.attention.{option.name}={option.default}" for option in options[:1]]
    return Group(
        Text(spec.name, style="bold"),
        Text(f"{spec.title}{', ' if spec.paper else ''}{spec.paper}\n{formula}\n"),
        table if options else Text("No options."),
        Text("\nIn YAML:", style="bold"),
        Syntax(yaml, "yaml", background_color="default"),
        Text("\nOn the command line:", style="bold"),
        Text(" ".join([f"--model.attention={spec.name}", *flags])),
    )


def _words(trial: Trial) -> str:
    maps = "one map" if trial.batch == 1 else f"a batch of {trial.batch} maps (MACs: one)"
    return f"{maps} of {trial.channels} x {trial.size} x {trial.size}"


def _head(trial: Trial) -> list[str]:
    return ["parameters", "MACs", "kept, MiB", *(["forward, ms", "backward, ms"] if trial.rounds else [])]


def _notes(trial: Trial) -> list[str]:
    times = (
        f"Times: medians of {trial.rounds} interleaved rounds, {trial.device}, {torch.get_num_threads()} "
        f"thread(s), PyTorch {torch.__version__}, float32, contiguous. They depend on the machine: compare "
        "only within a table."
    )
    return [COUNTS, times] if trial.rounds else [COUNTS]


def _row(name: str, trial: Trial) -> AttentionRow:
    spec = get_attention(name)
    module = spec.build(trial.channels)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    # What PyTorch loads for its first operation on meta takes longer than computing small maps.
    device = "cpu" if math.prod(trial.shape) <= SMALL_MAP else "meta"
    macs = count_macs(module, 1, *trial.shape[1:], device=device)
    # A leaf of the graph, as in a network, where preceding modules may keep it, too.
    x = torch.empty(trial.shape, device=device, requires_grad=True)
    kept = saved_bytes(copy.deepcopy(module).to(device).train(), x)
    return AttentionRow(spec, parameters, macs, kept)


def _with_times(rows: list[AttentionRow], trial: Trial) -> list[AttentionRow]:
    """The rows with medians over rounds that interleave all modules."""
    x = torch.randn(trial.shape, generator=torch.Generator().manual_seed(0)).to(trial.device).requires_grad_()
    modules = {row.spec.name: row.spec.build(trial.channels).to(trial.device).train() for row in rows}
    backward: dict[str, list[float]] = {name: [] for name in modules}

    def step(name: str) -> None:
        y = modules[name](x)
        finish(trial.device)
        start = time.perf_counter()
        y.backward(torch.ones_like(y))
        finish(trial.device)
        backward[name].append(time.perf_counter() - start)
        modules[name].zero_grad(set_to_none=True)
        x.grad = None

    def medians(times: dict[str, list[float]]) -> dict[str, float]:
        # Warm-up rounds.
        return {name: 1000 * median(taken[-trial.rounds :]) for name, taken in times.items()}

    paired_rounds({name: partial(step, name) for name in modules}, trial.rounds)
    works = {name: partial(forward_pass, module, x, trial.device) for name, module in modules.items()}
    forward, back = medians(paired_rounds(works, trial.rounds)), medians(backward)
    return [replace(row, forward=forward[row.spec.name], backward=back[row.spec.name]) for row in rows]
