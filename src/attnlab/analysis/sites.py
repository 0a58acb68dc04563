"""Where attention goes in a network and what it costs there: ``attention sites``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from rich.console import Group, RenderableType
from rich.text import Text
from torch import nn

from attnlab.analysis.tables import markdown_table, terminal_table
from attnlab.attention import Mode, Site, attach
from attnlab.attention.macs import count_macs
from attnlab.errors import AttnlabError, unknown


@dataclass(frozen=True)
class SiteReport:
    """A network without attention and with it.

    Attributes:
        network: The network's name, e.g. ``timm/regnety_004``.
        sites: The sites.
        parameters: Parameters without attention.
        macs: Multiply-accumulates without attention, on one image.
        macs_with: Multiply-accumulates with attention.
    """

    network: str
    sites: Sequence[Site]
    parameters: int
    macs: int
    macs_with: int

    @property
    def parameters_with(self) -> int:
        """Parameters with attention."""
        return self.parameters + sum(site.parameters for site in self.sites)


def build_network(
    name: str, num_classes: int | None = None, device: Literal["meta", "cpu"] = "meta"
) -> nn.Module:
    """A network without pretrained weights.

    Args:
        name: ``torchvision/resnet18`` (any name of ``torchvision.models``), ``timm/regnety_004``, or
            ``smp/DeepLabV3Plus:resnet18`` (architecture and encoder of segmentation_models_pytorch); without
            a library, torchvision's network of the name, else timm's.
        num_classes: Number of classes; None is its library's default.
        device: ``meta``, which takes no memory, where the network allows that; ``cpu`` for random weights.

    Raises:
        AttnlabError: If the library has no such network, or the network takes no number of classes.
    """
    library, slash, network = name.partition("/")
    if not slash:
        # Here, not above: the tables of modules need no library of networks, each of which takes seconds.
        from attnlab.models.classifiers import find_network

        library, network = find_network(name)
    libraries = {"torchvision": _from_torchvision, "timm": _from_timm, "smp": _from_smp}
    if library not in libraries:
        hint = "Write LIBRARY/NETWORK, e.g. torchvision/resnet18 or smp/Unet:resnet18."
        raise unknown("library of networks", library, libraries, hint)
    build = libraries[library]
    if device == "meta":
        # A constructor that reads values, which meta tensors have not, ends in one of these errors.
        with suppress(NotImplementedError, RuntimeError), torch.device("meta"):
            return build(network, num_classes)
    return build(network, num_classes)


def report_sites(
    name: str,
    attention: str = "ela_b",
    at: str | Sequence[str] = "auto",
    mode: Mode = "replace",
    options: Mapping[str, Any] | None = None,
    size: int = 224,
) -> SiteReport:
    """Attach attention to a network, by `build_network` and `attnlab.attention.attach`, and count.

    Raises:
        AttnlabError: If the network is unknown, nothing matches, or it cannot run on the ``meta`` device with
            an image of that height and width.
    """
    if size < 1:
        raise AttnlabError(f"--size is at least 1, got {size}.")
    network = build_network(name)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    before = macs_of(name, network, size)
    sites = attach(network, attention, at, mode, options=options, example=torch.zeros(1, 3, size, size))
    return SiteReport(name, sites, parameters, before, macs_of(name, network, size))


def macs_of(name: str, network: nn.Module, size: int) -> int:
    """Multiply-accumulates of a network on one image of (1, 3, size, size).

    Raises:
        AttnlabError: If it does not run on the ``meta`` device; it has the network's name.
    """
    try:
        return count_macs(network, 1, 3, size, size)
    except Exception as error:
        raise AttnlabError(
            f"{name} does not run on the meta device with one {size} x {size} image, so its MACs cannot be "
            f"counted: {error}"
        ) from error


def place(site: Site) -> str:
    """A site's name, and whether the attention is on its input."""
    return f"{site.name} (input)" if site.before else site.name


def sites_table(report: SiteReport, attention: str) -> RenderableType:
    """One network's sites, for the terminal."""
    rows = [(place(site), str(site.channels), f"{site.parameters:,d}") for site in report.sites]
    totals = Text(
        f"{len(report.sites)} sites. Parameters {report.parameters / 1e6:.3f} M -> "
        f"{report.parameters_with / 1e6:.3f} M ({_more(report.parameters, report.parameters_with)}). "
        f"MACs {report.macs / 1e9:.3f} G -> {report.macs_with / 1e9:.3f} G "
        f"({_more(report.macs, report.macs_with)}); element-wise operations count as zero."
    )
    title = f"{attention} in {report.network}"
    return Group(terminal_table(["site", "channels", "parameters"], rows, title), totals)


def summary_table(reports: Sequence[SiteReport], attention: str) -> RenderableType:
    """Several networks, one a row, for the terminal."""
    return terminal_table(_HEAD, map(_summary, reports), f"{attention} in {len(reports)} networks", names=2)


def summary_markdown(reports: Sequence[SiteReport]) -> str:
    """Several networks, one a row, in Markdown."""
    return markdown_table(_HEAD, map(_summary, reports), names=2)


_HEAD = ("network", "first and last site", "sites", "parameters (M)", "added (k)", "MACs (G)", "added (M)")


def _summary(report: SiteReport) -> list[str]:
    ends = f"{place(report.sites[0])} … {place(report.sites[-1])}" if report.sites else "none"
    added, more_macs = report.parameters_with - report.parameters, report.macs_with - report.macs
    parameters = [f"{report.parameters / 1e6:.3f}", f"{added / 1e3:.1f}"]
    macs = [f"{report.macs / 1e9:.3f}", f"{more_macs / 1e6:.2f}"]
    return [report.network, ends, str(len(report.sites)), *parameters, *macs]


def _more(before: int, after: int) -> str:
    return f"{100 * (after - before) / before:+.2f}%"


def _from_torchvision(name: str, num_classes: int | None) -> nn.Module:
    import inspect

    from torchvision import models

    if name not in models.list_models():
        raise unknown("network of torchvision", name, models.list_models())
    builder = models.get_model_builder(name)
    taken = inspect.signature(builder).parameters
    options: dict[str, Any] = {key: None for key in ("weights", "weights_backbone") if key in taken}
    if num_classes is None:
        return builder(**options)
    try:
        return builder(**options, num_classes=num_classes)
    except TypeError as error:
        raise AttnlabError(f"torchvision's {name} takes no number of classes: {error}") from error


def _from_timm(name: str, num_classes: int | None) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise unknown("network of timm", name, timm.list_models())
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    return timm.create_model(name, **options)


def _from_smp(name: str, num_classes: int | None) -> nn.Module:
    import segmentation_models_pytorch as smp

    from attnlab.models.segmenters import architectures

    architecture, _, encoder = name.partition(":")
    if architecture not in architectures():
        raise unknown("architecture of segmentation_models_pytorch", architecture, architectures())
    options: dict[str, Any] = {} if num_classes is None else {"classes": num_classes}
    try:
        return architectures()[architecture](encoder or "resnet34", encoder_weights=None, **options)
    except KeyError as error:
        hint = "Or tu- and a name of timm."
        raise unknown("encoder", encoder, smp.encoders.get_encoder_names(), hint) from error
