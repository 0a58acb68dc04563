"""What each attention module costs in a network: parameters, MACs, memory for the backward pass, time.

Counts come from the ``meta`` device; timed rounds interleave the networks, so that other load affects all
equally.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.analysis.measure import Device, check_device, finish, forward_pass, paired_rounds, saved_bytes
from attnlab.analysis.profile_subjects import Subject, Variant
from attnlab.analysis.sites import macs_of, size_for
from attnlab.analysis.tables import check_least
from attnlab.attention import Site, attach
from attnlab.errors import AttnlabError
from attnlab.models import BuiltNetwork

Say = Callable[[str], None]
LEAST_ROUNDS = 2
# Objects per image for a detector's training step.
OBJECTS = 8


@dataclass(frozen=True)
class Setup:
    """Settings of a profile.

    Attributes:
        size: Height and width of the images, in pixels; by default 224, or a detector's own.
        batch: Batch size.
        rounds: Timed rounds; with ``seconds``, at most this many.
        seconds: Time budget of one network's timed rounds, of which at least two are run. None: no limit.
        device: Device to time on.
        channels_last: Use channels_last memory format for images and weights.
        threads: CPU threads per operation; None keeps PyTorch's number.
        timed: Whether to time at all.

    Raises:
        AttnlabError: A number is below 1, or the device does not exist.
    """

    size: int | None = None
    batch: int = 16
    rounds: int = 10
    device: Device = "cpu"
    channels_last: bool = False
    threads: int | None = None
    timed: bool = True
    seconds: float | None = None

    def __post_init__(self) -> None:
        check_least(self, size=1, batch=1, rounds=1, threads=1)
        if self.seconds is not None and not self.seconds > 0:
            raise AttnlabError(f"--seconds must be above 0, got {self.seconds}.")
        check_device(self.device, self.timed)


@dataclass(frozen=True)
class Row:
    """One network with one attention.

    Attributes:
        attention: The variant's label.
        parameters: Parameters of the network, attention included.
        macs: MACs on one image.
        saved_bytes: Bytes held for the backward pass, per image; for a detector, of a single image.
        forward: Seconds per image of a forward pass in evaluation, by round; empty if not timed.
        step: Seconds per image of a forward and a backward pass in training, by round.
    """

    attention: str
    parameters: int
    macs: int
    saved_bytes: float
    forward: Sequence[float] = ()
    step: Sequence[float] = ()


@dataclass(frozen=True)
class Profile:
    """One network with several attentions.

    Attributes:
        subject: The network.
        size: Height and width of the images, in pixels.
        sites: Sites of attention, the same for all; empty without attention.
        rows: One per attention; the first is the network without.
        detects: Whether it is a detector.
    """

    subject: Subject
    size: tuple[int, int]
    sites: Sequence[Site]
    rows: Sequence[Row]
    detects: bool = False


def profile(subjects: Sequence[Subject], setup: Setup, say: Say = lambda text: None) -> list[Profile]:
    """Count all networks, then time them, reporting progress.

    Raises:
        AttnlabError: A network does not run, or no site is found; raised before timing unless the network
            fails on real values or memory runs out.
    """
    profiles = [count(subject, setup, say) for subject in subjects]
    if not setup.timed:
        return profiles
    pairs = zip(subjects, profiles, strict=True)
    return [add_times(subject, setup, counted, say) for subject, counted in pairs]


def rounds_within(setup: Setup, share: float, say: Say, what: str) -> Callable[[float], int]:
    """The number of rounds that fit in a share, 0..1, of the seconds, given the time of one."""

    def plan(seconds: float) -> int:
        rounds = setup.rounds
        if setup.seconds is not None:
            rounds = min(rounds, max(LEAST_ROUNDS, int(setup.seconds * share / max(seconds, 1e-9))))
        say(f"timing {what}: {rounds} rounds of {seconds:.1f} s, {rounds * seconds:.0f} s in all")
        return rounds

    return plan


def count(subject: Subject, setup: Setup, say: Say = lambda text: None) -> Profile:
    """Parameters, MACs and memory for the backward pass of one network, without times.

    Raises:
        AttnlabError: The network does not run, or no site is found.
    """
    say(f"counting {subject.name}")
    sites: Sequence[Site] = ()
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        built = subject.build("meta")
        size = size_for(built, setup.size)
        # A detector's losses depend on values, which meta tensors lack; a whole batch may need too much
        # memory.
        device, images = ("meta", setup.batch) if built.first_label is None else ("cpu", 1)
        batch = _on(example_batch(built, images, size), device)
        for number, variant in enumerate(subject.compared, 1):
            say(f"counting {subject.name} with {variant.label}, {number} of {len(subject.compared)}")
            torch.default_generator.manual_seed(0)
            network, found = _attended(built.network, subject, variant, size)
            sites = sites or found
            name = f"{subject.name} with {variant.label}" if found else subject.name
            parameters = sum(parameter.numel() for parameter in network.parameters())
            macs, saved = macs_of(name, network, size), _saved(name, network.to(device).train(), batch)
            rows.append(Row(variant.label, parameters, macs, saved / images))
    return Profile(subject, size, sites, rows, detects=built.first_label is not None)


def example_batch(built: BuiltNetwork, batch: int, size: tuple[int, int]) -> tuple[Any, ...]:
    """A training input: images (B, 3, H, W); for a detector, a list of images and random boxes."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    if built.first_label is None:
        return (torch.randn(batch, 3, height, width, generator=generator),)
    corners = torch.rand(batch, OBJECTS, 2, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat([corners.amin(2), corners.amax(2)], dim=-1)
    labels = torch.full((OBJECTS,), built.first_label)
    images = list(torch.rand(batch, 3, height, width, generator=generator))
    return images, [{"boxes": each, "labels": labels} for each in boxes]


def ratios(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest ratio of the times of one round."""
    by_round = [a / b for a, b in zip(over, under, strict=True)]
    return median(by_round), min(by_round), max(by_round)


def add_times(subject: Subject, setup: Setup, counted: Profile, say: Say = lambda text: None) -> Profile:
    """Time a counted network with each attention; all share the network's weights.

    Raises:
        AttnlabError: Out of memory, or the network does not run.
    """
    layout = torch.channels_last if setup.channels_last else torch.contiguous_format
    say(f"timing {subject.name}: {len(counted.rows)} variants, warm-up round")
    try:
        with _threads(setup.threads):
            built = subject.build("cpu")
            batch = _on(example_batch(built, setup.batch, counted.size), setup.device, layout)
            base = built.network.to(setup.device)
            networks = {}
            for variant in subject.compared:
                network, _ = _attended(base, subject, variant, counted.size)
                networks[variant.label] = network.to(memory_format=layout)
            works = (
                ("forward and backward", 0.75, True, partial(_step, batch=batch, device=setup.device)),
                ("forward alone", 0.25, False, partial(forward_pass, images=batch[0], device=setup.device)),
            )
            times = []
            for what, share, training, work in works:
                calls = {k: partial(work, network.train(training)) for k, network in networks.items()}
                plan = rounds_within(setup, share, say, f"{subject.name}, {what}")
                # GPU libraries choose kernels and fill caches in the first calls.
                warmup = 3 if setup.device == "cuda" else 1
                times.append(paired_rounds(calls, setup.rounds, warmup, plan=plan))
    except RuntimeError as error:
        raise AttnlabError(
            f"{subject.name} cannot be timed with a batch of {_words(setup.batch, counted.size)} on "
            f"{setup.device}: {error} If memory ran out, try a smaller --batch."
        ) from error
    rows = []
    for row in counted.rows:
        step, forward = ([taken / setup.batch for taken in each[row.attention]] for each in times)
        rows.append(replace(row, forward=forward, step=step))
    return replace(counted, rows=rows)


def _attended(
    base: nn.Module, subject: Subject, variant: Variant, size: tuple[int, int]
) -> tuple[nn.Module, Sequence[Site]]:
    """A copy with attention that shares all other tensors with the base, to save memory."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    network = copy.deepcopy(base, shared)
    kept: dict[str, Any] = {"shared": subject.shared, "example": torch.zeros(1, 3, *size)}
    return network, attach(network, variant.name, subject.at, subject.mode, options=variant.options, **kept)


def _saved(name: str, network: nn.Module, batch: tuple[Any, ...]) -> int:
    try:
        return saved_bytes(network, *batch)
    except Exception as error:  # any error of the network
        images = batch[0]
        raise AttnlabError(
            f"{name} cannot take a training step with a batch of "
            f"{_words(len(images), images[0].shape[1:])}: {error} Try another --batch or --size."
        ) from error


def _words(batch: int, size: Sequence[int]) -> str:
    return " x ".join(map(str, (batch, 3, *size)))


def _on(value: Any, device: str, layout: torch.memory_format = torch.contiguous_format) -> Any:
    """A batch on a device, batches of images in a layout."""
    if isinstance(value, Tensor):
        return value.to(device, memory_format=layout) if value.ndim == 4 else value.to(device)
    if isinstance(value, Mapping):
        return {key: _on(item, device, layout) for key, item in value.items()}
    return type(value)(_on(item, device, layout) for item in value)


def _step(network: nn.Module, batch: tuple[Any, ...], device: Device) -> None:
    """Forward and backward pass: with a detector's losses, or a loss that gives every output a gradient."""
    found = network(*batch)
    losses = (
        list(found.values())
        if len(batch) > 1
        else [output.square().mean() for output in _tensors(found) if output.requires_grad]
    )
    torch.stack(losses).sum().backward()
    network.zero_grad(set_to_none=True)
    finish(device)


def _tensors(output: Any) -> Iterator[Tensor]:
    """All tensors of an output: one, or several in tuples, lists and mappings."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | list | tuple):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(value)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)
