"""The fused ELA against the module as layers, which shares nothing with it but torch."""

from __future__ import annotations

import copy
import pickle
import shutil
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from attnlab.analysis.profile import saved_bytes
from attnlab.attention import build_attention
from attnlab.attention.kernels import ela
from attnlab.attention.kernels.ela import ela_formula
from attnlab.attention.macs import count_macs

LAYOUTS = [torch.contiguous_format, torch.channels_last]
VARIANTS = ["ela_t", "ela_b", "ela_s", "ela_l"]
SIZES = [(2, 16, 6, 5), (2, 16, 7, 7), (1, 64, 1, 1), (1, 16, 3, 1), (1, 264, 33, 40), (3, 640, 5, 4)]


class Layers(nn.Module):
    """ELA as its formula reads, of ordinary layers."""

    def __init__(self, conv: nn.Conv1d, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def gate(self, strip: Tensor) -> Tensor:
        normal = torch.group_norm(self.conv(strip), self.norm.num_groups, self.norm.weight, self.norm.bias)
        return normal.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(3)).unsqueeze(3) * self.gate(x.mean(2)).unsqueeze(2)


def pair(name: str, channels: int, implementation: str = "fused") -> tuple[nn.Module, Layers]:
    """The fused module, and the same layers run one by one."""
    torch.manual_seed(0)
    fused = build_attention(name, channels, implementation=implementation)
    for parameter in fused.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fused, Layers(copy.deepcopy(fused.conv), copy.deepcopy(fused.norm))


def results(module: nn.Module, x: Tensor, dy: Tensor) -> list[Tensor]:
    """The output, and the gradients of the map and of every parameter."""
    x = x.detach().requires_grad_()
    y = module(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], dy)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_equals_the_layers_in_float64(name: str, shape: tuple[int, ...], layout: torch.memory_format) -> None:
    fused, layers = pair(name, shape[1])
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=layout)
    dy = torch.randn_like(x)
    got = results(fused.double(), x, dy)
    torch.testing.assert_close(got, results(layers.double(), x, dy), rtol=1e-6, atol=1e-6)
    assert got[0].is_contiguous(memory_format=layout)
    assert got[1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)], ids=str
)
def test_equals_the_layers_to_rounding(
    name: str, dtype: torch.dtype, rounding: float, layout: torch.memory_format
) -> None:
    fused, layers = pair(name, 64)
    x = torch.randn(2, 64, 20, 12).to(dtype=dtype, memory_format=layout)
    dy = torch.randn_like(x)
    fused = fused.to(dtype)
    layers.load_state_dict(fused.state_dict())  # rounded, computed with in full
    for got, expected in zip(
        results(fused, x, dy), results(layers.double(), x.double(), dy.double()), strict=True
    ):
        assert got.dtype == dtype
        assert (got - expected).norm() <= rounding * expected.norm()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_takes_gradients_and_maps_of_any_strides(layout: torch.memory_format) -> None:
    fused, layers = (module.double() for module in pair("ela_b", 8))
    maps = torch.randn(3, 16, 12, 9, dtype=torch.float64).to(memory_format=layout)
    gradients = [
        *(torch.randn(3, 8, 12, 9, dtype=torch.float64).to(memory_format=each) for each in LAYOUTS),
        torch.ones((), dtype=torch.float64).expand(3, 8, 12, 9),
        torch.randn(3, 8, 9, 12, dtype=torch.float64).transpose(2, 3),
    ]
    for x in (maps[:, ::2], maps[:, :8], maps[:, 0].unsqueeze(1).expand(3, 8, 12, 9)):
        for dy in gradients:
            torch.testing.assert_close(results(fused, x, dy), results(layers, x, dy))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_an_empty_batch_gives_an_empty_map(layout: torch.memory_format) -> None:
    fused, _ = pair("ela_b", 16)
    x = torch.empty(0, 16, 4, 5).to(memory_format=layout)
    y, *gradients = results(fused, x, x)
    assert y.shape == x.shape
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("width", [1, 2])
def test_gradients_and_their_gradients(width: int) -> None:
    shapes = [(1, 4, 3, 2), (4, width, 3), (4,), (4,)]
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def function(*inputs: Tensor) -> Tensor:
        return ela(*inputs, norm_groups=2, implementation="fused")

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    fused, layers = (module.double().requires_grad_(False) for module in pair("ela_b", 16))
    x = torch.randn(2, 16, 6, 5, dtype=torch.float64)
    assert not fused(x).requires_grad
    fused.norm.bias.requires_grad_()
    layers.norm.bias.requires_grad_()
    for module in (fused, layers):
        module(x).square().sum().backward()
    assert fused.norm.weight.grad is None
    torch.testing.assert_close(fused.norm.bias.grad, layers.norm.bias.grad)
    with torch.no_grad():
        assert fused(x).grad_fn is None


@pytest.mark.parametrize("name", ["ela_t", "ela_b"])
@pytest.mark.parametrize("shape", [(16, 64, 56, 56), (16, 256, 56, 56), (8, 2048, 16, 16)], ids=str)
def test_keeps_little_beside_its_input(name: str, shape: tuple[int, ...]) -> None:
    x = torch.empty(shape, device="meta", requires_grad=True)
    kept = {
        implementation: saved_bytes(
            build_attention(name, shape[1], implementation=implementation).to("meta"), x
        )
        for implementation in ("fused", "formula")
    }
    size = x.numel() * x.element_size()
    assert kept["fused"] - size <= 0.4 * size
    assert kept["formula"] > kept["fused"]


@pytest.mark.parametrize("name", VARIANTS)
def test_counts_the_macs_of_the_formula(name: str) -> None:
    counts = {
        implementation: count_macs(build_attention(name, 64, implementation=implementation), 2, 64, 9, 6)
        for implementation in ("fused", "formula")
    }
    assert counts["fused"] == counts["formula"] > 0


def test_the_backward_pass_counts_as_three_convolutions() -> None:
    module, x = build_attention("ela_s", 64, implementation="fused"), torch.randn(2, 64, 9, 6)
    with FlopCounterMode(display=False) as counter:
        y = module(x)
        forward = counter.get_total_flops()
        y.sum().backward()
    assert counter.get_total_flops() == 4 * forward == 4 * 2 * count_macs(module, 2, 64, 9, 6)


def operands(shape: tuple[int, ...], width: int = 1, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The taps, the scale and the shift for maps of a shape."""
    channels = shape[1]
    sizes = [(channels, width, 5), (channels,), (channels,)]
    return [torch.randn(size).to(dtype) for size in sizes]


RULES = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    "rules",
    [RULES, pytest.param("test_aot_dispatch_dynamic", marks=pytest.mark.slow)],
    ids=["rules", "traced"],
)
@pytest.mark.parametrize("width", [1, 4])
def test_keeps_the_rules_of_custom_operations(
    layout: torch.memory_format, width: int, rules: str | tuple[str, ...]
) -> None:
    """Both operations; traced, in the slow part, with sizes that are not known."""
    x = torch.randn(2, 8, 5, 6).to(memory_format=layout)
    parameters, options = operands(x.shape, width), (2, 1e-5, "fused")
    small = torch.ops.attnlab.ela(x, *parameters, *options)[1:]
    wanted = [each.clone().requires_grad_() for each in (x, *parameters)]
    torch.library.opcheck(torch.ops.attnlab.ela, (*wanted, *options), test_utils=rules)
    dy, *wanted = (each.clone().requires_grad_() for each in (torch.randn_like(x), x, *parameters))
    backward = (dy, wanted[0], *small, *wanted[1:], *options)
    torch.library.opcheck(torch.ops.attnlab.ela_backward, backward, test_utils=rules)


AWKWARD = {
    "a slice": lambda shape: torch.randn(shape[0], 2 * shape[1], *shape[2:])[:, ::2],
    "repeated": lambda shape: torch.randn(shape[0], shape[1], 1, 1).expand(shape),
    "transposed": lambda shape: torch.randn(shape[0], shape[1], shape[3], shape[2]).transpose(2, 3),
    "contiguous": lambda shape: torch.randn(shape),
    "channels_last": lambda shape: torch.randn(shape).contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("of_x", AWKWARD)
@pytest.mark.parametrize("of_dy", ["repeated", "contiguous", "channels_last"])
def test_a_fake_promises_what_comes(of_x: str, of_dy: str) -> None:
    """Shape, dtype and strides: a compiler reads memory by what the fake says."""
    for shape in [(2, 8, 5, 6), (1, 8, 1, 1), (2, 8, 1, 7), (3, 1, 4, 4), (1, 8, 6, 6)]:
        for width, dtype in ((1, torch.float32), (shape[1], torch.bfloat16)):
            x, dy = AWKWARD[of_x](shape).to(dtype), AWKWARD[of_dy](shape).to(dtype)
            parameters, options = operands(shape, width, dtype), (1, 1e-5, "fused")
            forward = torch.ops.attnlab.ela(x, *parameters, *options)
            backward = torch.ops.attnlab.ela_backward(dy, x, *forward[1:], *parameters, *options)
            with FakeTensorMode() as mode:
                fake = mode.from_tensor
                fakes = [fake(each) for each in parameters]
                promised = torch.ops.attnlab.ela(fake(x), *fakes, *options)
                small = [fake(each) for each in forward[1:]]
                promised += torch.ops.attnlab.ela_backward(fake(dy), fake(x), *small, *fakes, *options)
            for real, promise in zip((*forward, *backward), promised, strict=True):
                assert (real.shape, real.dtype, real.stride()) == (
                    promise.shape,
                    promise.dtype,
                    promise.stride(),
                )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler: g++")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_trains_under_inductor(layout: torch.memory_format) -> None:
    """The compiler that users have; the gradient comes from a sum, and so repeats one value."""
    torch.compiler.reset()
    module, layers = pair("ela_b", 16, "auto")
    compiled = torch.compile(module, fullgraph=True)
    x = torch.randn(2, 16, 8, 7).to(memory_format=layout).requires_grad_()
    y = compiled(x)
    got = torch.autograd.grad(y.sum(), [x, *module.parameters()])
    torch.testing.assert_close(
        [y.detach(), *got], results(layers, x, torch.ones_like(y)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("implementation", ["fused", pytest.param("formula", marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_compiles_with_its_gradients(implementation: str, layout: torch.memory_format) -> None:
    torch.compiler.reset()
    module, layers = pair("ela_b", 16, implementation)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 16, 6, 5).to(memory_format=layout)
    dy = torch.randn_like(x)
    x.requires_grad_()
    y = compiled(x)
    got = torch.autograd.grad(y, [x, *module.parameters()], dy)
    torch.testing.assert_close([y.detach(), *got], results(layers, x, dy), rtol=1e-4, atol=1e-4)
    assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("first", [lambda module: module, torch.fx.symbolic_trace], ids=["", "traced"])
@pytest.mark.parametrize("implementation", ["auto", "fused", "formula"])
def test_exports_with_any_height_and_width(implementation: str, first: Callable) -> None:
    module, layers = pair("ela_b", 16, implementation)
    module = first(module)
    size = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own future
        program = torch.export.export(module, (torch.randn(2, 16, 6, 5),), dynamic_shapes=(size,))
    x = torch.randn(2, 16, 9, 4)
    torch.testing.assert_close(program.module()(x), layers(x))
    own = {str(node.target) for node in program.graph.nodes if "attnlab" in str(node.target)}
    assert bool(own) == (implementation == "fused")


@pytest.mark.parametrize("implementation", ["fused", "formula"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_traces_with_fx(implementation: str, layout: torch.memory_format) -> None:
    module, layers = pair("ela_b", 16, implementation)
    x = torch.randn(2, 16, 6, 5).to(memory_format=layout)
    torch.testing.assert_close(torch.fx.symbolic_trace(module)(x), layers(x))


def test_autocast_keeps_the_dtype_of_the_map_and_the_strips_in_full() -> None:
    fused, layers = pair("ela_s", 16)
    x = torch.randn(2, 16, 6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = fused(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layers(x))


@pytest.mark.parametrize("implementation", ["fused", "formula"])
def test_copies_pickles_and_takes_other_parameters(implementation: str) -> None:
    fused, _ = pair("ela_b", 16, implementation)
    x = torch.randn(2, 16, 6, 5)
    for twin in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert torch.equal(twin(x), fused(x))
    assert list(fused.state_dict()) == ["conv.weight", "norm.weight", "norm.bias"]
    other, _ = pair("ela_b", 16, implementation)
    state = {name: torch.zeros_like(value) for name, value in fused.state_dict().items()}
    torch.testing.assert_close(torch.func.functional_call(other, state, x), x / 4)


def test_the_formula_for_second_gradients_is_the_layers() -> None:
    fused, layers = (module.double() for module in pair("ela_s", 16))
    x = torch.randn(2, 16, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(ela_formula(x, *fused.parameters(), fused.norm.num_groups), layers(x))


def test_hooks_see_the_layers_of_the_formula() -> None:
    seen: list[nn.Module] = []
    for implementation, calls in (("formula", 2), ("fused", 0)):
        module, _ = pair("ela_b", 16, implementation)
        module.conv.register_forward_hook(lambda conv, *_: seen.append(conv))
        module(torch.randn(1, 16, 4, 4))
        assert len(seen) == calls
        seen.clear()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_comes_out_may_be_changed_in_place(layout: torch.memory_format) -> None:
    fused, layers = pair("ela_b", 16)
    x = torch.randn(2, 16, 6, 5).to(memory_format=layout)
    for module in (fused, layers):
        nn.functional.relu_(module(x).add_(x)).square().sum().backward()
    torch.testing.assert_close(fused.conv.weight.grad, layers.conv.weight.grad)
