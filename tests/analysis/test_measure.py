"""Bytes counted by hand, and rounds on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attnlab.analysis.measure import check_device, paired_rounds, saved_bytes
from attnlab.errors import AttnlabError

FLOAT = 4


def module(forward: Callable[..., Tensor], *layers: nn.Module) -> nn.Module:
    """A network from a function of its layers and its input."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)
            self.register_buffer("scale", torch.ones(1, 8, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return forward(x, self.scale, *self.layers)

    return Network()


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3)


# For two images of 10 x 10: the image itself, and one map of eight channels of 8 x 8 behind the convolution.
IMAGE, MAP = 2 * 3 * 100 * FLOAT, 2 * 8 * 64 * FLOAT
SAVED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    # ReLU keeps its output, which the next convolution keeps, too; its input is kept by nobody.
    "relu": (lambda: nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4)), IMAGE + MAP),
    "relu in place": (lambda: nn.Sequential(conv(3, 8), nn.ReLU(inplace=True), conv(8, 4)), IMAGE + MAP),
    # GELU keeps its input, the next convolution its output.
    "gelu": (lambda: nn.Sequential(conv(3, 8), nn.GELU(), conv(8, 4)), IMAGE + 2 * MAP),
    # A linear layer keeps a view of what ReLU keeps.
    "view": (
        lambda: nn.Sequential(conv(3, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4)),
        IMAGE + MAP,
    ),
    # BatchNorm keeps its input, and a mean and a deviation a channel; its running statistics are buffers.
    "batchnorm": (
        lambda: nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU()),
        IMAGE + 2 * MAP + 2 * 8 * FLOAT,
    ),
    # A product with a buffer keeps the buffer alone; one with itself keeps the map once.
    "buffer": (lambda: module(lambda x, scale, first: first(x) * scale, conv(3, 8)), IMAGE),
    "square": (lambda: module(lambda x, scale, first: (y := first(x)) * y, conv(3, 8)), IMAGE + MAP),
    # What nothing depends on is given back before the pass ends.
    "dropped branch": (
        lambda: module(
            lambda x, scale, first, last: (torch.exp(last(first(x))).sum(), first(x))[1],
            conv(3, 8),
            conv(8, 8),
        ),
        IMAGE,
    ),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("case", SAVED)
def test_saved_bytes_of_networks_counted_by_hand(case: str, device: str) -> None:
    build, expected = SAVED[case]
    assert saved_bytes(build().to(device), torch.ones(2, 3, 10, 10, device=device)) == expected


class Machine:
    """A clock that works push forward, on a machine that becomes slower with every round."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds * 2 ** self.calls.count(name)
            self.calls.append(name)

        return call


def test_rounds_are_paired() -> None:
    machine = Machine()
    works = {"none": machine.work("none", 4.0), "a": machine.work("a", 5.0), "b": machine.work("b", 3.0)}
    times = paired_rounds(works, rounds=3, warmup=1, clock=lambda: machine.now)
    # The first round is thrown away; each of the next takes twice as long as the one before.
    assert times == {"none": [8.0, 16.0, 32.0], "a": [10.0, 20.0, 40.0], "b": [6.0, 12.0, 24.0]}
    assert machine.calls == ["b", "a", "none", "none", "a", "b"] * 2


def test_the_number_of_rounds_may_be_planned_by_the_last_that_does_not_count() -> None:
    machine = Machine()
    planned: list[float] = []

    def plan(seconds: float) -> int:
        planned.append(seconds)
        return 1

    times = paired_rounds({"a": machine.work("a", 3.0)}, 10, 2, lambda: machine.now, plan)
    assert (planned, times) == ([6.0], {"a": [12.0]})


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_device("cpu", timed=True)
    check_device("cuda", timed=False)
    with pytest.raises(AttnlabError, match="finds no CUDA device"):
        check_device("cuda", timed=True)
    with pytest.raises(AttnlabError, match="Did you mean 'cuda'"):
        check_device("cud", timed=False)
