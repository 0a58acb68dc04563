"""What the Triton kernels compute, against the formulas in float64.

``test_triton.py`` runs this file in a process of its own: natively where there is a CUDA device, else with
``TRITON_INTERPRET=1``.
"""

import math
from itertools import product

import pytest
import torch

from attnlab.attention.kernels import strips_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
SHAPES = [
    (1, 1, 1, 1),
    (3, 8, 1, 1),
    (3, 3, 1, 7),
    (1, 8, 7, 1),
    (3, 72, 5, 7),
    (1, 72, 8, 8),
    (3, 1, 8, 8),
    (1, 3, 56, 56),  # cut into bands of rows
    (2, 24, 3, 70),  # NHWC: longer rows than a program takes
    (1, 2, 2, 1030),  # NCHW: likewise
]
CASES = [
    *product(SHAPES, LAYOUTS, [torch.float32]),
    *product(
        [(3, 8, 5, 7), (1, 72, 8, 8)], LAYOUTS, [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    ),
]
by_case = pytest.mark.parametrize(("shape", "layout", "dtype"), CASES, ids=lambda value: str(value))


def draw(*shape, dtype=torch.float32, layout="nchw"):
    values = torch.randn(shape, device=DEVICE).to(dtype)
    return values.contiguous(memory_format=LAYOUTS[layout]) if len(shape) == 4 else values


def strips_of(x, dtype=None):
    """A strip of each direction, in the dtype of the sums of x."""
    batch, channels, height, width = x.shape
    dtype = dtype or torch.promote_types(x.dtype, torch.float32)
    return draw(batch, channels, height, dtype=dtype), draw(batch, channels, width, dtype=dtype)


def assert_sums(got, want, x):
    """Sums are in float32 or float64, of the shape (B,C,L), in the layout of x."""
    assert got.dtype == torch.promote_types(x.dtype, torch.float32)
    assert got.shape == want.shape
    nhwc = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    assert (got.transpose(1, 2) if nhwc else got).is_contiguous()
    torch.testing.assert_close(got.double(), want, rtol=32 * torch.finfo(got.dtype).eps, atol=atol(got, want))


def assert_map(got, want, x):
    """Maps have the dtype and the layout of x. The interpreter truncates bfloat16: twice the rounding."""
    assert got.dtype == x.dtype
    assert got.shape == x.shape
    assert got.stride() == x.stride()
    torch.testing.assert_close(got.double(), want, rtol=4 * torch.finfo(x.dtype).eps, atol=atol(got, want))


def atol(got, want):
    accuracy = torch.float64 if got.dtype == torch.float64 else torch.float32
    return 32 * torch.finfo(accuracy).eps * max(1.0, want.abs().max().item())


def check_means(x):
    for got, dim in zip(strips_triton.means(x), (3, 2), strict=True):
        assert_sums(got, x.double().mean(dim), x)


def check_gate(x, gate_h, gate_w):
    want = x.double() * gate_h.double()[..., None] * gate_w.double()[..., None, :]
    assert_map(strips_triton.gate(x, gate_h, gate_w), want, x)


def check_gate_gradients(dy, x, gate_h, gate_w):
    product = dy.double() * x.double()
    dgate_h, dgate_w = strips_triton.gate_gradients(dy, x, gate_h, gate_w)
    assert_sums(dgate_h, (product * gate_w.double()[..., None, :]).sum(3), x)
    assert_sums(dgate_w, (product * gate_h.double()[..., None]).sum(2), x)


def check_input_gradient(dy, gate_h, gate_w, dmean_h, dmean_w):
    height, width = dy.shape[2:]
    want = (
        dy.double() * gate_h.double()[..., None] * gate_w.double()[..., None, :]
        + dmean_h.double()[..., None] / width
        + dmean_w.double()[..., None, :] / height
    )
    assert_map(strips_triton.input_gradient(dy, gate_h, gate_w, dmean_h, dmean_w), want, dy)


@by_case
def test_the_four_operations_are_their_formulas(shape, layout, dtype):
    x, dy = (draw(*shape, dtype=dtype, layout=layout) for _ in range(2))
    gates, dmeans = strips_of(x), strips_of(x)
    check_means(x)
    check_gate(x, *gates)
    check_gate_gradients(dy, x, *gates)
    check_input_gradient(dy, *gates, *dmeans)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("position", range(4))
def test_every_tile_of_the_sets_gives_the_same(layout, position, monkeypatch):
    for name in ("PLANE_SUM_TILES", "PIXEL_SUM_TILES", "SCALE_TILES"):
        tiles = getattr(strips_triton, name)
        monkeypatch.setattr(strips_triton, name, [tiles[position % len(tiles)]])
    monkeypatch.setattr(strips_triton, "_fastest", {})
    x, dy = (draw(2, 72, 17, 12, layout=layout) for _ in range(2))
    gates, dmeans = strips_of(x), strips_of(x)
    check_means(x)
    check_gate(x, *gates)
    check_gate_gradients(dy, x, *gates)
    check_input_gradient(dy, *gates, *dmeans)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_may_have_any_strides(layout):
    x = draw(3, 8, 5, 7, layout=layout)
    gates = strips_of(x)
    for dy in (
        draw(3, 8, 7, 5).transpose(2, 3),
        draw(6, 16, 5, 14)[::2, 4:12, :, 1::2],
        draw(1, 1, 1, 1).expand(3, 8, 5, 7),
        draw(3, 8, 5, 7, layout="nchw" if layout == "nhwc" else "nhwc"),
    ):
        check_gate_gradients(dy, x, *gates)


def test_a_map_with_gaps_keeps_the_order_of_its_memory():
    for layout, memory_format in LAYOUTS.items():
        x = draw(2, 16, 5, 7, layout=layout)[:, 4:12]
        y = strips_triton.gate(x, *strips_of(x))
        assert y.is_contiguous(memory_format=memory_format)
        for got, dim in zip(strips_triton.means(x), (3, 2), strict=True):
            torch.testing.assert_close(got, x.mean(dim))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gates_may_have_the_dtype_of_the_map_and_any_strides(layout):
    x = draw(3, 8, 5, 7, dtype=torch.bfloat16, layout=layout)
    gate_h, gate_w = strips_of(x, torch.bfloat16)
    check_gate(x, gate_h, gate_w)
    check_gate(x, gate_h.transpose(1, 2).contiguous().transpose(1, 2), gate_w[:1].expand(3, 8, 7))
    check_gate_gradients(x, x, gate_h, gate_w)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs the memory of a GPU")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_offsets_above_31_bits(layout):
    shape = (3, 1 << 14, 1 << 8, 1 << 8)
    if torch.cuda.mem_get_info()[0] < 3 * 2 * math.prod(shape):
        pytest.skip("needs 20 GB of free memory")
    x = torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE, memory_format=LAYOUTS[layout])
    x[-1] = 1
    gates = [gate.fill_(2) for gate in strips_of(x)]
    assert [strip[-1].unique().tolist() for strip in strips_triton.means(x)] == [[1], [1]]
    assert [strip[:-1].unique().tolist() for strip in strips_triton.means(x)] == [[0], [0]]
    y = strips_triton.gate(x, *gates)
    assert (y[0, 0].unique().tolist(), y[-1, -1].unique().tolist()) == ([0], [4])
