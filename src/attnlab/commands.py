"""attnlab's own sub-commands, beside Lightning's: ``main.py attention list | show | sites`` and ``profile``.

Nothing but argparse is imported until a command runs, and a command imports only what it needs: the attention
modules need torch, and only ``sites`` and ``profile`` need the libraries of networks.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attnlab.errors import AttnlabError

_SITES_HELP = """\
NETWORK is torchvision/NAME, timm/NAME or smp/ARCHITECTURE:ENCODER.

examples:
  main.py attention sites torchvision/resnet18
  main.py attention sites timm/resnet50 --at resnet.conv2 --attention se --option reduction=32
  main.py attention sites torchvision/vgg16_bn --at "features.*" --attention eca
  main.py attention sites torchvision/resnet18 timm/regnety_004 smp/Unet:resnet18 --markdown
"""

_AT_HELP = "placement, module name or pattern; may be repeated"
# Left out of the arguments where it is not given.
_SEVERAL: Any = {"action": "append", "default": argparse.SUPPRESS}

_PROFILE_HELP = """\
NETWORK is torchvision/NAME, timm/NAME or smp/ARCHITECTURE:ENCODER. Networks come before --attention.

examples:
  main.py profile torchvision/resnet18
  main.py profile torchvision/mobilenet_v2 --attention none se:reduction=32 ca ela_l --no-time
  main.py profile timm/resnet50 --attention ela_b eca --at resnet.conv2 --device cuda --batch 128
  main.py profile --config configs/voc_deeplab_ela.yaml --size 512 --batch 4 --markdown - --csv cost.csv
"""


def run(argv: Sequence[str]) -> None:
    """Run one command.

    Args:
        argv: The words after ``main.py``, e.g. ``["attention", "show", "ela_b"]`` or ``["profile", ...]``.

    Raises:
        AttnlabError: If the command cannot work; its message is for the user.
        SystemExit: From argparse, for ``--help`` (0) and for words that it does not know (2).
    """
    arguments = _parser().parse_args(list(argv))
    arguments.command = shlex.join(["python", "main.py", *argv])
    arguments.run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="main.py", description="Commands of attnlab that train nothing.")
    rooms = parser.add_subparsers(required=True, metavar="COMMAND")
    attention = rooms.add_parser("attention", help="look at the attention modules and their places")
    commands = attention.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser(
        "list",
        help="all attention modules: paper, and cost on a map of any size",
        description="All attention modules at their default options: year, paper, parameters, MACs, memory "
        "held for the backward pass, time of a forward and of a backward pass.",
        formatter_class=_Help,
    )
    add = listing.add_argument
    add("--channels", type=int, default=64, help="channels of the map")
    add("--size", type=int, default=56, help="its height and width")
    add("--batch", type=int, default=1, help="maps in a batch, for memory and times")
    add("--sort", default="name", help="name, year, parameters, macs, memory, forward or backward")
    add("--rounds", type=int, default=5, help="rounds in which each module is timed once")
    add("--no-time", action="store_true", help="count only, without times")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where times are taken")
    add("--markdown", action="store_true", help="print a Markdown table")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="one module: paper, formula, each option, YAML to copy")
    show.add_argument("name", metavar="NAME", help="a name of `attention list`, or an import path")
    show.set_defaults(run=_show)

    sites = commands.add_parser(
        "sites",
        help="where attention goes in a network, and what it costs there",
        description="Where attention goes in a network without weights, and what it costs there.",
        epilog=_SITES_HELP,
        formatter_class=_Help,
    )
    add = sites.add_argument
    add("networks", metavar="NETWORK", nargs="+", help="one network, or several for a summary")
    add("--attention", default="ela_b", metavar="NAME", help="a name of `attention list`")
    add("--at", **_SEVERAL, metavar="PLACE", help=f"{_AT_HELP} (default: auto)")
    add("--mode", default="replace", help="replace, residual or rezero")
    add("--option", **_SEVERAL, metavar="KEY=VALUE", help="option of the attention; may be repeated")
    add("--size", type=int, default=224, help="height and width of the image whose cost is counted")
    add("--markdown", action="store_true", help="print the summary as a Markdown table")
    sites.set_defaults(run=_sites)
    _add_profile(rooms.add_parser)
    return parser


def _add_profile(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    profile = add_parser(
        "profile",
        help="what attention modules cost in a network: parameters, MACs, memory, time",
        description="What attention modules cost in a network: parameters, multiply-accumulates, memory held "
        "for the backward pass, and time of a forward pass and of a forward and backward pass.",
        epilog=_PROFILE_HELP,
        formatter_class=_Help,
    )

    def add(*names: str, **options: Any) -> None:
        # What has no default here is left out of the arguments where it is not given.
        profile.add_argument(*names, **{"default": argparse.SUPPRESS, **options})

    def switch(name: str, meaning: str) -> None:
        profile.add_argument(name, action="store_true", help=meaning)

    networks = "networks, without pretrained weights; one table each"
    add("networks", metavar="NETWORK", nargs="*", help=networks)
    configs = "the network of a training YAML, and its attention, placement and mode; may be repeated"
    add("--config", action="append", metavar="FILE", help=configs)
    attentions = (
        "names of `attention list`, with options as NAME:KEY=VALUE[,KEY=VALUE], or all; none is always there "
        "(default: none se eca cbam ca sa ela_t ela_b ela_s ela_l; for --config, the YAML's own)"
    )
    add("--attention", nargs="+", metavar="NAME", help=attentions)
    own = "or the YAML's own)"
    add("--at", action="append", metavar="PLACE", help=f"{_AT_HELP} (default: auto, {own}")
    add("--mode", help=f"replace, residual or rezero (default: replace, {own}")
    classes = (
        "number of classes (default: the library's own; for --config 1000 in classification; 21 in "
        "segmentation and for smp)"
    )
    add("--classes", type=int, metavar="K", help=classes)
    add("--size", type=int, default=224, metavar="PIXELS", help="height and width of the images")
    batch = (
        "images in a batch; MACs are those of one image, memory and time are divided by N (default: 2 where "
        "times are taken on the CPU, else 16)"
    )
    add("--batch", type=int, metavar="N", help=batch)
    rounds = (
        "rounds in which the network with none and with each attention is timed once (default: as many as "
        "--seconds allows, 2 to 10)"
    )
    add("--rounds", type=int, metavar="N", help=rounds)
    seconds = "what the timed rounds of a network take together, where --rounds does not say how many"
    add("--seconds", type=float, default=25.0, metavar="S", help=seconds)
    switch("--no-time", "count only, without times")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where times are taken")
    switch("--channels-last", "take times with the channels innermost in memory, in images and weights")
    threads = "threads of one operation on the CPU (default: PyTorch's choice)"
    add("--threads", type=int, metavar="N", help=threads)
    markdown = "write the tables as Markdown, too; - prints Markdown instead of the tables"
    add("--markdown", metavar="FILE", help=markdown)
    csv = "write all figures as CSV: one line a network and attention, units in the header"
    add("--csv", metavar="FILE", help=csv)
    profile.set_defaults(run=_profile)


class _Parser(argparse.ArgumentParser):
    """One that takes no abbreviations, and whose sub-commands take none."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each option, and examples as they are written."""


def _list(arguments: argparse.Namespace) -> None:
    from attnlab.analysis import attention_table as table
    from attnlab.analysis.tables import make_console

    rounds = 0 if arguments.no_time else arguments.rounds
    trial = table.Trial(arguments.channels, arguments.size, arguments.batch, rounds, arguments.device)
    rows = table.attention_rows(trial, arguments.sort)
    if arguments.markdown:
        print(table.attention_markdown(rows, trial))
    else:
        make_console().print(table.attention_table(rows, trial))


def _show(arguments: argparse.Namespace) -> None:
    from attnlab.analysis.attention_table import attention_page
    from attnlab.analysis.tables import make_console

    make_console().print(attention_page(arguments.name))


def _sites(arguments: argparse.Namespace) -> None:
    from attnlab.analysis import sites
    from attnlab.analysis.profile_subjects import key_values
    from attnlab.analysis.tables import make_console

    options = key_values(getattr(arguments, "option", []), "--option takes KEY=VALUE")
    what = arguments.attention, getattr(arguments, "at", "auto"), arguments.mode, options, arguments.size
    reports = [sites.report_sites(network, *what) for network in arguments.networks]
    if arguments.markdown:
        print(sites.summary_markdown(reports))
    elif len(reports) == 1:
        make_console().print(sites.sites_table(reports[0], arguments.attention))
    else:
        make_console().print(sites.summary_table(reports, arguments.attention))


def _profile(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from attnlab.analysis import profile, profile_subjects, profile_table
    from attnlab.analysis.tables import make_console

    given = vars(arguments)
    markdown, csv = given.get("markdown"), given.get("csv")
    for path in filter(None, (None if markdown == "-" else markdown, csv)):
        _check_writable(Path(path))
    setup = profile.Setup(
        arguments.size,
        given.get("batch", 16 if arguments.device == "cuda" or arguments.no_time else 2),
        given.get("rounds", 10),
        arguments.device,
        arguments.channels_last,
        given.get("threads"),
        timed=not arguments.no_time,
        seconds=None if "rounds" in given else arguments.seconds,
    )
    subjects = profile_subjects.read_subjects(
        given.get("networks", ()),
        given.get("config", ()),
        given.get("attention"),
        given.get("at"),
        given.get("mode"),
        given.get("classes"),
    )
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            profiles = profile.profile(subjects, setup, status.update)
    else:
        profiles = profile.profile(subjects, setup, lambda text: print(text, file=sys.stderr, flush=True))
    if setup.timed:
        fewest = min(len(row.step) for each in profiles for row in each.rows)
        setup = dataclasses.replace(setup, rounds=fewest)
    conditions = profile_table.Conditions(setup, arguments.command)
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
