"""Where attention goes in a network and what it costs there: ``attention sites``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from rich.console import Group, RenderableType
from rich.text import Text
from torch import nn
from torchvision import models

from attnlab.analysis.tables import markdown_table, terminal_table
from attnlab.attention import Mode, Site, attach
from attnlab.attention.macs import count_macs
from attnlab.errors import AttnlabError, unknown
from attnlab.models import BuiltNetwork, build_classifier, build_detector, build_segmenter
from attnlab.models.built import without_values

LIBRARIES = ("torchvision", "timm", "smp", "detection")

# Default height and width of an image, in pixels.
DEFAULT_SIZE = 224


@dataclass(frozen=True)
class SiteReport:
    """A network without attention and with it.

    Attributes:
        network: The network's name, e.g. ``timm/regnety_004``.
        sites: The sites.
        parameters: Parameters without attention.
        macs: MACs without attention, on one image.
        macs_with: MACs with attention.
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
) -> BuiltNetwork:
    """Build a network without pretrained weights, as the tasks do.

    Args:
        name: ``torchvision/resnet18``, ``timm/regnety_004``, ``smp/DeepLabV3Plus:resnet18`` (architecture and
            encoder of segmentation-models-pytorch), or ``detection/yolox_nano``; without a library,
            torchvision's network of this name, else timm's. ``torchvision/`` also has segmentation networks,
            which no task trains.
        num_classes: Number of classes; None means the library's default, or 80 for a detector.
        device: ``meta``, without memory, if the network allows it; ``cpu`` for random weights. Detectors
            always have weights, as part of them depends on values.

    Raises:
        AttnlabError: The library has no such network, or the network takes no number of classes.
    """
    library, slash, network = name.partition("/")
    if slash and library not in LIBRARIES:
        hint = "Write LIBRARY/NETWORK, e.g. torchvision/resnet18 or smp/Unet:resnet18."
        raise unknown("library of networks", library, LIBRARIES, hint)
    if library == "detection":
        return build_detector(network, 80 if num_classes is None else num_classes)
    classes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    build: Callable[[], BuiltNetwork] = partial(build_classifier, name, **classes)
    if library == "smp":
        architecture, _, encoder = network.partition(":")
        build = partial(build_segmenter, architecture, encoder or "resnet34", **classes)
    elif library == "torchvision" and network in models.list_models(module=models.segmentation):

        def build() -> BuiltNetwork:
            return BuiltNetwork(models.get_model(network, weights=None, weights_backbone=None, **classes))

    return without_values(build) if device == "meta" else build()


def size_for(built: BuiltNetwork, size: int | None) -> tuple[int, int]:
    """Height and width of the images to measure a network on: square, or a detector's own.

    Raises:
        AttnlabError: A size is given for a detector.
    """
    if built.example_size is None:
        return (size or DEFAULT_SIZE, size or DEFAULT_SIZE)
    if size is not None:
        raise AttnlabError(
            "--size is for classifiers and segmenters: a detector resizes its images. Leave it out, or set "
            "the size in the network_options of a recipe (--config)."
        )
    return built.example_size


def report_sites(
    name: str,
    attention: str = "ela_b",
    at: str | Sequence[str] = "auto",
    mode: Mode = "replace",
    options: Mapping[str, Any] | None = None,
    size: int | None = None,
) -> SiteReport:
    """Attach attention to a network, by `build_network` and `attnlab.attention.attach`, and count.

    Raises:
        AttnlabError: The network is unknown, nothing matches, or it cannot run on such an image.
    """
    if size is not None and size < 1:
        raise AttnlabError(f"--size must be at least 1, got {size}.")
    built = build_network(name)
    network, image = built.network, size_for(built, size)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    before = macs_of(name, network, image)
    sites = attach(network, attention, at, mode, options=options, example=torch.zeros(1, 3, *image))
    return SiteReport(name, sites, parameters, before, macs_of(name, network, image))


def macs_of(name: str, network: nn.Module, size: tuple[int, int]) -> int:
    """MACs of a network on one image (1, 3, *size).

    Raises:
        AttnlabError: It does not run; the message has the network's name.
    """
    try:
        return count_macs(network, 1, 3, *size)
    except Exception as error:
        image = f"one {size[0]} x {size[1]} image"
        raise AttnlabError(
            f"{name} does not run with {image}, so its MACs cannot be counted: {error}"
        ) from error


def place(site: Site) -> str:
    """A site's name, and whether the attention is on its input."""
    return f"{site.name} (input)" if site.before else site.name


def sites_table(report: SiteReport, attention: str) -> RenderableType:
    """One network's sites, for the terminal."""
    rows = [(place(site), str(site.channels), f"{site.parameters:,d}") for site in report.sites]
    totals = Text(
        f"{len(report.sites)} sites. Parameters {report.parameters / 1e6:.3f} M -> "
        f"{report.parameters_with / 1e6:.3f} M ({_more(report.parameters, report.parameters_with)}). MACs "
        f"{report.macs / 1e9:.3f} G -> {report.macs_with / 1e9:.3f} G "
        f"({_more(report.macs, report.macs_with)}); element-wise operations are not counted."
    )
    title = f"{attention} in {report.network}"
    return Group(terminal_table(["site", "channels", "parameters"], rows, title), totals)


def summary_table(reports: Sequence[SiteReport], attention: str) -> RenderableType:
    """Several networks, one per row, for the terminal."""
    return terminal_table(_HEAD, map(_summary, reports), f"{attention} in {len(reports)} networks", names=2)


def summary_markdown(reports: Sequence[SiteReport]) -> str:
    """Several networks, one per row, in Markdown."""
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
