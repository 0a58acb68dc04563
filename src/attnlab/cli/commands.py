"""attnlab's own commands, beside Lightning's: ``attention list | show | sites`` and ``profile``.

Each is a function; the parser is made of its signature and docstring. Nothing of torch is imported until one
runs, and a command imports only what it needs.
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
# The words of the command that is run, which its tables repeat.
_typed: list[str] = []


def run(argv: Sequence[str]) -> None:
    """Run one command.

    Args:
        argv: The words after ``main.py``, e.g. ``["attention", "show", "ela_b"]`` or ``["profile", ...]``.

    Raises:
        AttnlabError: If the command cannot work; its message is for the user.
        SystemExit: With status 0, for ``--help``.
    """
    _typed[:] = argv
    arguments = vars(_parser().parse_args(list(argv)))
    arguments.pop("run")(**arguments)


def _parser() -> CommandParser:
    parser = CommandParser(prog="main.py", description="Commands of attnlab that train nothing.")
    rooms = parser.add_subparsers(required=True, metavar="COMMAND")
    attention = rooms.add_parser("attention", help="look at the attention modules and their places")
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
    """All attention modules: paper, and cost on a map of any size.

    Year, paper, parameters, MACs, memory held for the backward pass, time of a forward and of a backward
    pass, each at the module's default options.

    Args:
        channels: Channels of the map.
        size: Its height and width.
        batch: Maps in a batch, for memory and times.
        sort: Column to sort by.
        rounds: Rounds in which each module is timed once.
        no_time: Count only, without times.
        device: Where times are taken.
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
    """One module: paper, formula, each option, YAML to copy.

    Args:
        name: A name of ``attention list``, or an import path.
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
    size: int = 224,
    markdown: bool = False,
) -> None:
    """Where attention goes in a network, and what it costs there.

    Args:
        networks: torchvision/NAME, timm/NAME or smp/ARCHITECTURE:ENCODER; of several, a summary.
        attention: A name of ``attention list``, or an import path.
        at: Placement, module name or pattern; may be repeated (default: auto).
        mode: replace, residual or rezero.
        option: Option of the attention, as KEY=VALUE; may be repeated.
        size: Height and width of the image whose cost is counted.
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
    size: int = 224,
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

    Memory is what is held for the backward pass; times are those of a forward pass, and of a forward and
    backward pass.

    Args:
        networks: torchvision/NAME, timm/NAME or smp/ARCHITECTURE:ENCODER, without pretrained weights; one
            table each. They come before the options.
        config: A recipe, by path or name: its network, attention, placement and mode; may be repeated.
        attention: Names of ``attention list``, with options as NAME:KEY=VALUE[,KEY=VALUE], or all; none is
            always there (default: none se eca cbam ca sa ela_t ela_b ela_s ela_l; for --config, its own).
        at: Placement, module name or pattern; may be repeated (default: auto, or the recipe's).
        mode: replace, residual or rezero (default: replace, or the recipe's).
        classes: Number of classes (default: the library's own; for --config 1000 in classification, else 21).
        size: Height and width of the images.
        batch: Images in a batch; MACs are those of one image, memory and time are divided by it (default: 2
            where times are taken on the CPU, else 16).
        rounds: Rounds in which the network with none and with each attention is timed once (default: as many
            as --seconds allows, 2 to 10).
        seconds: What the timed rounds of a network take together, where --rounds does not say how many.
        no_time: Count only, without times.
        device: Where times are taken.
        channels_last: Take times with the channels innermost in memory, in images and weights.
        threads: Threads of one operation on the CPU (default: PyTorch's choice).
        markdown: Write the tables as Markdown, too; - prints Markdown instead of the tables.
        csv: Write all figures as CSV: one line a network and attention, units in the header.
    """
    from rich.console import Console

    from attnlab.analysis import profile, profile_subjects, profile_table
    from attnlab.analysis.tables import make_console

    for path in filter(None, (None if markdown == "-" else markdown, csv)):
        _check_writable(Path(path))
    setup = profile.Setup(
        size,
        batch or (16 if device == "cuda" or no_time else 2),
        rounds or 10,
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
    """Refuse a file that cannot be written before the time is spent on what goes into it."""
    existed = path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise AttnlabError(f"Cannot write {path}: {error.strerror or error}.") from error
    if not existed:
        with suppress(OSError):
            path.unlink()
