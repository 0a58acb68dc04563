"""The contract of an attention module as pytest tests.

Subclass `AttentionTester` in a test file to test your own module:

    class TestMyAttention(AttentionTester):
        name = "my_pkg.my_module.MyAttention"

`AttentionProof` adds what only the author can know: the formula written once more, the number of
parameters, and the symmetries.
"""

# ruff: noqa: D102  (a test's name says what it checks)

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Collection, Mapping
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention import build_attention

SIZES = [(1, 1), (1, 7), (9, 1), (8, 8), (33, 18)]
CHANNELS = [8, 24, 64, 72, 144, 200, 320]


class AttentionTester:
    """The contract of every module; pytest runs it for each subclass.

    Attributes:
        name: Registered name or import path of the module.
        options: Its options.
    """

    name: str
    options: Mapping[str, Any] = MappingProxyType({})

    def build(self, channels: int = 16) -> nn.Module:
        """The module with random parameters and statistics, so that no gate is constant."""
        torch.manual_seed(0)
        module = build_attention(self.name, channels, **self.options)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                nn.init.normal_(buffer, std=0.5)
            elif name.endswith("running_var"):
                nn.init.uniform_(buffer, 0.5, 1.5)
        return module

    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_keeps_the_shape_of_any_map(self, size: tuple[int, int]) -> None:
        module = self.build()
        for batch, training in product((1, 3), (True, False)):
            x = torch.randn(batch, 16, *size)
            y = module.train(training)(x)
            assert y.shape == x.shape
            assert y.isfinite().all()

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_takes_the_widths_that_networks_have(self, channels: int) -> None:
        module = self.build(channels)
        for size in [(1, 1), (5, 3)]:
            assert module(torch.randn(1, channels, *size)).shape == (1, channels, *size)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
    def test_works_in_other_dtypes(self, dtype: torch.dtype) -> None:
        module, x = self.build().eval(), torch.randn(2, 16, 6, 5)
        expected = module(x)
        result = copy.deepcopy(module).to(dtype)(x.to(dtype))
        assert result.dtype == dtype
        torch.testing.assert_close(result.float(), expected, atol=0.05, rtol=0.05)

    def test_autocast_keeps_the_dtype_of_the_map(self) -> None:
        module, x = self.build().eval(), torch.randn(2, 16, 6, 5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(x).dtype == torch.float32
            result = module(x.bfloat16())
        assert result.dtype == torch.bfloat16
        torch.testing.assert_close(result.float(), module(x), atol=0.05, rtol=0.05)

    def test_channels_last_gives_the_same_numbers_and_stays_channels_last(self) -> None:
        module, x = self.build().eval(), torch.randn(2, 16, 6, 5)
        y = module(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(y, module(x))
        assert y.is_contiguous(memory_format=torch.channels_last)

    def test_gradients_reach_the_input_and_every_parameter(self) -> None:
        # With 64 channels, some units of a reduced layer survive its ReLU.
        module, x = self.build(64), torch.randn(2, 64, 6, 5, requires_grad=True)
        module(x).square().sum().backward()
        tensors = {"input": x, **dict(module.named_parameters())}
        dead = [name for name, tensor in tensors.items() if tensor.grad is None or not tensor.grad.any()]
        assert not dead

    def test_gradients_are_those_of_the_function(self) -> None:
        module, x = self.build(4).double(), torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
        names, values = (
            zip(*module.named_parameters(), strict=True) if list(module.parameters()) else ((), ())
        )

        def function(x: Tensor, *values: Tensor) -> Tensor:
            return torch.func.functional_call(module, dict(zip(names, values, strict=True)), x)

        # Element by element where that is quick; else along random directions.
        many = sum(value.numel() for value in values) > 100
        assert torch.autograd.gradcheck(function, (x, *values), fast_mode=many)

    def test_gradients_at_one_pixel_of_one_image_are_finite(self) -> None:
        module, x = self.build(), torch.randn(1, 16, 1, 1, requires_grad=True)
        module(x).sum().backward()
        gradients = [tensor.grad for tensor in (x, *module.parameters())]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)

    def test_images_of_a_batch_do_not_mix(self) -> None:
        module, x = self.build().eval(), torch.randn(3, 16, 6, 5)
        torch.testing.assert_close(module(x)[1:2], module(x[1:2]), atol=1e-4, rtol=1e-4)

    def test_its_input_is_left_as_it_was(self) -> None:
        x = torch.randn(2, 16, 6, 5)
        before = x.clone()
        self.build()(x)
        assert torch.equal(x, before)

    def test_copies_and_pickles(self) -> None:
        module, x = self.build().eval(), torch.randn(2, 16, 6, 5)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(twin(x), module(x))

    def test_compiles_as_one_graph(self) -> None:
        torch.compiler.reset()
        module, x = self.build().eval(), torch.randn(2, 16, 6, 5)
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), module(x))

    def test_exports(self) -> None:
        module, x = self.build().eval(), torch.randn(2, 16, 6, 5)
        size = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own future
            exported = torch.export.export(module, (x,), dynamic_shapes=(size,)).module()
        for other in (x, torch.randn(2, 16, 9, 4)):
            torch.testing.assert_close(exported(other), module(other))

    def test_traces_with_fx(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 16, 1), self.build())
        twin = copy.deepcopy(network)
        traced = torch.fx.symbolic_trace(twin)
        for training, (batch, *size) in product((True, False), [(2, 6, 5), (3, 9, 4), (1, 1, 1)]):
            x = torch.randn(batch, 3, *size).to(memory_format=torch.channels_last)
            y, other = network.train(training)(x), traced.train(training)(x)
            torch.testing.assert_close(other, y)
            assert other.stride() == y.stride()
            for output in (y, other):
                output.square().sum().backward()
        for key, value in network.state_dict().items():
            torch.testing.assert_close(twin.state_dict()[key], value)
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(twin.get_parameter(name).grad, parameter.grad)

    def test_its_state_dict_is_all_of_its_state(self) -> None:
        module = self.build()
        twin = build_attention(self.name, 16, **self.options)
        twin.load_state_dict(module.state_dict())
        x = torch.randn(2, 16, 6, 5)
        torch.testing.assert_close(twin.eval()(x), module.eval()(x))


Symmetry = Literal["flip_height", "flip_width", "transpose", "permute_places", "permute_channels"]
SYMMETRIES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "flip_height": lambda x: x.flip(2),
    "flip_width": lambda x: x.flip(3),
    "transpose": lambda x: x.transpose(2, 3),
    "permute_places": lambda x: x.flatten(2)[:, :, _order(x.shape[2:].numel())].reshape(x.shape),
    "permute_channels": lambda x: x[:, _order(x.shape[1])],
}
assert set(SYMMETRIES) == set(get_args(Symmetry))


class AttentionProof(AttentionTester):
    """The contract, and a module's own formula: pytest runs all of it for each subclass.

    Attributes:
        formula: ``formula(module, x)`` computes the module's output from its parameters by the paper's
            formula, with loops and sums instead of layers; float64, in evaluation. A static method.
        count: Number of parameters at a width, ``count(channels)``. A static method.
        symmetries: What commutes with the module at any parameters: flips, ``transpose`` (of height and
            width), ``permute_places`` (any order of the positions), ``permute_channels``. All of them, as
            those left out have to fail.
    """

    formula: Callable[[Any, Tensor], Tensor]
    count: Callable[[int], int]
    symmetries: Collection[Symmetry] = ()

    @pytest.mark.parametrize("size", [(5, 7), (8, 8), (1, 1), (1, 6), (6, 1)], ids=str)
    def test_is_its_formula(self, size: tuple[int, int]) -> None:
        module, x = self.build().double().eval(), torch.randn(2, 16, *size, dtype=torch.float64)
        torch.testing.assert_close(module(x), self.formula(module, x))

    def test_is_its_formula_on_a_constant_map(self) -> None:
        module = self.build().double().eval()
        x = torch.randn(2, 16, 1, 1, dtype=torch.float64).expand(2, 16, 5, 6).clone().requires_grad_()
        y = module(x)
        torch.testing.assert_close(y, self.formula(module, x))
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    @pytest.mark.parametrize("factor", [0.0, 1e3])
    def test_is_its_formula_where_gates_saturate(self, factor: float) -> None:
        module = self.build().double().eval()
        x = torch.randn(2, 16, 5, 6, dtype=torch.float64) * factor
        torch.testing.assert_close(module(x), self.formula(module, x), rtol=1e-6, atol=1e-6)
        module, x = module.float(), x.float().requires_grad_()
        module(x).sum().backward()
        gradients = [tensor.grad for tensor in (x, *module.parameters())]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)

    @pytest.mark.parametrize("channels", [16, 64, 200])
    def test_has_the_parameters_of_its_formula(self, channels: int) -> None:
        assert sum(parameter.numel() for parameter in self.build(channels).parameters()) == self.count(
            channels
        )

    @pytest.mark.parametrize("symmetry", SYMMETRIES)
    def test_has_these_symmetries_and_no_others(self, symmetry: Symmetry) -> None:
        module, x = self.build().double().eval(), torch.randn(2, 16, 6, 6, dtype=torch.float64)
        change = SYMMETRIES[symmetry]
        commutes = torch.allclose(module(change(x)), change(module(x)), rtol=1e-8, atol=1e-10)
        assert commutes == (symmetry in self.symmetries)


def _order(number: int) -> Tensor:
    return torch.randperm(number, generator=torch.Generator().manual_seed(0))
