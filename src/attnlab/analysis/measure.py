"""Measures time, in paired rounds, and memory for the backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from attnlab.errors import AttnlabError, unknown

Device = Literal["cpu", "cuda"]


def check_device(device: str, timed: bool) -> None:
    """Raise an AttnlabError for an unknown device, or one to time on that is missing."""
    if device not in get_args(Device):
        raise unknown("device", device, get_args(Device))
    if timed and device == "cuda" and not torch.cuda.is_available():
        raise AttnlabError("This PyTorch finds no CUDA device: use --device cpu, or --no-time for counts.")


def saved_bytes(network: nn.Module, *inputs: Any) -> int:
    """Bytes that autograd holds after a forward pass in training.

    Each storage counts once, even if several views or layers keep it. Parameters, buffers, gradients,
    workspaces of operations, and what is freed before the end of the pass are not counted: the peak is
    higher.

    Args:
        network: In training mode, on the device of the inputs.
        *inputs: Its inputs. On ``meta`` nothing is computed, with the same result.
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
    del output  # kept until here: it keeps the graph alive
    return sum(size for storage, size in sizes.items() if storage not in own)


def paired_rounds(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    plan: Callable[[float], int] | None = None,
) -> dict[str, list[float]]:
    """Time every work once per round, in an order that rotates from round to round.

    Args:
        works: The works by name.
        rounds: Timed rounds.
        warmup: Warm-up rounds.
        clock: A clock in seconds.
        plan: Returns the number of timed rounds, given the seconds of the last warm-up round.
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


def forward_pass(network: nn.Module, images: Any, device: Device) -> None:
    """A forward pass without gradients, synchronised on a GPU."""
    with torch.no_grad():
        network(images)
    finish(device)


def finish(device: Device) -> None:
    """Synchronise, if the work was on a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


class _Saved:
    """What autograd keeps in place of a tensor, alive as long as the graph needs it."""

    def __init__(self, tensor: Tensor) -> None:
        # An output that keeps its own graph would be a reference cycle that is never freed.
        self.tensor = tensor.detach()
