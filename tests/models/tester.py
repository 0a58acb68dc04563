"""What every network of a task must stand, whatever it is made of."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn


class NetworkTester:
    """Subclass, and give `build`; each test then runs for each of the subclass's networks.

    As it stands, for networks with logits at each pixel of the image, (B, K, H, W).
    """

    classes = 5

    def build(self) -> nn.Module:
        raise NotImplementedError

    def logits_shape(self, images: torch.Tensor) -> tuple[int, ...]:
        """The shape that the logits of (B, 3, H, W) images must have."""
        return (len(images), self.classes, *images.shape[-2:])

    @pytest.fixture(scope="class")
    def first(self) -> dict[object, nn.Module]:
        """A network of each choice, built once and changed by nobody."""
        return {}

    @pytest.fixture
    def network(self, first: dict[object, nn.Module]) -> nn.Module:
        """One's own, to be changed."""
        if (choice := str(getattr(self, "choice", None))) not in first:
            torch.manual_seed(0)
            first[choice] = self.build()
        return copy.deepcopy(first[choice])

    @pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 47), (128, 40)])
    def test_logits_have_their_shape(self, network: nn.Module, size: tuple[int, int]) -> None:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            logits = network.eval()(images)
        assert logits.shape == self.logits_shape(images)
        assert logits.isfinite().all()

    def test_a_batch_of_one_trains(self, network: nn.Module) -> None:
        loss = network.train()(torch.randn(1, 3, 64, 64)).square().mean()
        loss.backward()
        assert loss.isfinite()

    def test_every_parameter_gets_a_gradient(self, network: nn.Module) -> None:
        network.train()(torch.randn(2, 3, 64, 64)).square().mean().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []

    def test_state_dict_round_trip(self, network: nn.Module) -> None:
        other = self.build()
        other.load_state_dict(copy.deepcopy(network.state_dict()))
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(network.eval()(image), other.eval()(image))

    def test_eval_does_not_depend_on_the_rest_of_the_batch(self, network: nn.Module) -> None:
        images = torch.randn(3, 3, 64, 64)
        with torch.no_grad():
            together = network.eval()(images)
            alone = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_channels_last(self, network: nn.Module) -> None:
        image = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            plain = network.eval()(image)
            last = network.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
        torch.testing.assert_close(plain, last, rtol=1e-3, atol=1e-3)

    def test_bf16_autocast(self, network: nn.Module) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network.train()(torch.randn(2, 3, 64, 64))
        assert logits.isfinite().all()

    @pytest.mark.slow
    def test_compiles_without_graph_breaks(self, network: nn.Module) -> None:
        image = torch.randn(1, 3, 64, 64)
        compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(
            network.eval(), backend="aot_eager", fullgraph=True
        )
        with torch.no_grad():
            torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-4)

    def test_exports(self, network: nn.Module) -> None:
        image = torch.randn(1, 3, 64, 64)
        program = torch.export.export(network.eval(), (image,))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(image), network(image), rtol=1e-4, atol=1e-4)


class ClassifierTester(NetworkTester):
    """For networks with logits for each image, (B, K), in training as in evaluation."""

    def logits_shape(self, images: torch.Tensor) -> tuple[int, ...]:
        return (len(images), self.classes)

    def test_training_gives_one_tensor_too(self, network: nn.Module) -> None:
        images = torch.randn(2, 3, 64, 64)
        logits = network.train()(images)
        assert isinstance(logits, torch.Tensor)
        assert logits.shape == self.logits_shape(images)
