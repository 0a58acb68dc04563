from __future__ import annotations

import numpy as np
import torch

from attnlab.data.detection.items import DetectionItems
from attnlab.data.detection.sets import DetectionSample, EvalSet, without_slivers
from tests.data.detection.conftest import IMAGES


def test_slivers_are_what_has_a_side_below_a_pixel_once_clipped():
    boxes = np.array(
        [[-5, 2, 0.5, 9], [-5, 2, 1, 9], [38, 10, 60, 60], [39.5, 5, 60, 9], [3, 3, 9, 3.5]], np.float32
    )
    sample = DetectionSample(torch.zeros(3, 20, 40, dtype=torch.uint8), boxes, np.arange(5))
    kept = without_slivers(sample)
    assert kept.boxes.tolist() == [[0, 2, 1, 9], [38, 10, 40, 20]]
    assert kept.labels.tolist() == [1, 2]


def test_targets_are_copies():
    items = DetectionItems.of(IMAGES)
    dataset = EvalSet(items)
    dataset.target(0)["boxes"] += 100
    assert items.boxes[0].tolist() == [0, 0, 10, 10]
