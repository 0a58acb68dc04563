"""What the Triton kernels compute, against the formulas in float64.

``test_triton.py`` runs this file in a process of its own, the quick part and the slow one: natively where
there is a CUDA device, else with ``TRITON_INTERPRET=1``.
"""

import math
from itertools import product

import pytest
import torch
from torch.nn import functional

from attnlab.attention.kernels import ela, triton_backend
from attnlab.attention.kernels.strips import Layers

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
slow = pytest.mark.slow
SHAPES = [
    (1, 1, 1, 1),
    (3, 72, 5, 7),
    (1, 3, 56, 56),  # cut into bands of rows
    (2, 24, 3, 70),  # NHWC: longer rows than a program takes
    (1, 2, 2, 1030),  # NCHW: likewise
]
MORE_SHAPES = [(3, 8, 1, 1), (3, 3, 1, 7), (1, 8, 7, 1), (1, 72, 8, 8), (3, 1, 8, 8)]
CASES = [
    *product(SHAPES, LAYOUTS, [torch.float32]),
    *product([(3, 8, 5, 7)], LAYOUTS, [torch.float64, torch.bfloat16]),
    *(pytest.param(*case, marks=slow) for case in product(MORE_SHAPES, LAYOUTS, [torch.float32])),
    *(pytest.param(*case, marks=slow) for case in product([(3, 8, 5, 7)], LAYOUTS, [torch.float16])),
]
by_case = pytest.mark.parametrize(("shape", "layout", "dtype"), CASES, ids=str)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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
    for got, dim in zip(triton_backend.means(x), (3, 2), strict=True):
        assert_sums(got, x.double().mean(dim), x)


def check_gate(x, gate_h, gate_w):
    want = x.double() * gate_h.double()[..., None] * gate_w.double()[..., None, :]
    assert_map(triton_backend.gate(x, (gate_h, gate_w)), want, x)


def check_gate_gradients(dy, x, gate_h, gate_w):
    product = dy.double() * x.double()
    dgate_h, dgate_w = triton_backend.gate_gradients(dy, x, (gate_h, gate_w))
    assert_sums(dgate_h, (product * gate_w.double()[..., None, :]).sum(3), x)
    assert_sums(dgate_w, (product * gate_h.double()[..., None]).sum(2), x)


def check_input_gradient(dy, gate_h, gate_w, dmean_h, dmean_w):
    height, width = dy.shape[2:]
    want = (
        dy.double() * gate_h.double()[..., None] * gate_w.double()[..., None, :]
        + dmean_h.double()[..., None] / width
        + dmean_w.double()[..., None, :] / height
    )
    assert_map(triton_backend.input_gradient(dy, (gate_h, gate_w), (dmean_h, dmean_w)), want, dy)


@by_case
def test_the_four_operations_are_their_formulas(shape, layout, dtype):
    x, dy = (draw(*shape, dtype=dtype, layout=layout) for _ in range(2))
    gates, dmeans = strips_of(x), strips_of(x)
    check_means(x)
    check_gate(x, *gates)
    check_gate_gradients(dy, x, *gates)
    check_input_gradient(dy, *gates, *dmeans)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("position", [*(pytest.param(n, marks=slow) for n in range(3)), 3])
def test_every_tile_of_the_sets_gives_the_same(layout, position, monkeypatch):
    for name in ("PLANE_SUM_TILES", "PIXEL_SUM_TILES", "SCALE_TILES"):
        tiles = getattr(triton_backend, name)
        monkeypatch.setattr(triton_backend, name, [tiles[position % len(tiles)]])
    monkeypatch.setattr(triton_backend, "_fastest", {})
    x, dy = (draw(1, 36, 17, 6, layout=layout) for _ in range(2))
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
        y = triton_backend.gate(x, strips_of(x))
        assert y.is_contiguous(memory_format=memory_format)
        for got, dim in zip(triton_backend.means(x), (3, 2), strict=True):
            torch.testing.assert_close(got, x.mean(dim))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gates_may_have_the_dtype_of_the_map_and_any_strides(layout):
    x = draw(3, 8, 5, 7, dtype=torch.bfloat16, layout=layout)
    gate_h, gate_w = strips_of(x, torch.bfloat16)
    check_gate(x, gate_h, gate_w)
    check_gate(x, gate_h.transpose(1, 2).contiguous().transpose(1, 2), gate_w[:1].expand(3, 8, 7))
    check_gate_gradients(x, x, gate_h, gate_w)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_are_timed_once_for_all_batches(layout, monkeypatch):
    timed = []

    def milliseconds(launch, tile):
        launch(tile)
        timed.append(tile)
        return -len(timed)  # the last is the fastest

    monkeypatch.setattr(triton_backend, "_fastest", {})
    monkeypatch.setattr(triton_backend, "_INTERPRETED", False)
    monkeypatch.setattr(triton_backend, "_milliseconds", milliseconds)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    for batch in (2, 1, 3):
        check_means(draw(batch, 8, 12, 9, layout=layout))
    sums = triton_backend.PIXEL_SUM_TILES if layout == "nhwc" else triton_backend.PLANE_SUM_TILES
    assert timed == sums
    assert list(triton_backend._fastest.values()) == [sums[-1]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_batch(layout):
    x = draw(0, 8, 5, 7, layout=layout)
    gates = strips_of(x)
    assert triton_backend.gate(x, gates).shape == x.shape
    assert [tuple(strip.shape) for strip in triton_backend.means(x)] == [(0, 8, 5), (0, 8, 7)]
    layers = Layers(*draw_parameters(8, 3), 2, 1e-5)
    _, gradients = triton_backend.strip_gates_gradients(gates, gates, gates, layers)
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs the memory of a GPU")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_offsets_above_31_bits(layout):
    shape = (3, 1 << 14, 1 << 8, 1 << 8)
    if torch.cuda.mem_get_info()[0] < 3 * 2 * math.prod(shape):
        pytest.skip("needs 20 GB of free memory")
    x = torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE, memory_format=LAYOUTS[layout])
    x[-1] = 1
    gates = [gate.fill_(2) for gate in strips_of(x)]
    assert [strip[-1].unique().tolist() for strip in triton_backend.means(x)] == [[1], [1]]
    assert [strip[:-1].unique().tolist() for strip in triton_backend.means(x)] == [[0], [0]]
    y = triton_backend.gate(x, gates)
    assert (y[0, 0].unique().tolist(), y[-1, -1].unique().tolist()) == ([0], [4])


def in_layout(strip, layout):
    return strip.transpose(1, 2).contiguous().transpose(1, 2) if layout == "nhwc" else strip


def draw_strips(batch, channels, height, width, layout, dtype=torch.float32):
    return [in_layout(draw(batch, channels, length, dtype=dtype), layout) for length in (height, width)]


def draw_parameters(channels, kernel_size, dtype=torch.float32):
    return (
        draw(channels, 1, kernel_size, dtype=dtype),
        draw(channels, dtype=dtype),
        draw(channels, dtype=dtype),
    )


def gates_by_formula(means, weight, norm_weight, norm_bias, groups, eps):
    channels, _, kernel_size = weight.shape
    convolved = (functional.conv1d(mean, weight, padding=kernel_size // 2, groups=channels) for mean in means)
    return [torch.group_norm(strip, groups, norm_weight, norm_bias, eps).sigmoid() for strip in convolved]


def check_strip_gates(means, parameters, groups, layout):
    inputs = [tensor.double().requires_grad_() for tensor in (*means, *parameters)]
    want = gates_by_formula(inputs[:2], *inputs[2:], groups, 1e-5)
    layers = Layers(*parameters, groups, 1e-5)
    gates = triton_backend.strip_gates(means, layers)
    dgates = [in_layout(torch.randn_like(gate), layout) for gate in gates]
    dmeans, dparameters = triton_backend.strip_gates_gradients(dgates, gates, means, layers)
    for got, wanted, given in zip(gates, want, means, strict=True):
        assert (got.dtype, got.stride()) == (given.dtype, given.stride())
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=16 * torch.finfo(got.dtype).eps + 1e-11)
    wanted_gradients = torch.autograd.grad(want, inputs, [dgate.double() for dgate in dgates])
    for got, wanted, given in zip((*dmeans, *dparameters), wanted_gradients, inputs, strict=True):
        assert got.shape == given.shape
        assert got.dtype == means[0].dtype
        accuracy = 128 * torch.finfo(got.dtype).eps * max(1.0, wanted.abs().max().item()) + 1e-11
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=accuracy)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("batch", "channels", "height", "width", "groups", "kernel_size", "dtype"),
    [
        (2, 4, 5, 7, 2, 3, torch.float64),
        (1, 1, 2, 1, 1, 1, torch.float32),
        pytest.param(1, 6, 1, 9, 2, 3, torch.float32, marks=slow),
        (1, 24, 8, 8, 1, 5, torch.float32),
    ],
    ids=str,
)
def test_strip_gates_and_their_gradients_are_the_formula(
    layout, batch, channels, height, width, groups, kernel_size, dtype
):
    means = draw_strips(batch, channels, height, width, layout, dtype)
    check_strip_gates(means, draw_parameters(channels, kernel_size, dtype), groups, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strip_gates_of_groups_larger_than_a_tile(layout, monkeypatch):
    monkeypatch.setattr(triton_backend, "GATE_TILE", 64)
    monkeypatch.setattr(triton_backend, "GATE_POSITIONS", 16)
    check_strip_gates(draw_strips(1, 5, 7, 19, layout), draw_parameters(5, 3), 1, layout)


def test_strip_gates_of_means_far_from_zero():
    """One pass of squares would lose all digits of the variance here."""
    mean = 3000 + draw(1, 4, 300)
    parameters = (
        torch.ones(4, 1, 1, device=DEVICE),
        torch.ones(4, device=DEVICE),
        torch.zeros(4, device=DEVICE),
    )
    want = gates_by_formula([mean.double()], *(parameter.double() for parameter in parameters), 2, 1e-5)[0]
    for got in triton_backend.strip_gates((mean, mean), Layers(*parameters, 2, 1e-5)):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [1, 4])
def test_the_whole_operation_is_that_of_plain_torch(width, layout):
    """With a depthwise convolution, for which there are kernels, and with one across channels."""
    x, dy = (draw(1, 4, 3, 5, layout=layout) for _ in range(2))
    inputs = [x, draw(4, width, 3), draw(4), draw(4)]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    found = []
    for implementation in ("fused", "triton"):
        y = ela(*inputs, norm_groups=2, implementation=implementation)
        found.append([y, *torch.autograd.grad(y, inputs, dy)])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
