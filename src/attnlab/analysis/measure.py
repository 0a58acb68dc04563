"""What is measured of modules as of networks: time, in paired rounds, and memory for the backward pass."""

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
    """Refuse, by an AttnlabError, a device that is unknown, or missing where times are taken on it."""
    if device not in get_args(Device):
        raise unknown("device", device, get_args(Device))
    if timed and device == "cuda" and not torch.cuda.is_available():
        raise AttnlabError("This PyTorch sees no CUDA device; use --device cpu, or --no-time for counts.")


def saved_bytes(network: nn.Module, *inputs: Any) -> int:
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


def forward_pass(network: nn.Module, images: Any, device: Device) -> None:
    """One without gradients, to its end also on a GPU."""
    with torch.no_grad():
        network(images)
    finish(device)


def finish(device: Device) -> None:
    """Wait for a GPU, if the work was on one."""
    if device == "cuda":
        torch.cuda.synchronize()


class _Saved:
    """What autograd keeps in a tensor's place; it lives as long as the graph needs the tensor."""

    def __init__(self, tensor: Tensor) -> None:
        # An output that kept its own graph would keep itself: a ring that is never freed.
        self.tensor = tensor.detach()
