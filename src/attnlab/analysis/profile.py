"""What each attention module costs in a network: parameters, MACs, memory for the backward pass, time.

Counts come from the ``meta`` device; in timed rounds the networks take turns, so that load meets all alike.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal, get_args
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from attnlab.analysis.profile_subjects import Subject, Variant
from attnlab.analysis.sites import macs_of
from attnlab.attention import Site, attach
from attnlab.errors import AttnlabError, unknown

Device = Literal["cpu", "cuda"]
LEAST_ROUNDS = 2


@dataclass(frozen=True)
class Setup:
    """How networks are measured.

    Attributes:
        size: Height and width of the images, in pixels.
        batch: Images in a batch.
        rounds: Rounds that are timed; with ``seconds`` the most that are.
        seconds: What the timed rounds of one network may take together; it gets as many of ``rounds`` as fit,
            and two at least. None times them all.
        device: Where they are timed.
        channels_last: Lay images and weights out with the channels innermost.
        threads: Threads of one operation on the CPU; None leaves PyTorch's number.
        timed: Whether times are taken at all.

    Raises:
        AttnlabError: For numbers below 1, or a device that is not there.
    """

    size: int = 224
    batch: int = 16
    rounds: int = 10
    device: Device = "cpu"
    channels_last: bool = False
    threads: int | None = None
    timed: bool = True
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("size", "batch", "rounds", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise AttnlabError(f"--{name} is at least 1, got {value}.")
        if self.seconds is not None and not self.seconds > 0:
            raise AttnlabError(f"--seconds is above 0, got {self.seconds}.")
        if self.device not in get_args(Device):
            raise unknown("device", self.device, get_args(Device))
        if self.timed and self.device == "cuda" and not torch.cuda.is_available():
            raise AttnlabError("This PyTorch sees no CUDA device; use --device cpu, or --no-time for counts.")


@dataclass(frozen=True)
class Row:
    """One network with one attention.

    Attributes:
        attention: The variant's label.
        parameters: Parameters of the network, attention included.
        macs: Multiply-accumulates on one image.
        saved_bytes: Bytes held for the backward pass, per image.
        forward: Seconds per image of a forward pass in evaluation, by round; empty if it was not timed.
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
        network: Its name.
        at: Placement, as it was asked for.
        mode: Mode of the attachment.
        sites: Where the attention is, the same for all; empty if there is none.
        rows: One an attention; the first is the network without.
    """

    network: str
    at: str
    mode: str
    sites: Sequence[Site]
    rows: Sequence[Row]


def profile(
    subjects: Sequence[Subject], setup: Setup, say: Callable[[str], None] = lambda text: None
) -> list[Profile]:
    """Count all networks, then time them.

    Args:
        subjects: The networks.
        setup: How they are measured.
        say: Told what is done at present.

    Returns:
        One profile a network.

    Raises:
        AttnlabError: If a network does not run, or no site is found; before anything is timed, unless the
            network fails with values or memory runs out.
    """
    profiles = []
    for subject in subjects:
        say(f"counting {subject.name}")
        profiles.append(count(subject, setup, say))
    if not setup.timed:
        return profiles
    timed = []
    for subject, counted in zip(subjects, profiles, strict=True):
        say(f"timing {subject.name}: {len(counted.rows)} variants, a first round that does not count")
        timed.append(add_times(subject, setup, counted, say))
    return timed


def rounds_within(
    setup: Setup, share: float, say: Callable[[str], None], what: str
) -> Callable[[float], int]:
    """How many rounds are timed, once it is known what one takes.

    Args:
        setup: Rounds, and the seconds that there are for them.
        share: Part of the seconds, in 0..1.
        say: Told how long it will take.
        what: What is timed.
    """

    def plan(seconds: float) -> int:
        rounds = setup.rounds
        if setup.seconds is not None:
            rounds = min(rounds, max(LEAST_ROUNDS, int(setup.seconds * share / max(seconds, 1e-9))))
        say(f"timing {what}: {rounds} rounds of {seconds:.1f} s, {rounds * seconds:.0f} s in all")
        return rounds

    return plan


def count(subject: Subject, setup: Setup, say: Callable[[str], None] = lambda text: None) -> Profile:
    """Parameters, MACs and memory for the backward pass of one network, without times.

    Args:
        subject: The network and its attentions.
        setup: Size of the images and of the batch.
        say: Told what is done at present.

    Raises:
        AttnlabError: If the network does not run, or no site is found.
    """
    base = subject.build("meta")
    sites: Sequence[Site] = ()
    rows = []
    variants = _with_baseline(subject.variants)
    for number, variant in enumerate(variants, 1):
        say(f"counting {subject.name} with {variant.label}, {number} of {len(variants)}")
        network, found = _attended(base, subject, variant, setup.size)
        sites = sites or found
        name = f"{subject.name} with {variant.label}" if found else subject.name
        rows.append(
            Row(
                variant.label,
                sum(parameter.numel() for parameter in network.parameters()),
                macs_of(name, network, setup.size),
                _saved_per_image(name, network, setup),
            )
        )
    at = subject.at if isinstance(subject.at, str) else " ".join(subject.at)
    return Profile(subject.name, at, subject.mode, sites, rows)


def saved_bytes(network: nn.Module, *inputs: Tensor) -> int:
    """Bytes that autograd holds when a forward pass in training has ended.

    Storages are counted, each once: tensors that are views of one map, or several layers that keep the same
    map, take its memory one time. Parameters and buffers are left out; they are there anyway. So are the
    gradients, the workspaces of operations, and what is freed before the pass ends: the peak is higher.

    Args:
        network: In training mode, on the device of the inputs.
        *inputs: What it takes. On ``meta`` nothing is computed and the bytes are the same.
    """
    held: WeakSet[_Saved] = WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        held.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        output = network(*inputs)
    own = {StorageWeakRef(t.untyped_storage()) for t in (*network.parameters(), *network.buffers())}
    sizes = {
        StorageWeakRef(storage): storage.nbytes()
        for storage in (saved.tensor.untyped_storage() for saved in held)
    }
    del output  # until here it kept the graph, and so what the graph holds
    return sum(size for storage, size in sizes.items() if storage not in own)


def paired_rounds(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    plan: Callable[[float], int] | None = None,
) -> dict[str, list[float]]:
    """Time every work once a round, in an order that turns round from one round to the next.

    Args:
        works: The works by name.
        rounds: Rounds that count.
        warmup: Rounds before them that do not.
        clock: Seconds from any start.
        plan: Told the seconds of the last round that does not count, it says how many will.

    Returns:
        Seconds of each round, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    number, began = -warmup, clock()
    while number < rounds:
        for name in list(works) if number % 2 == 0 else reversed(list(works)):
            start = clock()
            works[name]()
            taken = clock() - start
            if number >= 0:
                times[name].append(taken)
        number += 1
        if number == 0 and plan is not None:
            rounds = plan(clock() - began)
        began = clock()
    return times


def ratios(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest ratio of the times of one round."""
    by_round = [a / b for a, b in zip(over, under, strict=True)]
    return median(by_round), min(by_round), max(by_round)


def add_times(
    subject: Subject, setup: Setup, counted: Profile, say: Callable[[str], None] = lambda text: None
) -> Profile:
    """Time one network with each attention; all of them share the network's own weights.

    Args:
        subject: The network and its attentions.
        setup: Batch, rounds, device.
        counted: What `count` gave.
        say: Told how long it will take.

    Raises:
        AttnlabError: If the memory does not suffice, or the network does not run.
    """
    memory_format = torch.channels_last if setup.channels_last else torch.contiguous_format
    image = torch.randn(setup.batch, 3, setup.size, setup.size, generator=torch.Generator().manual_seed(0))
    try:
        with _threads(setup.threads):
            image = image.to(setup.device, memory_format=memory_format)
            base = subject.build("cpu").to(setup.device)
            networks = {}
            for variant in _with_baseline(subject.variants):
                network, _ = _attended(base, subject, variant, setup.size)
                networks[variant.label] = network.to(memory_format=memory_format)
            plans = (
                rounds_within(setup, share, say, f"{subject.name}, {what}")
                for share, what in ((0.75, "forward and backward"), (0.25, "forward alone"))
            )
            steps = _timed(networks, image, setup, True, next(plans))
            forwards = _timed(networks, image, setup, False, next(plans))
    except RuntimeError as error:
        raise AttnlabError(
            f"{subject.name} cannot be timed with a batch of {setup.batch} x 3 x {setup.size} x {setup.size} "
            f"on {setup.device}: {error} If memory ran out, try a smaller --batch."
        ) from error
    rows = [replace(row, forward=forwards[row.attention], step=steps[row.attention]) for row in counted.rows]
    return replace(counted, rows=rows)


class _Saved:
    """What autograd keeps in a tensor's place; it lives as long as the graph needs the tensor."""

    def __init__(self, tensor: Tensor) -> None:
        # An output that kept its own graph would keep itself: a ring that is never freed.
        self.tensor = tensor.detach()


def _with_baseline(variants: Sequence[Variant]) -> list[Variant]:
    """No attention first, and every variant once."""
    by_label = {variant.label: variant for variant in (Variant("none", "none", {}), *variants)}
    return list(by_label.values())


def _attended(
    base: nn.Module, subject: Subject, variant: Variant, size: int
) -> tuple[nn.Module, Sequence[Site]]:
    """A copy with attention; all other tensors are the base's own, so that many copies take little memory."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    network = copy.deepcopy(base, shared)
    example = torch.zeros(1, 3, size, size)
    return network, attach(
        network, variant.name, subject.at, subject.mode, options=variant.options, example=example
    )


def _saved_per_image(name: str, network: nn.Module, setup: Setup) -> float:
    shape = (setup.batch, 3, setup.size, setup.size)
    try:
        twin = copy.deepcopy(network).to("meta").train()
        return saved_bytes(twin, torch.empty(shape, device="meta")) / setup.batch
    except Exception as error:  # any network's own error
        raise AttnlabError(
            f"{name} cannot take a training step with a batch of {' x '.join(map(str, shape))}: {error} "
            "Another --batch or --size may do."
        ) from error


def _timed(
    networks: Mapping[str, nn.Module],
    image: Tensor,
    setup: Setup,
    training: bool,
    plan: Callable[[float], int],
) -> dict[str, list[float]]:
    """Seconds per image of each round, by label."""
    works = {}
    for label, network in networks.items():
        works[label] = partial(_step if training else _forward, network.train(training), image)
    # A GPU's libraries choose their kernels, and fill their caches, in the first few calls.
    times = paired_rounds(works, setup.rounds, warmup=3 if image.is_cuda else 1, plan=plan)
    return {
        label: [taken / setup.batch for taken in taken_by_round] for label, taken_by_round in times.items()
    }


def _forward(network: nn.Module, image: Tensor) -> None:
    with torch.no_grad():
        network(image)
    _finish(image)


def _step(network: nn.Module, image: Tensor) -> None:
    """Forward and backward, with a loss that gives every output a gradient of its own."""
    outputs = [tensor for tensor in _tensors(network(image)) if tensor.requires_grad]
    torch.stack([tensor.square().mean() for tensor in outputs]).sum().backward()
    network.zero_grad(set_to_none=True)
    _finish(image)


def _finish(image: Tensor) -> None:
    if image.is_cuda:
        torch.cuda.synchronize()


def _tensors(output: Any) -> Iterator[Tensor]:
    """All tensors of an output: one, or several in tuples, lists and mappings."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
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
