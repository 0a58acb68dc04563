"""MACs against the library's counter, which sees every operation."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnlab.attention import attach, build_attention, list_attentions
from attnlab.attention.macs import count_macs, macs_within


def by_library(module: nn.Module, *shape: int) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(module).to("meta").eval()(torch.zeros(shape, device="meta"))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("name", list_attentions())
def test_of_every_module(name: str) -> None:
    module = build_attention(name, 64)
    assert count_macs(module, 2, 64, 9, 14) == by_library(module, 2, 64, 9, 14)


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor):
        return self.function(self, x)


def einsum(equation: str):
    return lambda _, x: torch.einsum(equation, x, x)


@pytest.mark.parametrize(
    "function",
    [
        einsum("bij,bkj->bik"),
        einsum("bij,bij->bi"),
        einsum("bij,bik->b"),
        einsum("bij,bkj"),
        einsum("...ij,...kj->...ik"),
        einsum("bij,bij->bij"),
        lambda _, x: x @ x.transpose(1, 2),
        lambda _, x: torch.baddbmm(x @ x.mT, x, x.mT),
        lambda _, x: torch.addmm(x[0] @ x[1].T, x[0], x[1].T),
        lambda _, x: torch.bmm(x, x.mT),
        lambda _, x: torch.bmm(input=x, mat2=x.mT),
        lambda m, x: nn.functional.conv1d(input=x, weight=m.grouped.weight, groups=3),
        lambda m, x: nn.functional.conv1d(x, weight=m.grouped.weight, groups=3),
        lambda _, x: torch.matmul(x, x[0, 0]),
        lambda _, x: torch.mm(x[0], x[1].T),
        lambda _, x: torch.mv(x[0], x[0, 0]),
        lambda _, x: nn.functional.scaled_dot_product_attention(x, x, x),
        lambda m, x: m.heads(x, x, x, need_weights=False)[0],
        lambda m, x: m.lstm(x)[0],
        lambda m, x: m.up(x),
        lambda m, x: m.grouped(x),
    ],
)
def test_of_functions_that_multiply(function) -> None:
    torch.manual_seed(0)
    module = Of(
        function,
        heads=nn.MultiheadAttention(8, 2, batch_first=True),
        lstm=nn.LSTM(8, 5),
        up=nn.ConvTranspose1d(6, 4, 3, stride=2, groups=2),
        grouped=nn.Conv1d(6, 9, 3, groups=3),
    )
    assert count_macs(module, 4, 6, 8) == by_library(module, 4, 6, 8)


def test_the_share_of_parts() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    attach(network, "se", at="1", options={"reduction": 2})
    whole, share = macs_within(network, [network[1].attention], 1, 3, 9, 9)
    assert whole == by_library(network, 1, 3, 9, 9)
    assert share == by_library(network[1].attention, 1, 8, 5, 5)


def test_no_compiler_is_loaded_to_count() -> None:
    code = (
        "import sys; from attnlab.cli import main; main(['attention', 'list', '--no-time']); "
        "print([name for name in ('torch._dynamo', 'sympy', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
