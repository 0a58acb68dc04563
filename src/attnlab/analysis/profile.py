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
from attnlab.analysis.tables import check_least
from attnlab.attention import Site, attach
from attnlab.errors import AttnlabError, unknown

Device = Literal["cpu", "cuda"]
Say = Callable[[str], None]
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
        check_least(self, size=1, batch=1, rounds=1, threads=1)
        if self.seconds is not None and not self.seconds > 0:
            raise AttnlabError(f"--seconds is above 0, got {self.seconds}.")
        check_device(self.device, self.timed)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the batch, (B,C,H,W)."""
        return self.batch, 3, self.size, self.size


def check_device(device: str, timed: bool) -> None:
    """Refuse, by an AttnlabError, a device that is unknown, or missing where times are taken on it."""
    if device not in get_args(Device):
        raise unknown("device", device, get_args(Device))
    if timed and device == "cuda" and not torch.cuda.is_available():
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
        subject: The network.
        sites: Where the attention is, the same for all; empty if there is none.
        rows: One an attention; the first is the network without.
    """

    subject: Subject
    sites: Sequence[Site]
    rows: Sequence[Row]


def profile(subjects: Sequence[Subject], setup: Setup, say: Say = lambda text: None) -> list[Profile]:
    """Count all networks, then time them, and say what is done at present.

    Raises:
        AttnlabError: If a network does not run, or no site is found; before anything is timed, unless the
            network fails with values or memory runs out.
    """
    profiles = [count(subject, setup, say) for subject in subjects]
    if not setup.timed:
        return profiles
    pairs = zip(subjects, profiles, strict=True)
    return [add_times(subject, setup, counted, say) for subject, counted in pairs]


def rounds_within(setup: Setup, share: float, say: Say, what: str) -> Callable[[float], int]:
    """How many rounds are timed in a share, 0..1, of the seconds, once it is known what one takes."""

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
        AttnlabError: If the network does not run, or no site is found.
    """
    say(f"counting {subject.name}")
    base = subject.build("meta")
    sites: Sequence[Site] = ()
    rows = []
    for number, variant in enumerate(subject.compared, 1):
        say(f"counting {subject.name} with {variant.label}, {number} of {len(subject.compared)}")
        network, found = _attended(base, subject, variant, setup.size)
        sites = sites or found
        name = f"{subject.name} with {variant.label}" if found else subject.name
        parameters = sum(parameter.numel() for parameter in network.parameters())
        macs, saved = macs_of(name, network, setup.size), _saved_per_image(name, network, setup)
        rows.append(Row(variant.label, parameters, macs, saved))
    return Profile(subject, sites, rows)


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
    storages = (saved.tensor.untyped_storage() for saved in held)
    sizes = {StorageWeakRef(storage): storage.nbytes() for storage in storages}
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


def add_times(subject: Subject, setup: Setup, counted: Profile, say: Say = lambda text: None) -> Profile:
    """Time one network, which was counted, with each attention; all share the network's own weights.

    Raises:
        AttnlabError: If the memory does not suffice, or the network does not run.
    """
    layout = torch.channels_last if setup.channels_last else torch.contiguous_format
    say(f"timing {subject.name}: {len(counted.rows)} variants, a first round that does not count")
    image = torch.randn(setup.shape, generator=torch.Generator().manual_seed(0))
    try:
        with _threads(setup.threads):
            image = image.to(setup.device, memory_format=layout)
            base = subject.build("cpu").to(setup.device)
            networks = {}
            for variant in subject.compared:
                network, _ = _attended(base, subject, variant, setup.size)
                networks[variant.label] = network.to(memory_format=layout)
            times = []
            for work, share, what in (
                (_step, 0.75, "forward and backward"),
                (forward_pass, 0.25, "forward alone"),
            ):
                works = {k: partial(work, net.train(work is _step), image) for k, net in networks.items()}
                plan = rounds_within(setup, share, say, f"{subject.name}, {what}")
                # A GPU's libraries choose their kernels, and fill their caches, in the first few calls.
                times.append(paired_rounds(works, setup.rounds, 3 if image.is_cuda else 1, plan=plan))
    except RuntimeError as error:
        raise AttnlabError(
            f"{subject.name} cannot be timed with a batch of {_words(setup)} on {setup.device}: {error} "
            "If memory ran out, try a smaller --batch."
        ) from error
    rows = []
    for row in counted.rows:
        step, forward = ([taken / setup.batch for taken in each[row.attention]] for each in times)
        rows.append(replace(row, forward=forward, step=step))
    return replace(counted, rows=rows)


def forward_pass(network: nn.Module, image: Tensor) -> None:
    """One without gradients, to its end also on a GPU."""
    with torch.no_grad():
        network(image)
    finish(image)


def finish(image: Tensor) -> None:
    """Wait for a GPU, if the image is on one."""
    if image.is_cuda:
        torch.cuda.synchronize()


class _Saved:
    """What autograd keeps in a tensor's place; it lives as long as the graph needs the tensor."""

    def __init__(self, tensor: Tensor) -> None:
        # An output that kept its own graph would keep itself: a ring that is never freed.
        self.tensor = tensor.detach()


def _attended(
    base: nn.Module, subject: Subject, variant: Variant, size: int
) -> tuple[nn.Module, Sequence[Site]]:
    """A copy with attention; all other tensors are the base's own, so that many copies take little memory."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    network, example = copy.deepcopy(base, shared), torch.zeros(1, 3, size, size)
    sites = attach(network, variant.name, subject.at, subject.mode, options=variant.options, example=example)
    return network, sites


def _saved_per_image(name: str, network: nn.Module, setup: Setup) -> float:
    try:
        twin = copy.deepcopy(network).to("meta").train()
        return saved_bytes(twin, torch.empty(setup.shape, device="meta")) / setup.batch
    except Exception as error:  # any network's own error
        raise AttnlabError(
            f"{name} cannot take a training step with a batch of {_words(setup)}: {error} "
            "Another --batch or --size may do."
        ) from error


def _words(setup: Setup) -> str:
    return " x ".join(map(str, setup.shape))


def _step(network: nn.Module, image: Tensor) -> None:
    """Forward and backward, with a loss that gives every output a gradient of its own."""
    outputs = [tensor for tensor in _tensors(network(image)) if tensor.requires_grad]
    torch.stack([tensor.square().mean() for tensor in outputs]).sum().backward()
    network.zero_grad(set_to_none=True)
    finish(image)


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
