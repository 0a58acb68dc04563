"""What a prediction says of itself."""

from pathlib import Path

import torch

from attnlab.views.predictions import (
    ClassificationPrediction,
    DetectionPrediction,
    SegmentationPrediction,
)

IMAGE = torch.zeros(3, 4, 5, dtype=torch.uint8)
NAMES = ["ant", "bee", "cat"]
PALETTE = [[0, 0, 0], [255, 0, 0], [0, 255, 0]]


def test_a_class() -> None:
    found = ClassificationPrediction(IMAGE, Path("a.jpg"), NAMES, torch.tensor([0.25, 0.7, 0.05]))
    assert repr(found) == "<ClassificationPrediction of a.jpg: bee 70%, ant 25%, cat 5.0%>"


def test_a_mask() -> None:
    mask = torch.tensor([[0, 0, 0, 2, 0]] * 4, dtype=torch.uint8)
    found = SegmentationPrediction(IMAGE, None, NAMES, mask, PALETTE)
    assert repr(found) == "<SegmentationPrediction of an image: ant 80%, cat 20%>"


def test_no_prediction(tmp_path: Path) -> None:
    """A NaN is neither the first class nor the background."""
    found = ClassificationPrediction(IMAGE, None, NAMES, torch.full((3,), torch.nan))
    assert (found.label, found.name, found.top(2)) == (-1, "no prediction", [])
    assert repr(found) == "<ClassificationPrediction of an image: no prediction>"
    found.save(tmp_path / "class.png")
    mask = torch.tensor([[255, 255, 255, 2, 255]] * 4, dtype=torch.uint8)
    some = SegmentationPrediction(IMAGE, None, NAMES, mask, PALETTE)
    assert repr(some) == "<SegmentationPrediction of an image: no prediction 80%, cat 20%>"
    some.save(tmp_path / "mask.png")


def test_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 4]])
    some = DetectionPrediction(
        IMAGE, Path("a.jpg"), NAMES, boxes, torch.tensor([0.9, 0.2]), torch.tensor([2, 0]), PALETTE
    )
    none = DetectionPrediction(
        IMAGE, Path("a.jpg"), NAMES, boxes[:0], torch.empty(0), torch.empty(0).long(), PALETTE
    )
    assert repr(some) == "<DetectionPrediction of a.jpg: 2 objects, cat 0.90, ant 0.20>"
    assert repr([none]) == "[<DetectionPrediction of a.jpg: 0 objects>]"


def test_predictions_can_be_kept_in_sets_and_lists() -> None:
    one, other = (
        ClassificationPrediction(IMAGE, None, NAMES, torch.tensor([0.5, 0.5, 0.0])) for _ in range(2)
    )
    assert [one, other].index(other) == 1
    assert len({one, other}) == 2
