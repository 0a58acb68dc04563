"""Strip operations against sums written out, in both layouts and for any strides."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.kernels import gate_strips, strip_means, strips

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(2, 3, 4, 5), (1, 8, 1, 1), (3, 1, 4, 4), (2, 5, 1, 6), (2, 16, 40, 33), (0, 4, 3, 2)]


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Maps x and dy, and strips of both directions by name."""
    torch.manual_seed(0)
    batch, channels, height, width = shape
    strip = {"h": (batch, channels, height), "w": (batch, channels, width)}
    made = {name: torch.randn(shape) for name in ("x", "dy")}
    made |= {f"{name}_{side}": torch.randn(strip[side]) for name in ("gate", "dmean") for side in strip}
    return {name: tensor.to(dtype) for name, tensor in made.items()}


def expected(v: dict[str, Tensor]) -> dict[str, Tensor]:
    """What each operation gives, by its definition, in float64."""
    x, dy, g_h, g_w, d_h, d_w = (
        v[name].double() for name in ("x", "dy", "gate_h", "gate_w", "dmean_h", "dmean_w")
    )
    height, width = x.shape[2:]
    both = torch.einsum("bch,bcw->bchw", g_h, g_w)
    return {
        "mean_h": torch.einsum("bchw->bch", x) / width,
        "mean_w": torch.einsum("bchw->bcw", x) / height,
        "y": x * both,
        "dgate_h": torch.einsum("bchw,bchw,bcw->bch", dy, x, g_w),
        "dgate_w": torch.einsum("bchw,bchw,bch->bcw", dy, x, g_h),
        "dx": dy * both + d_h[..., None] / width + d_w[:, :, None] / height,
    }


def found(v: dict[str, Tensor]) -> dict[str, Tensor]:
    gates = v["gate_h"], v["gate_w"]
    mean_h, mean_w = strips.means(v["x"])
    dgate_h, dgate_w = strips.gate_gradients(v["dy"], v["x"], *gates)
    return {
        "mean_h": mean_h,
        "mean_w": mean_w,
        "y": strips.gate(v["x"], *gates),
        "dgate_h": dgate_h,
        "dgate_w": dgate_w,
        "dx": strips.input_gradient(v["dy"], *gates, v["dmean_h"], v["dmean_w"]),
    }


@pytest.mark.parametrize("block", [1, 2**9, 2**20])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_raw_operations_are_their_definitions(
    shape: tuple[int, ...], layout: torch.memory_format, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "BLOCK_BYTES", block)
    v = values(shape)
    v |= {name: v[name].to(memory_format=layout) for name in ("x", "dy")}
    result = found(v)
    torch.testing.assert_close(result, expected(v), rtol=1e-10, atol=1e-10)
    for name in ("y", "dx"):
        assert result[name].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_raw_operations_round_once(dtype: torch.dtype, layout: torch.memory_format) -> None:
    v = values((2, 6, 40, 33), dtype)
    v |= {name: v[name].to(memory_format=layout) for name in ("x", "dy")}
    v |= {name: v[name].float() for name in v if name not in ("x", "dy")}
    result, exact = found(v), expected(v)
    for name, tensor in result.items():
        assert tensor.dtype == (dtype if name in ("y", "dx") else torch.float32)
        precision = torch.finfo(tensor.dtype).eps
        error = (tensor - exact[name]).norm() / exact[name].norm()
        assert error <= (precision if tensor.dtype != torch.float32 else 1e-6)


def test_raw_operations_take_any_strides() -> None:
    v = values((2, 6, 5, 4))
    maps = {
        "every other channel": torch.randn(2, 12, 5, 4)[:, ::2],
        "some channels, innermost": torch.randn(2, 5, 4, 12)[..., :6].permute(0, 3, 1, 2),
        "transposed": torch.randn(2, 6, 4, 5).transpose(2, 3),
        "expanded": torch.randn(2, 6, 1, 1).expand(2, 6, 5, 4),
        "cropped": torch.randn(2, 6, 9, 9)[:, :, 2:7, 3:7],
    }
    for x in maps.values():
        for dy in maps.values():
            given = v | {"x": x.double(), "dy": dy.double()} if x is dy else v | {"x": x, "dy": dy}
            given |= {name: tensor.to(given["x"].dtype) for name, tensor in given.items()}
            torch.testing.assert_close(found(given), expected(given), check_dtype=False, rtol=1e-4, atol=1e-4)


def test_blocks_cover_every_row_of_every_image_once() -> None:
    for shape in [(7, 5, 4, 3), (2, 300, 100, 8), (1, 1, 2**19, 1), (9, 1, 1, 1)]:
        seen = torch.zeros(shape[:2], dtype=torch.int64)
        for images, rows in strips._blocks(torch.empty(1).expand(shape)):
            seen[images, rows] += 1
        assert bool((seen == 1).all())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_strips_of_a_map_lie_as_the_map_does(layout: torch.memory_format) -> None:
    x = torch.randn(2, 6, 5, 4).to(memory_format=layout)
    innermost = layout == torch.channels_last
    for strip in (*strips.means(x), *strip_means(x)):
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
