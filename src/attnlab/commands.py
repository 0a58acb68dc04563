"""attnlab's own sub-commands, beside Lightning's: ``main.py attention list | show | sites``.

Nothing but argparse is imported until a command runs, and a command imports only what it needs: the attention
modules need torch, and only ``sites`` needs the libraries of networks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
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


def run(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: The words after ``main.py``, e.g. ``["attention", "show", "ela_b"]``.

    Returns:
        The exit status, 0.

    Raises:
        AttnlabError: If the command cannot work; its message is for the user.
        SystemExit: From argparse, for ``--help`` (0) and for words that it does not know (2).
    """
    arguments = _parser().parse_args(list(argv))
    arguments.run(arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="main.py", description="Commands of attnlab that train nothing.")
    rooms = parser.add_subparsers(required=True, metavar="COMMAND")
    attention = rooms.add_parser("attention", help="look at the attention modules and their places")
    commands = attention.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser(
        "list", help="all attention modules: paper, options, cost", formatter_class=_Help
    )
    listing.add_argument("--channels", type=int, default=64, help="channels of the map whose cost is counted")
    listing.add_argument("--size", type=int, default=56, help="its height and width")
    listing.add_argument("--sort", default="name", help="name, year, parameters or macs")
    listing.add_argument("--markdown", action="store_true", help="print a Markdown table")
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
    sites.add_argument("networks", metavar="NETWORK", nargs="+", help="one network, or several for a summary")
    sites.add_argument("--attention", default="ela_b", metavar="NAME", help="a name of `attention list`")
    sites.add_argument(
        "--at",
        action="append",
        default=argparse.SUPPRESS,
        metavar="PLACE",
        help="placement, module name or pattern; may be repeated (default: auto)",
    )
    sites.add_argument("--mode", default="replace", help="replace, residual or rezero")
    sites.add_argument(
        "--option",
        action="append",
        default=argparse.SUPPRESS,
        metavar="KEY=VALUE",
        help="option of the attention; may be repeated",
    )
    sites.add_argument(
        "--size", type=int, default=224, help="height and width of the image whose cost is counted"
    )
    sites.add_argument("--markdown", action="store_true", help="print the summary as a Markdown table")
    sites.set_defaults(run=_sites)
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each option, and examples as they are written."""


def _list(arguments: argparse.Namespace) -> None:
    from attnlab.analysis import attention_table as table

    rows = table.attention_rows(arguments.channels, arguments.size, arguments.sort)
    if arguments.markdown:
        print(table.attention_markdown(rows))
    else:
        table.make_console().print(table.attention_table(rows, arguments.channels, arguments.size))


def _show(arguments: argparse.Namespace) -> None:
    from attnlab.analysis import attention_table as table

    table.make_console().print(table.attention_page(arguments.name))


def _sites(arguments: argparse.Namespace) -> None:
    from attnlab.analysis import sites
    from attnlab.analysis.attention_table import make_console

    options = dict(map(_option, getattr(arguments, "option", [])))
    reports = [
        sites.report_sites(
            network,
            arguments.attention,
            getattr(arguments, "at", "auto"),
            arguments.mode,
            options,
            arguments.size,
        )
        for network in arguments.networks
    ]
    if arguments.markdown:
        print(sites.summary_markdown(reports))
    elif len(reports) == 1:
        make_console().print(sites.sites_table(reports[0], arguments.attention))
    else:
        make_console().print(sites.summary_table(reports, arguments.attention))


def _option(text: str) -> tuple[str, Any]:
    """``reduction=8`` -> ``("reduction", 8)``; what is no JSON value is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise AttnlabError(f"--option takes KEY=VALUE, got '{text}'.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
