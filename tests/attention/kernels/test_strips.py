"""Differentiable strip operations against sums written out, in both layouts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.kernels import gate_strips, strip_means
from tests.attention.kernels.definitions import LAYOUTS, SHAPES, expected, values


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_strips_of_a_map_lie_as_the_map_does(layout: torch.memory_format) -> None:
    x = torch.randn(2, 6, 5, 4).to(memory_format=layout)
    innermost = layout == torch.channels_last
    for strip in strip_means(x):
        assert strip.shape[:2] == (2, 6)
        assert strip.transpose(1, 2).is_contiguous() == innermost
        assert strip.is_contiguous() != innermost


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_differentiable_operations_are_their_definitions(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    v = values(shape)
    exact = expected(v)
    x = v["x"].to(memory_format=layout)
    torch.testing.assert_close(strip_means(x), (exact["mean_h"], exact["mean_w"]))
    y = gate_strips(x, v["gate_h"], v["gate_w"])
    torch.testing.assert_close(y, exact["y"])
    assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_gradients_of_the_differentiable_operations(layout: torch.memory_format) -> None:
    v = values((2, 3, 4, 2))
    inputs = [v["x"].to(memory_format=layout), v["gate_h"], v["gate_w"]]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    for function, arguments in ((strip_means, inputs[:1]), (gate_strips, inputs)):
        assert torch.autograd.gradcheck(function, arguments)
        assert torch.autograd.gradgradcheck(function, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_differentiable_operations_keep_the_dtype_of_the_map(dtype: torch.dtype) -> None:
    x, gate = torch.randn(2, 3, 4, 4).to(dtype), torch.rand(2, 3, 4)
    assert all(mean.dtype == dtype for mean in strip_means(x))
    assert gate_strips(x, gate, gate).dtype == dtype


class Gated(nn.Module):
    """Both operations as a module uses them."""

    def forward(self, x: Tensor) -> Tensor:
        mean_h, mean_w = strip_means(x)
        return gate_strips(x, mean_h.sigmoid(), mean_w.sigmoid())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_differentiable_operations_trace_compile_and_map(layout: torch.memory_format) -> None:
    torch.compiler.reset()
    module, x = Gated(), torch.randn(3, 4, 6, 5).to(memory_format=layout)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for other in (torch.fx.symbolic_trace(module), compiled):
        torch.testing.assert_close(other(x), module(x))
    one_by_one = torch.func.vmap(lambda image: module(image[None])[0])(x)
    torch.testing.assert_close(one_by_one, module(x))


def test_results_may_be_changed_in_place() -> None:
    for layout, other in pairwise([*LAYOUTS, *LAYOUTS[:1]]):
        x = torch.randn(2, 3, 4, 4).to(memory_format=layout).requires_grad_()
        gate = torch.rand(2, 3, 4)
        nn.functional.relu_(gate_strips(x, gate, gate).add_(x.to(memory_format=other))).sum().backward()
        assert x.grad is not None
