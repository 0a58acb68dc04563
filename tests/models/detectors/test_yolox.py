"""YOLOX: published sizes, losses against their formulas, decoding by hand, and that it learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import nms

from attnlab.attention import attach
from attnlab.errors import AttnlabError
from attnlab.models.detectors.resizing import ImageInBatch
from attnlab.models.detectors.yolox import YOLOX, yolox, yolox_losses
from attnlab.models.detectors.yolox_head import Predictions, anchors_of
from tests.models.detectors.tester import least_shares

LEVELS = [torch.empty(1, 1, 12, 12), torch.empty(1, 1, 6, 6), torch.empty(1, 1, 3, 3)]
"""Maps of a square of 96 pixels."""


def target(*rows: tuple[float, float, float, float, int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([row[:4] for row in rows], dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor([row[4] for row in rows], dtype=torch.int64),
    }


@pytest.fixture
def nano() -> YOLOX:
    torch.manual_seed(0)
    return yolox("nano", 3, size=96)


@pytest.mark.parametrize(
    ("variant", "side", "parameters", "gflops"),
    [
        ("nano", 416, 0.91, 1.08),
        ("tiny", 416, 5.06, 6.45),
        ("s", 640, 9.0, 26.8),
        ("m", 640, 25.3, 73.8),
        ("l", 640, 54.2, 155.6),
        ("x", 640, 99.1, 281.9),
    ],
)
def test_size_is_the_published(variant: str, side: int, parameters: float, gflops: float) -> None:
    """The authors' counter takes four operations for each value that a BatchNorm normalises, ours none."""
    with torch.device("meta"):
        network = yolox(variant, 80).eval()
    assert network.resizing.size == side
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, rel=0.005)
    normalised = 0

    def count(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        nonlocal normalised
        normalised += output.numel()

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(count)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        batch, _, _ = network.resizing(torch.empty(1, 3, side, side, device="meta"))
        network.head(*network.neck(*network.backbone(batch)))
    assert (counter.get_total_flops() + 4 * normalised) / 1e9 == pytest.approx(gflops, rel=0.005)


def test_normalisation_is_the_published(nano: YOLOX) -> None:
    layers = [module for module in nano.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(layer.eps, layer.momentum) for layer in layers} == {(1e-3, 0.03)}


def test_decode_by_hand() -> None:
    anchors = anchors_of(LEVELS)
    assert anchors.cells.shape == (144 + 36 + 9, 2)
    offsets = torch.zeros(189, 4)
    offsets[144 + 6 * 2 + 5] = torch.tensor([0.25, -0.5, math.log(2), math.log(0.5)])
    # Row 2, column 5 of stride 16: middle (5.25 * 16, 1.5 * 16), 32 wide, 8 high.
    assert anchors.decode(offsets)[144 + 17].tolist() == pytest.approx([68, 20, 100, 28])
    assert anchors.centres[144 + 17].tolist() == [88, 40]


def test_encode_is_the_inverse() -> None:
    anchors = anchors_of(LEVELS)
    offsets = torch.randn(2, 189, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(anchors.encode(anchors.decode(offsets)), offsets, rtol=1e-3, atol=1e-3)


def test_neck_is_the_drawn_pyramid(nano: YOLOX) -> None:
    """Concatenations have the channels and sizes that the attention's placement counts on."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, args, output: shapes.update({name: tuple(output.shape[1:])})

    for part in ("inputs", "merge", "outputs"):
        for name, module in nano.neck.get_submodule(part).named_children():
            module.register_forward_hook(note(f"{part}.{name}"))
    nano.eval()([torch.rand(3, 96, 96)])
    assert shapes == {
        "inputs.c3": (64, 12, 12),
        "inputs.c4": (128, 6, 6),
        "inputs.c5": (256, 3, 3),
        "merge.p4": (256, 6, 6),
        "merge.p3": (128, 12, 12),
        "merge.n4": (128, 6, 6),
        "merge.n5": (256, 3, 3),
        "outputs.p3": (64, 12, 12),
        "outputs.n4": (128, 6, 6),
        "outputs.n5": (256, 3, 3),
    }


def test_attention_at_the_neck_is_called(nano: YOLOX) -> None:
    sites = attach(nano, "ela_t", at="yolox.neck", example=torch.rand(1, 3, 96, 96))
    assert len(sites) == 7
    modules = {type(m).__name__ + str(id(m)) for m in nano.modules() if type(m).__name__ == "ELA"}
    assert len(modules) == 3
    losses = nano.train()([torch.rand(3, 96, 96)] * 2, [target((5, 5, 60, 60, 1)), target()])
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in nano.named_parameters() if p.grad is None] == []


def made_predictions(count: int, classes: int = 3) -> Predictions:
    random = torch.Generator().manual_seed(count)
    anchors = anchors_of(LEVELS)
    return Predictions(
        torch.randn(count, 189, 4, generator=random) * 0.5,
        torch.randn(count, 189, generator=random),
        torch.randn(count, 189, classes, generator=random),
        anchors,
    )


def test_losses_are_their_formulas() -> None:
    """One object, and predictions so good at one anchor that this alone is assigned."""
    predictions = made_predictions(1)
    anchors = predictions.anchors
    box = torch.tensor([30.0, 20.0, 60.0, 50.0])
    at = 4 * 12 + 5  # stride 8: middle (44, 36)
    wanted = anchors.encode(box.expand(189, 4))[at]
    offsets = predictions.offsets.clone()
    offsets[..., 2:] = -5.0  # all others tiny: the ten largest IoUs sum to less than 2
    offsets[0, at] = wanted + torch.tensor([0.1, -0.05, 0.1, 0.0])
    given = Predictions(offsets, predictions.objectness, predictions.classes, anchors)
    losses = yolox_losses(given, [target((*box.tolist(), 2))], l1=True)

    x0, y0, x1, y1 = anchors.decode(offsets)[0, at].tolist()
    common = (min(x1, 60) - max(x0, 30)) * (min(y1, 50) - max(y0, 20))
    overlap = common / ((x1 - x0) * (y1 - y0) + 900 - common)
    assert losses["iou"].item() == pytest.approx(5 * (1 - overlap**2), rel=1e-4)
    assert losses["l1"].item() == pytest.approx(0.25, rel=1e-4)
    probabilities = predictions.objectness[0].sigmoid().tolist()
    expected = sum(-math.log(p if a == at else 1 - p) for a, p in enumerate(probabilities))
    assert losses["objectness"].item() == pytest.approx(expected, rel=1e-4)
    of_classes = predictions.classes[0, at].sigmoid().tolist()
    expected = -sum(
        y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in zip(of_classes, [0, 0, overlap], strict=True)
    )
    assert losses["class"].item() == pytest.approx(expected, rel=1e-4)


def test_losses_are_divided_by_the_assigned_of_the_whole_batch() -> None:
    """Two images with the same predictions and object lose as much as one; an empty one adds background."""
    one, thing = made_predictions(1), target((20, 20, 70, 70, 1))
    two = Predictions(
        one.offsets.repeat(2, 1, 1), one.objectness.repeat(2, 1), one.classes.repeat(2, 1, 1), one.anchors
    )
    alone = yolox_losses(one, [thing], l1=True)
    for name, loss in yolox_losses(two, [thing, thing], l1=True).items():
        torch.testing.assert_close(loss, alone[name])
    with_empty = yolox_losses(two, [target(), thing], l1=True)
    for name in ("iou", "class", "l1"):
        torch.testing.assert_close(with_empty[name], alone[name])
    assert with_empty["objectness"] > alone["objectness"]


def test_no_objects_at_all(nano: YOLOX) -> None:
    nano.set_progress(1.0)
    losses = nano.train()([torch.rand(3, 50, 80)], [target()])
    assert losses["iou"] == losses["class"] == losses["l1"] == 0
    assert losses["objectness"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in nano.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("sizes", [[(96, 96)], [(37, 201), (64, 1)], [(20, 4000)]])
def test_any_size_trains_and_detects(nano: YOLOX, sizes: list[tuple[int, int]]) -> None:
    images = [torch.rand(3, *size) for size in sizes]
    targets = [target((0, 0, width, height, 2)) for height, width in sizes]
    losses = nano.train()(images, targets)
    assert set(losses) == {"iou", "objectness", "class"}
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    nano.score_threshold = 0.0
    with torch.no_grad():
        found = nano.eval()(images)
    for (height, width), each in zip(sizes, found, strict=True):
        boxes, scores, labels = each["boxes"], each["scores"], each["labels"]
        assert len(boxes) == len(scores) == len(labels) <= 100
        assert (boxes.dtype, scores.dtype, labels.dtype) == (torch.float32, torch.float32, torch.int64)
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert boxes.min() >= 0
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        assert (scores.diff() <= 0).all()


def test_every_parameter_learns(nano: YOLOX) -> None:
    """Objects as large as each map's first boxes are, so that each map gets some."""
    small, middle, large = (12, 12, 20, 20, 1), (56, 8, 72, 24, 0), (16, 48, 48, 80, 2)
    losses = nano.train()([torch.rand(3, 96, 96)] * 2, [target(small, middle), target(large)])
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in nano.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_threshold_above_one_leaves_nothing(nano: YOLOX) -> None:
    nano.score_threshold = 1.1
    (found,) = nano.eval()([torch.rand(3, 64, 96)])
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "labels": (0,),
    }


def test_detections_are_the_definition() -> None:
    network = yolox("nano", 3, size=96, score_threshold=0.2, nms_threshold=0.3, max_detections=7)
    predictions = made_predictions(1)
    (found,) = network.detections(predictions, [ImageInBatch(0.5, 0.5, 0, 16, 128, 192)])
    boxes = predictions.anchors.decode(predictions.offsets)[0]
    probabilities = predictions.classes[0].sigmoid() * predictions.objectness[0].sigmoid()[:, None]

    def within(anchor: int) -> list[float]:
        """The box in the image, 16 rows down the batch and twice as large, clipped to 192 x 128 pixels."""
        x0, y0, x1, y1 = boxes[anchor].tolist()
        return [
            min(max(x0 * 2, 0), 192),
            min(max((y0 - 16) * 2, 0), 128),
            min(max(x1 * 2, 0), 192),
            min(max((y1 - 16) * 2, 0), 128),
        ]

    expected = []
    for label in range(3):
        own = [a for a in range(189) if probabilities[a].argmax() == label and probabilities[a, label] >= 0.2]
        kept = nms(boxes[own], probabilities[own, label], 0.3).tolist()
        expected += [(float(probabilities[own[i], label]), label, own[i]) for i in kept]
    expected.sort(reverse=True)
    for _, _, anchor in list(expected):
        x0, y0, x1, y1 = within(anchor)
        if x0 >= x1 or y0 >= y1:  # it lies in the padding
            expected = [each for each in expected if each[2] != anchor]
    assert len(expected) > 7
    assert found["labels"].tolist() == [label for _, label, _ in expected[:7]]
    assert found["scores"].tolist() == pytest.approx([score for score, _, _ in expected[:7]])
    best = within(expected[0][2])
    assert found["boxes"][0].tolist() == pytest.approx(best, abs=1e-3)


def test_channels_can_be_blue_green_red() -> None:
    """The same first sums, if pixels go in as 255 times BGR and the stem's weights are turned likewise."""
    torch.manual_seed(0)
    rgb, bgr = (yolox("nano", 2, size=64, pixels=pixels).eval() for pixels in ("imagenet", "bgr255"))  # type: ignore[arg-type]
    seen = []
    for network in (rgb, bgr):
        network.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        rgb([image])
        bgr([image])
    torch.testing.assert_close(seen[1][0], image.flip(0) * 255)
    torch.testing.assert_close(seen[0][0, 0], (image[0] - 0.485) / 0.229)


def test_progress_turns_l1_on_and_multi_scale_off() -> None:
    network = yolox("nano", 2, size=64, train_sizes=(32, 96), l1_last=0.2).train()
    batch, things = [torch.rand(3, 64, 64)] * 2, [target((5, 5, 40, 40, 1))] * 2
    for epoch in range(10):
        network.set_progress(epoch / 10)
        late = epoch >= 8
        assert ("l1" in network(batch, things)) == late
        assert network.resizing.multi_scale == (not late)
    never = yolox("nano", 2, size=64, l1_last=0.0)
    never.set_progress(1.0)
    assert not never.l1


def test_autocast_assigns_in_float32(nano: YOLOX) -> None:
    seen: list[Predictions] = []
    nano.head.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = nano.train()([torch.rand(3, 96, 96)] * 2, [target((5, 5, 60, 60, 1))] * 2)
    assert seen[0].offsets.dtype == seen[0].classes.dtype == seen[0].objectness.dtype == torch.float32
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_state_dict_and_copies(nano: YOLOX) -> None:
    other = yolox("nano", 3, size=96)
    other.load_state_dict(copy.deepcopy(nano.state_dict()))
    image = torch.rand(3, 70, 90)
    with torch.no_grad():
        (first,), (second,) = nano.eval()([image]), other.eval()([image])
        (alone,) = nano(image[None])
    for name in first:
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name], alone[name])


def test_minimal_losses_decode_to_the_truth() -> None:
    """Predictions that are free parameters: assignment, losses, decoding and suppression must agree."""
    truth = target((10, 10, 60, 50, 0), (50, 40, 90, 90, 2), (5, 70, 17, 84, 1))
    random = torch.Generator().manual_seed(0)
    # Not all alike, or rounding would decide which anchors an object gets.
    free = [(torch.randn(1, 189, n, generator=random) / 2).requires_grad_() for n in (4, 1, 3)]
    steps = 150
    optimizer = torch.optim.Adam(free, lr=0.1)
    # Without an end at 0, boxes would stay a step of Adam's away from the truth.
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)

    def predictions() -> Predictions:
        return Predictions(free[0], free[1].squeeze(-1), free[2], anchors_of(LEVELS))

    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(yolox_losses(predictions(), [truth], l1=True).values())).sum().backward()
        optimizer.step()
        schedule.step()
    network = yolox("nano", 3, size=96, score_threshold=0.5)
    with torch.no_grad():
        (found,) = network.detections(predictions(), [ImageInBatch(1.0, 1.0, 0, 0, 96, 96)])
    assert sorted(found["labels"].tolist()) == [0, 1, 2]
    order = truth["labels"].argsort()
    assert (found["boxes"][found["labels"].argsort()] - truth["boxes"][order]).abs().max() < 1


def test_the_network_learns_one_image() -> None:
    torch.manual_seed(4)  # without the gradients of the boxes, the IoU loss of this one stays where it is
    nano = yolox("nano", 3, size=96)
    image = torch.full((3, 96, 96), 0.5)
    image[0, 10:50, 10:60] = 1.0
    nano.set_progress(1.0)  # with the L1 loss, boxes settle sooner
    shares = least_shares(nano, [image] * 2, [target((10, 10, 60, 50, 0))] * 2, steps=60, lr=4e-3)
    assert shares["iou"] < 0.85
    assert shares["objectness"] < 0.4


@pytest.mark.parametrize(
    "options",
    [
        {"size": 100},
        {"l1_last": 1.5},
        {"nms_threshold": -0.1},
        {"max_detections": 0},
        {"score_threshold": -1.0},
        {"centre_radius": 0.0},
        {"pixels": "rgb"},
        {"train_sizes": (320, 300)},
    ],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(AttnlabError):
        yolox("nano", 3, **options)  # type: ignore[arg-type]


def test_training_needs_targets(nano: YOLOX) -> None:
    with pytest.raises(AttnlabError, match="targets"):
        nano.train()([torch.rand(3, 64, 64)])
