"""attnlab's own commands, beside Lightning's: ``attention list | show | sites`` and ``profile``.

Each is a function whose signature and docstring define its options and help. torch is not imported until one
runs.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

from attnlab.cli.signatures import CommandParser, add_command
from attnlab.errors import AttnlabError

Device = Literal["cpu", "cuda"]
Sort = Literal["name", "year", "parameters", "macs", "memory", "forward", "backward"]


SITES_EXAMPLES = """\
main.py attention sites torchvision/resnet18
main.py attention sites timm/resnet50 --at resnet.conv2 --attention se --option reduction=32
main.py attention sites torchvision/vgg16_bn --at "features.*" --attention eca
main.py attention sites torchvision/resnet18 timm/regnety_004 smp/Unet:resnet18 --markdown"""
PROFILE_EXAMPLES = """\
main.py profile torchvision/resnet18
main.py profile torchvision/mobilenet_v2 --attention none se:reduction=32 ca ela_l --no-time
main.py profile timm/resnet50 --attention ela_b eca --at resnet.conv2 --device cuda --batch 128
main.py profile --config voc_deeplab_ela --size 512 --batch 4 --markdown - --csv cost.csv"""
# The command as typed; its tables repeat it.
_typed: list[str] = []


def run(argv: Sequence[str]) -> None:
    """Run one command.

    Args:
        argv: The words after ``main.py``, e.g. ``["attention", "show", "ela_b"]`` or ``["profile", ...]``.

    Raises:
        AttnlabError: The command cannot run.
        SystemExit: With status 0, for ``--help``.
    """
    _typed[:] = argv
    arguments = vars(_parser().parse_args(list(argv)))
    arguments.pop("run")(**arguments)


def _parser() -> CommandParser:
    parser = CommandParser(prog="main.py", description="Commands of attnlab that do not train.")
    rooms = parser.add_subparsers(required=True, metavar="COMMAND")
    attention = rooms.add_parser(
        "attention", help="list attention modules, explain one, show where it goes in a network"
    )
    commands = attention.add_subparsers(required=True, metavar="COMMAND")
    add_command(commands, "list", attention_list)
    add_command(commands, "show", attention_show)
    add_command(commands, "sites", attention_sites, SITES_EXAMPLES)
    add_command(rooms, "profile", profile, PROFILE_EXAMPLES)
    return parser


def attention_list(
    *,
    channels: int = 64,
    size: int = 56,
    batch: int = 1,
    sort: Sort = "name",
    rounds: int = 5,
    no_time: bool = False,
    device: Device = "cpu",
    markdown: bool = False,
) -> None:
    """All attention modules with paper and cost on a feature map of a given size.

    Year, paper, parameters, MACs, memory held for the backward pass, and forward and backward time, with
    default options.

    Args:
        channels: Channels of the feature map.
        size: Its height and width.
        batch: Batch size for memory and times.
        sort: Column to sort by.
        rounds: Number of timing rounds; each round times every module once.
        no_time: Skip the timing.
        device: Device to time on.
        markdown: Print a Markdown table.
    """
    from attnlab.analysis import attention_table as table
    from attnlab.analysis.tables import make_console

    trial = table.Trial(channels, size, batch, 0 if no_time else rounds, device)
    rows = table.attention_rows(trial, sort)
    if markdown:
        print(table.attention_markdown(rows, trial))
    else:
        make_console().print(table.attention_table(rows, trial))


def attention_show(name: str) -> None:
    """One module: paper, formula, options, and YAML to copy.

    Args:
        name: A name from ``attention list``, or an import path.
    """
    from attnlab.analysis.attention_table import attention_page
    from attnlab.analysis.tables import make_console

    make_console().print(attention_page(name))


def attention_sites(
    networks: tuple[str, ...],
    *,
    attention: str = "ela_b",
    at: list[str] | None = None,
    mode: str = "replace",
    option: list[str] | None = None,
    size: int | None = None,
    markdown: bool = False,
) -> None:
    """Where a placement puts attention in a network, and what it costs there.

    Args:
        networks: torchvision/NAME, timm/NAME, smp/ARCHITECTURE:ENCODER or detection/NAME; several give a
            summary.
        attention: A name from ``attention list``, or an import path.
        at: Placement, module name or pattern; may be repeated (default: auto).
        mode: replace, residual or rezero.
        option: Option of the attention module as KEY=VALUE; may be repeated.
        size: Height and width of the image for the cost (default: 224, or the detector's own size).
        markdown: Print the summary as a Markdown table.
    """
    from attnlab.analysis import sites
    from attnlab.analysis.profile_subjects import key_values
    from attnlab.analysis.tables import make_console

    options = key_values(option or [], "--option takes KEY=VALUE")
    reports = [
        sites.report_sites(name, attention, at or "auto", cast(Any, mode), options, size) for name in networks
    ]
    if markdown:
        print(sites.summary_markdown(reports))
    elif len(reports) == 1:
        make_console().print(sites.sites_table(reports[0], attention))
    else:
        make_console().print(sites.summary_table(reports, attention))


def profile(
    networks: tuple[str, ...] = (),
    *,
    config: list[str] | None = None,
    attention: tuple[str, ...] | None = None,
    at: list[str] | None = None,
    mode: str | None = None,
    classes: int | None = None,
    size: int | None = None,
    batch: int | None = None,
    rounds: int | None = None,
    seconds: float = 25.0,
    no_time: bool = False,
    device: Device = "cpu",
    channels_last: bool = False,
    threads: int | None = None,
    markdown: str | None = None,
    csv: str | None = None,
) -> None:
    """What attention modules cost in a network: parameters, MACs, memory, time.

    Memory is what is held for the backward pass; times are for the forward pass and for forward plus
    backward.

    Args:
        networks: torchvision/NAME, timm/NAME, smp/ARCHITECTURE:ENCODER or detection/NAME, without pretrained
            weights; one table each. Give them before the options.
        config: Recipe, by path or name, to take network, attention, placement and mode from; may be repeated.
        attention: Names from ``attention list``, with options as NAME:KEY=VALUE[,KEY=VALUE], or all; the
            baseline none is always included (default: none se eca cbam ca sa ela_t ela_b ela_s ela_l; with
            --config, the recipe's own).
        at: Placement, module name or pattern; may be repeated (default: auto, or the recipe's).
        mode: replace, residual or rezero (default: replace, or the recipe's).
        classes: Number of classes (default: the library's; with --config 1000 for classification, 21 for
            segmentation, 80 for detection).
        size: Height and width of the images (default: 224, or the detector's own size).
        batch: Batch size; MACs, memory and time are reported per image (default: 2 when timing on the CPU,
            else 16).
        rounds: Number of timing rounds; each round times every variant once (default: as many as fit in
            --seconds, 2 to 10).
        seconds: Time budget for one network's timing rounds, if --rounds is not given.
        no_time: Count only, without times.
        device: Where times are taken.
        channels_last: Time with images and weights in channels_last memory format.
        threads: CPU threads per operation (default: PyTorch's choice).
        markdown: Also write the tables to this file as Markdown; - prints Markdown instead of the plain
            tables.
        csv: Write all figures to this file as CSV: one row per network and attention, units in the header.
    """
    from rich.console import Console

    from attnlab.analysis import profile, profile_subjects, profile_table
    from attnlab.analysis.tables import make_console

    for path in filter(None, (None if markdown == "-" else markdown, csv)):
        _check_writable(Path(path))
    setup = profile.Setup(
        size,
        (16 if device == "cuda" or no_time else 2) if batch is None else batch,
        10 if rounds is None else rounds,
        device,
        channels_last,
        threads,
        timed=not no_time,
        seconds=seconds if rounds is None else None,
    )
    subjects = profile_subjects.read_subjects(networks, config or (), attention, at, cast(Any, mode), classes)
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            profiles = profile.profile(subjects, setup, status.update)
    else:
        profiles = profile.profile(subjects, setup, lambda text: print(text, file=sys.stderr, flush=True))
    if setup.timed:
        fewest = min(len(row.step) for each in profiles for row in each.rows)
        setup = dataclasses.replace(setup, rounds=fewest)
    conditions = profile_table.Conditions(setup, shlex.join(["python", "main.py", *_typed]))
    as_markdown = profile_table.profile_markdown(profiles, conditions)
    if markdown == "-":
        print(as_markdown)
    else:
        make_console().print(profile_table.profile_table(profiles, conditions))
    if markdown and markdown != "-":
        Path(markdown).write_text(as_markdown + "\n", encoding="utf-8")
    if csv:
        Path(csv).write_text(profile_table.profile_csv(profiles, conditions), encoding="utf-8")


def _check_writable(path: Path) -> None:
    """Fail early if the output file cannot be written."""
    existed = path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise AttnlabError(f"Cannot write {path}: {error.strerror or error}.") from error
    if not existed:
        with suppress(OSError):
            path.unlink()
