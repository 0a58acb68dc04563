from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attnlab.data import DetectionDataModule
from attnlab.data.detection.items import AnnotatedImage, DetectionItems
from attnlab.data.detection.sets import DetectionSample, EvalSet, without_slivers
from attnlab.errors import AttnlabError

IMAGES = [
    AnnotatedImage("a", Path("a.jpg"), 7, (30, 60), [[0, 0, 10, 10], [1, 2, 3, 5]], [1, 0]),
    AnnotatedImage("b", Path("b.jpg"), 3, (30, 20), [], []),
    AnnotatedImage("c", Path("c.jpg"), 5, (30, 30), [[5, 5, 20, 9]], [2]),
    AnnotatedImage(
        "d", Path("d.jpg"), 1, (10, 40), [[0, 0, 4, 4], [1, 1, 9, 9]], [0, 2], difficult=[True, False]
    ),
]


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


class Made(DetectionDataModule):
    """Serves `IMAGES` without files."""

    def __init__(self, names: list[str], **options) -> None:
        super().__init__("made", check="none", **options)
        self.names = names

    def categories(self) -> dict[int, str]:
        return dict(enumerate(self.names, 1))

    def items(self, split: str) -> DetectionItems:
        return DetectionItems.of(IMAGES)


@pytest.mark.filterwarnings("ignore:.*are trained on too")
def test_a_label_beyond_the_classes_is_named():
    Made(["x", "y", "z"]).setup()
    with pytest.raises(AttnlabError, match=r"2 objects .*'val' .*beyond the 2 classes, e\.g\. 2 in 'c'"):
        Made(["x", "y"]).setup("validate")


@pytest.mark.filterwarnings("ignore:.*are trained on too")
@pytest.mark.parametrize(
    ("share", "epochs", "strong"),
    [(0.2, 72, 15), (0.5, 3, 2), (0.1, 30, 3), (0.7, 10, 7), (1.0, 10, None), (0.0, 10, 0), (0.9, 300, 270)],
)
def test_strong_epochs_are_those_that_begin_within_the_share(share, epochs, strong):
    data = Made(["x", "y", "z"], mosaic=1.0, mosaic_size=32, strong_share=share)
    data.trainer = SimpleNamespace(max_epochs=epochs)
    data.setup("fit")
    found = data.dataset("train").strong_epochs
    assert found == strong
    if strong is not None:
        assert strong == sum(k * 1000 < round(share * 1000) * epochs for k in range(epochs))


def test_colours_of_many_classes():
    data = Made([str(k) for k in range(300)])
    assert len(data.palette) == 300
    assert len({tuple(colour) for colour in data.palette}) == 300
