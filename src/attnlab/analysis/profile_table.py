"""Profiles for the terminal, in Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attnlab.analysis.profile import Profile, Row, Setup, ratios

COUNTS = (
    "MACs: convolutions, linear layers and matrix products of one image; element-wise operations count as "
    "zero. Saved: what autograd holds for the backward pass, per image, without parameters."
)
TIMES = "Times: median of the rounds; to none: median of the rounds' ratios, smallest to largest."


@dataclass(frozen=True)
class Conditions:
    """Where and how profiles were made.

    Attributes:
        setup: What was asked for.
        hardware: Name of the processor or GPU.
        threads: Threads of one operation on the CPU.
        command: The command line.
    """

    setup: Setup
    hardware: str
    threads: int
    command: str

    @classmethod
    def here(cls, setup: Setup, command: str) -> Conditions:
        """The conditions of this process."""
        hardware = torch.cuda.get_device_name() if setup.timed and setup.device == "cuda" else _processor()
        return cls(setup, hardware, setup.threads or torch.get_num_threads(), command)

    @property
    def memory_format(self) -> str:
        """How images and weights lie in memory."""
        return "channels_last" if self.setup.channels_last else "contiguous"

    @property
    def dtype(self) -> str:
        """Of images and weights; on a GPU, convolutions may compute in another precision."""
        on_gpu = self.setup.timed and self.setup.device == "cuda" and torch.backends.cudnn.allow_tf32
        return "float32 (convolutions in TF32)" if on_gpu else "float32"

    def __str__(self) -> str:
        setup = self.setup
        images = (
            f"batch {setup.batch}, {setup.size} x {setup.size} px, {self.dtype}, torch {torch.__version__}"
        )
        if not setup.timed:
            return f"Counted, not timed; {images}."
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        rounds = f"{setup.rounds} round{'s' if setup.rounds > 1 else ''}"
        return f"{self.hardware}, {setup.device}, {threads}, {images}, {self.memory_format}; {rounds}."


def profile_table(profiles: Sequence[Profile], conditions: Conditions) -> RenderableType:
    """A table for each network, and the conditions, for the terminal."""
    parts: list[RenderableType] = []
    for profile in profiles:
        table = Table()
        for number, words in enumerate(_head(profile)):
            # Where the width does not suffice the names wrap, and the figures stay whole.
            table.add_column(
                "\n".join(words), justify="right" if number else "left", no_wrap=number > 0, overflow="fold"
            )
        for row in profile.rows:
            table.add_row(*_cells(profile, row))
        parts += [Text(_title(profile), style="bold"), table]
    return Group(
        *parts, Text(_note(conditions), style="dim"), Text(str(conditions)), Text(conditions.command)
    )


def profile_markdown(profiles: Sequence[Profile], conditions: Conditions) -> str:
    """The command, a table for each network, and the conditions."""
    parts = [f"```bash\n{conditions.command}\n```"]
    for profile in profiles:
        head = [" ".join(filter(None, words)) for words in _head(profile)]
        rows = [head, ["---", *["---:"] * (len(head) - 1)], *(_cells(profile, row) for row in profile.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        parts += [f"**{_title(profile)}**", "\n".join(lines)]
    return "\n\n".join([*parts, _note(conditions), str(conditions)])


def profile_csv(profiles: Sequence[Profile], conditions: Conditions) -> str:
    """One line a network and attention; raw figures, units in the header, empty where nothing was timed."""
    setup = conditions.setup
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for profile in profiles:
        base = profile.rows[0]
        for row in profile.rows:
            line: dict[str, object] = {
                "network": profile.network,
                "attention": row.attention,
                "sites": 0 if row.attention == "none" else len(profile.sites),
                "at": profile.at,
                "mode": profile.mode,
                "parameters": row.parameters,
                "parameters_added": row.parameters - base.parameters,
                "macs": row.macs,
                "macs_added": row.macs - base.macs,
                "saved_bytes_per_image": row.saved_bytes,
                "saved_ratio": row.saved_bytes / base.saved_bytes,
                **_timings("forward", row.forward, base.forward),
                **_timings("forward_backward", row.step, base.step),
                "batch": setup.batch,
                "size_px": setup.size,
                "rounds": len(row.step),
                "device": setup.device if setup.timed else "",
                "hardware": conditions.hardware if setup.timed else "",
                "threads": conditions.threads if setup.timed else "",
                "memory_format": conditions.memory_format,
                "dtype": conditions.dtype,
                "torch": torch.__version__,
                "command": conditions.command,
            }
            if writer is None:
                writer = csv.DictWriter(text, list(line), lineterminator="\n")
                writer.writeheader()
            writer.writerow(line)
    return text.getvalue()


def _note(conditions: Conditions) -> str:
    return f"{COUNTS} {TIMES}" if conditions.setup.timed else COUNTS


def _title(profile: Profile) -> str:
    if not profile.sites:
        return f"{profile.network}, no attention"
    names = [f"{site.name} (input)" if site.before else site.name for site in profile.sites]
    places = names[0] if len(names) == 1 else f"{len(names)} sites, {names[0]} … {names[-1]}"
    return f"{profile.network}: {places}; mode {profile.mode}"


def _head(profile: Profile) -> list[tuple[str, str]]:
    head = [
        ("attention", ""),
        ("parameters", "(M)"),
        ("added", "(k)"),
        ("MACs", f"({_macs_unit(profile)[0]})"),
        ("added", "(%)"),
        ("saved", "(MiB/image)"),
        ("to none", ""),
    ]
    if profile.rows[0].forward:
        head += [
            ("forward", "(ms/image)"),
            ("to none", "(rounds)"),
            ("forward+backward", "(ms/image)"),
            ("to none", "(rounds)"),
        ]
    return head


def _cells(profile: Profile, row: Row) -> list[str]:
    base = profile.rows[0]
    is_base = row is base
    _, scale, digits = _macs_unit(profile)
    added, more_macs = row.parameters - base.parameters, row.macs - base.macs
    cells = [
        row.attention,
        f"{row.parameters / 1e6:.3f}",
        "" if is_base else _small(added / 1e3, 1),
        f"{row.macs / scale:.{digits}f}",
        "" if is_base else _small(100 * more_macs / base.macs, 2),
        f"{row.saved_bytes / 2**20:.1f}",
        f"{row.saved_bytes / base.saved_bytes:.3f}",
    ]
    for times, base_times in ((row.forward, base.forward), (row.step, base.step)):
        if times:
            middle, smallest, largest = ratios(times, base_times)
            spread = f"{middle:.2f}" if is_base else f"{middle:.2f} ({smallest:.2f} to {largest:.2f})"
            cells += [f"{1e3 * median(times):.2f}", spread]
    return cells


def _small(value: float, digits: int) -> str:
    """A figure of so many digits; one that these would make zero has its first digit, zero is 0."""
    if abs(value) * 10**digits < 0.5:
        return f"{value:.1g}"
    return f"{value:.{digits}f}"


def _macs_unit(profile: Profile) -> tuple[str, float, int]:
    """Unit, its size and digits, the same for all rows of a table."""
    return ("G", 1e9, 3) if profile.rows[0].macs >= 1e9 else ("M", 1e6, 1)


def _timings(name: str, times: Sequence[float], base: Sequence[float]) -> dict[str, float | str]:
    keys = (f"{name}_ms_per_image", f"{name}_ratio", f"{name}_ratio_smallest", f"{name}_ratio_largest")
    if not times:
        return dict.fromkeys(keys, "")
    return dict(zip(keys, (1e3 * median(times), *ratios(times, base)), strict=True))


def _processor() -> str:
    """The CPU's name; Linux tells it in a file only."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
