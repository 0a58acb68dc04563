from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attnlab.data.detection.items import DetectionItems
from tests.data.detection.conftest import IMAGES


def packed() -> DetectionItems:
    """`IMAGES`, where c's object is a crowd of a stated area, and one with a box left out."""
    area, iscrowd = np.array([100, 6, 44.5, 16, 64], np.float32), np.arange(5) == 2
    return replace(DetectionItems.of(IMAGES, {1: "bad"}), area=area, iscrowd=iscrowd, dropped={2: 1})


def listed(items: DetectionItems) -> list[tuple]:
    return [
        (
            items.names[k],
            items.paths[k],
            items.boxes[items.objects(k)].tolist(),
            items.labels[items.objects(k)].tolist(),
        )
        for k in range(len(items))
    ]


def test_images_are_packed_in_order():
    items = DetectionItems.of(IMAGES)
    assert listed(items) == [
        ("a", "a.jpg", [[0, 0, 10, 10], [1, 2, 3, 5]], [1, 0]),
        ("b", "b.jpg", [], []),
        ("c", "c.jpg", [[5, 5, 20, 9]], [2]),
        ("d", "d.jpg", [[0, 0, 4, 4], [1, 1, 9, 9]], [0, 2]),
    ]
    assert items.area.tolist() == [100, 6, 60, 16, 64]
    assert items.iscrowd.tolist() == [False] * 5
    assert items.difficult.tolist() == [False, False, False, True, False]
    assert items.image_ids.tolist() == [7, 3, 5, 1]
    assert items.aspects == pytest.approx([2, 2 / 3, 1, 4])
    assert (items.boxes.dtype, items.labels.dtype) == (np.float32, np.int64)


def test_a_selection_keeps_images_with_their_objects():
    items = packed()
    some = items.select(np.array([False, True, True, True]))
    assert listed(some) == listed(items)[1:]
    assert some.image_ids.tolist() == [3, 5, 1]
    assert some.sizes.tolist() == [[30, 20], [30, 30], [10, 40]]
    assert some.area.tolist() == [44.5, 16, 64]
    assert (some.problems, some.dropped) == ({}, {})
    assert listed(items.select(np.array([True, False, False, False]))) == listed(items)[:1]


@pytest.mark.parametrize("with_empty", [False, True])
def test_for_training_neither_crowds_nor_difficult_objects_are_left(with_empty):
    kept = packed().for_training(with_empty)
    everything = [
        ("a", "a.jpg", [[0, 0, 10, 10], [1, 2, 3, 5]], [1, 0]),
        ("b", "b.jpg", [], []),
        ("c", "c.jpg", [], []),
        ("d", "d.jpg", [[1, 1, 9, 9]], [2]),
    ]
    assert listed(kept) == [image for image in everything if with_empty or image[3]]
    assert not kept.iscrowd.any()
    assert not kept.difficult.any()


def test_no_images_at_all():
    items = DetectionItems.of([])
    assert (len(items), items.boxes.shape, items.sizes.shape, items.aspects) == (0, (0, 4), (0, 2), [])
    assert len(items.for_training(False)) == len(items.for_training(True)) == 0


def test_large_numbers_are_held_in_arrays():
    items = DetectionItems.of(IMAGES * 500)
    # What a loader process would otherwise copy object by object.
    held = [
        value
        for value in vars(items).values()
        if isinstance(value, (list, tuple, set)) or hasattr(value, "keys")
    ]
    assert sum(len(value) for value in held) == 0
