"""What every detector must stand, whatever it is made of."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention import attach, attention_keys
from attnlab.models.built import BuiltNetwork


def target(first_label: int, boxes: list[list[float]], classes: list[int], index: int = 0) -> dict:
    """A training target: boxes xyxy in pixels, classes 0..K-1."""
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(classes, dtype=torch.int64) + first_label,
        "image_id": torch.tensor(index),
    }


def least_shares(
    network: nn.Module, images: list[Tensor], targets: list[dict], steps: int, lr: float
) -> dict[str, float]:
    """The least value of each loss in training on the same images, as a share of its first.

    Anchors are assigned anew at each step, and losses jump with it: the last value would tell less.
    """
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=lr)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        losses = network(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return {name: min(losses[name] for losses in history) / first for name, first in history[0].items()}


class DetectorTester:
    """Subclass, and give `build`; each test then runs for each of the subclass's detectors.

    Build it small, and with a score threshold of 0, so that there are detections without training.
    """

    classes = 5
    # Placements, or patterns of module names, where attention must go in.
    placements: tuple[str, ...] = ()

    def build(self) -> BuiltNetwork:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def first(self) -> dict[object, BuiltNetwork]:
        """A detector of each choice, built once and changed by nobody."""
        return {}

    @pytest.fixture
    def built(self, first: dict[object, BuiltNetwork]) -> BuiltNetwork:
        """One's own, to be changed."""
        if (choice := str(getattr(self, "choice", None))) not in first:
            torch.manual_seed(0)
            first[choice] = self.build()
        return replace(first[choice], network=copy.deepcopy(first[choice].network))

    def images(self) -> list[Tensor]:
        """Images of different sizes, odd ones among them."""
        torch.manual_seed(1)
        return [torch.rand(3, 75, 101), torch.rand(3, 64, 64), torch.rand(3, 97, 33)]

    def targets(self, first_label: int) -> list[dict]:
        """Targets of `images`; the second has no objects."""
        return [
            target(first_label, [[5, 7, 45, 60], [50.5, 10.2, 95.1, 40.7], [0, 0, 101, 75]], [0, 4, 2], 0),
            target(first_label, [], [], 1),
            target(first_label, [[2, 3, 30, 90]], [self.classes - 1], 2),
        ]

    def check_losses(self, losses: dict[str, Tensor]) -> Tensor:
        assert losses
        assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values()), losses
        return torch.stack(list(losses.values())).sum()

    def check_detections(self, found: list[dict], images: list[Tensor], first_label: int) -> None:
        assert len(found) == len(images)
        for detections, image in zip(found, images, strict=True):
            boxes, scores, labels = detections["boxes"], detections["scores"], detections["labels"]
            height, width = image.shape[-2:]
            assert boxes.shape == (len(scores), 4)
            assert scores.shape == labels.shape == (len(scores),)
            assert (boxes.dtype, scores.dtype, labels.dtype) == (torch.float32, torch.float32, torch.int64)
            assert len(scores) <= 100
            assert ((boxes[:, :2] >= 0) & (boxes[:, 2:] >= boxes[:, :2])).all()
            # A rounding error of the way back is no pixel.
            assert (boxes <= torch.tensor([width, height, width, height]) * (1 + 1e-6)).all()
            assert ((scores >= 0) & (scores <= 1)).all()
            assert (scores.diff() <= 0).all()
            assert ((labels >= first_label) & (labels < first_label + self.classes)).all()

    def test_losses_are_finite_and_reach_every_parameter(self, built: BuiltNetwork) -> None:
        network = built.network.train()
        self.check_losses(network(self.images(), self.targets(built.first_label))).backward()
        trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        assert [name for name, p in trained if p.grad is None] == []
        assert [name for name, p in trained if not p.grad.isfinite().all()] == []
        # Some start with layers of zeros, which pass no gradient on at first.
        assert any(p.grad.abs().sum() > 0 for _, p in trained)

    def test_targets_are_left_as_they_are(self, built: BuiltNetwork) -> None:
        images, targets = self.images(), self.targets(built.first_label)
        before = copy.deepcopy((images, targets))
        built.network.train()(images, targets)
        assert all(torch.equal(a, b) for a, b in zip(images, before[0], strict=True))
        for now, then in zip(targets, before[1], strict=True):
            assert now.keys() == then.keys()
            assert all(torch.equal(now[key], then[key]) for key in then)

    def test_a_batch_without_objects_trains(self, built: BuiltNetwork) -> None:
        images = self.images()[:1]
        losses = built.network.train()(images, [target(built.first_label, [], [])])
        self.check_losses(losses).backward()
        trained = [(name, p) for name, p in built.network.named_parameters() if p.requires_grad]
        # Distributed training waits for each of them.
        assert [name for name, p in trained if p.grad is None] == []
        assert [name for name, p in trained if not p.grad.isfinite().all()] == []

    def test_detections(self, built: BuiltNetwork) -> None:
        images = self.images()
        with torch.no_grad():
            found = built.network.eval()(images)
        self.check_detections(found, images, built.first_label)
        assert all(len(detections["scores"]) for detections in found)

    def test_an_image_of_20_by_4000(self, built: BuiltNetwork) -> None:
        images = [torch.rand(3, 20, 4000), torch.rand(3, 64, 64)]
        targets = [target(built.first_label, [[100, 2, 150, 18]], [1]), target(built.first_label, [], [])]
        self.check_losses(built.network.train()(images, targets)).backward()
        with torch.no_grad():
            self.check_detections(built.network.eval()(images), images, built.first_label)

    def test_bf16_autocast(self, built: BuiltNetwork) -> None:
        """The contract's dtypes hold there too: in bf16, a coordinate of 1000 pixels would be off by 2."""
        images = self.images()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = built.network.train()(images, self.targets(built.first_label))
            with torch.no_grad():
                found = built.network.eval()(images)
        self.check_losses(losses).backward()
        self.check_detections(found, images, built.first_label)

    def test_a_tensor_is_a_batch(self, built: BuiltNetwork) -> None:
        images = torch.rand(2, 3, 64, 96)
        with torch.no_grad():
            of_tensor, of_list = built.network.eval()(images), built.network(list(images))
        for one, other in zip(of_tensor, of_list, strict=True):
            assert all(torch.equal(one[key], other[key]) for key in ("boxes", "scores", "labels"))

    def test_the_rest_of_the_batch_changes_nothing(self, built: BuiltNetwork) -> None:
        images = list(torch.rand(2, 3, 64, 96))
        with torch.no_grad():
            together = built.network.eval()(images)
            alone = [built.network([image])[0] for image in images]
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-3, atol=1e-4)

    def test_copy_and_state_dict(self, built: BuiltNetwork) -> None:
        images = self.images()[:1]
        again = self.build().network
        again.load_state_dict(copy.deepcopy(built.network.state_dict()))
        with torch.no_grad():
            ours = built.network.eval()(images)[0]
            for other in (copy.deepcopy(built.network), again.eval()):
                theirs = other(images)[0]
                assert all(torch.equal(ours[key], theirs[key]) for key in ("boxes", "scores", "labels"))

    def test_attention_keeps_the_keys(self, built: BuiltNetwork) -> None:
        network, keys = built.network, built.network.state_dict().keys()
        for place in self.placements:
            before = attention_keys(network)
            assert attach(network, "ela_t", at=place, example=torch.zeros(1, 3, 64, 64))
            assert attention_keys(network) > before
        assert network.state_dict().keys() - attention_keys(network) == keys
        losses = network.train()(self.images(), self.targets(built.first_label))
        self.check_losses(losses).backward()
        assert all(p.grad is not None for name, p in network.named_parameters() if "attention" in name)

    def test_the_trunk_is_there(self, built: BuiltNetwork) -> None:
        trunk = built.network.get_submodule(built.backbone)
        # It begins with a convolution of the colours, in YOLOX of four pixels at once.
        assert next(trunk.parameters()).shape[1] in (3, 12)
        assert min(built.example_size) >= 32
