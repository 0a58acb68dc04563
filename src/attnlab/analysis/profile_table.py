"""Profiles for the terminal, in Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from rich.console import Group, RenderableType
from rich.text import Text

from attnlab.analysis.profile import Profile, Row, Setup, ratios
from attnlab.analysis.sites import DEFAULT_SIZE, place
from attnlab.analysis.tables import markdown_table, terminal_table

COUNTS = (
    "MACs: convolutions, linear layers and matrix products per image; element-wise operations are not "
    "counted. Saved: memory that autograd holds for the backward pass, per image, without parameters."
)
DETECTORS = "Detectors: images of the detector's own size, with random boxes; saved is for a single image."
TIMES = (
    "Times: median over rounds. To none: ratio to the network without attention, median over rounds "
    "(smallest to largest)."
)


class Conditions:
    """The conditions of a profile.

    Args:
        setup: The settings.
        command: The command line.
    """

    def __init__(self, setup: Setup, command: str) -> None:
        on_gpu = setup.timed and setup.device == "cuda"
        self.setup, self.command = setup, command
        self.hardware = torch.cuda.get_device_name() if on_gpu else _processor()
        self.threads = setup.threads or torch.get_num_threads()
        self.memory_format = "channels_last" if setup.channels_last else "contiguous"
        # Dtype of images and weights; on a GPU, convolutions may use another precision.
        tf32 = on_gpu and torch.backends.cudnn.allow_tf32
        self.dtype = "float32 (convolutions in TF32)" if tf32 else "float32"
        self.note = f"{COUNTS} {TIMES}" if setup.timed else COUNTS

    def __str__(self) -> str:
        setup, side = self.setup, self.setup.size or DEFAULT_SIZE
        size = f"{side} x {side} px"
        images = f"batch {setup.batch}, {size}, {self.dtype}, torch {torch.__version__}"
        if not setup.timed:
            return f"Counted, not timed; {images}."
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        rounds = f"{setup.rounds} round{'s' if setup.rounds > 1 else ''}"
        return f"{self.hardware}, {setup.device}, {threads}, {images}, {self.memory_format}; {rounds}."


def profile_table(profiles: Sequence[Profile], conditions: Conditions) -> RenderableType:
    """A table per network and the conditions, for the terminal."""
    parts: list[RenderableType] = []
    for profile in profiles:
        cells = [_cells(profile, row) for row in profile.rows]
        parts += [Text(_title(profile), style="bold"), terminal_table(_head(profile), cells, wrap=True)]
    notes = (Text(_note(profiles, conditions), style="dim"), Text(str(conditions)), Text(conditions.command))
    return Group(*parts, *notes)


def profile_markdown(profiles: Sequence[Profile], conditions: Conditions) -> str:
    """The command, a table per network, and the conditions."""
    parts = [f"```bash\n{conditions.command}\n```"]
    for profile in profiles:
        cells = [_cells(profile, row) for row in profile.rows]
        parts += [f"**{_title(profile)}**", markdown_table(_head(profile), cells)]
    return "\n\n".join([*parts, _note(profiles, conditions), str(conditions)])


def profile_csv(profiles: Sequence[Profile], conditions: Conditions) -> str:
    """One row per network and attention; raw figures, units in the header, empty if not timed."""
    setup, timed = conditions.setup, conditions.setup.timed
    lines = [
        {
            "network": profile.subject.name,
            "attention": row.attention,
            "sites": 0 if row.attention == "none" else len(profile.sites),
            "at": " ".join([at] if isinstance(at := profile.subject.at, str) else at),
            "mode": profile.subject.mode,
            "parameters": row.parameters,
            "parameters_added": row.parameters - base.parameters,
            "macs": row.macs,
            "macs_added": row.macs - base.macs,
            "saved_bytes_per_image": row.saved_bytes,
            "saved_ratio": row.saved_bytes / base.saved_bytes,
            **_timings("forward", row.forward, base.forward),
            **_timings("forward_backward", row.step, base.step),
            "batch": setup.batch,
            "size_px": "x".join(map(str, dict.fromkeys(profile.size))),
            "rounds": len(row.step),
            "device": setup.device if timed else "",
            "hardware": conditions.hardware if timed else "",
            "threads": conditions.threads if timed else "",
            "memory_format": conditions.memory_format,
            "dtype": conditions.dtype,
            "torch": torch.__version__,
            "command": conditions.command,
        }
        for profile in profiles
        for base in profile.rows[:1]
        for row in profile.rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _note(profiles: Sequence[Profile], conditions: Conditions) -> str:
    return f"{conditions.note} {DETECTORS}" if any(each.detects for each in profiles) else conditions.note


def _title(profile: Profile) -> str:
    name = profile.subject.name
    if profile.detects:
        name += f" at {profile.size[0]} x {profile.size[1]} px"
    if not profile.sites:
        return f"{name}, no attention"
    names = list(map(place, profile.sites))
    places = names[0] if len(names) == 1 else f"{len(names)} sites, {names[0]} … {names[-1]}"
    return f"{name}: {places}; mode {profile.subject.mode}"


def _head(profile: Profile) -> list[str]:
    counts = ["attention", "parameters\n(M)", "added\n(k)", f"MACs\n({_macs_unit(profile)[0]})", "added\n(%)"]
    times = ["forward\n(ms/image)", "to none\n(rounds)", "forward+backward\n(ms/image)", "to none\n(rounds)"]
    return [*counts, "saved\n(MiB/image)", "to none", *(times if profile.rows[0].forward else [])]


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
    """A figure with a number of digits; a non-zero figure keeps at least its first digit."""
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
    """The CPU's name; on Linux it is only in a file."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
