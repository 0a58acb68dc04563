from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from attnlab.data import DetectionDataModule
from attnlab.data.detection import items as detection_items
from attnlab.errors import AttnlabError
from tests.data.tester import DataModuleTester, epoch_of, trainer

SIZE = 64
MIXED = {"mosaic": 0.7, "mixup": 0.7, "mosaic_size": SIZE}


class Shift(nn.Module):
    """Moves all boxes, not the image."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__()
        self.offset = torch.tensor([x, y, x, y])

    def forward(self, sample: dict) -> dict:
        return {**sample, "boxes": tv_tensors.wrap(sample["boxes"] + self.offset, like=sample["boxes"])}


def samples_of(batches: list[dict]) -> list[tuple]:
    """(index, image, boxes, labels) of each sample."""
    return [
        (index, image, target["boxes"], target["labels"])
        for batch in batches
        for index, image, target in zip(batch["index"].tolist(), batch["image"], batch["target"], strict=True)
    ]


def assert_boxes(image: Tensor, target: dict, classes: int) -> None:
    boxes, labels = target["boxes"], target["labels"]
    height, width = image.shape[-2:]
    assert boxes.shape == (len(labels), 4)
    assert boxes.dtype == np.float32
    assert labels.dtype == np.int64
    assert isinstance(target["image_id"], int)
    assert (boxes >= 0).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert all(0 <= label < classes for label in labels.tolist())


class DetectionDataModuleTester(DataModuleTester):
    """What every detection data module does, besides what all data modules do.

    ``make(**options)`` builds the one under test, over at least six training images with objects, with
    batches of 4 unless the options say otherwise.
    """

    make: Callable[..., DetectionDataModule]
    category_ids: ClassVar[list[int]]
    train_keys: ClassVar = {"target"}
    eval_keys: ClassVar = {"target"}
    augmentations: ClassVar = [{"augment": [v2.RandomPhotometricDistort(p=1.0)]}, MIXED]
    norms: ClassVar = [((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), {})]

    def test_attributes(self):
        data = self.make()
        assert data.category_ids == self.make(**{"root": "nowhere", **data.remembered()}).category_ids
        assert data.category_ids == self.category_ids
        assert len({tuple(colour) for colour in data.palette}) == len(self.classes)
        assert [0, 0, 0] not in data.palette
        assert data.dropped_boxes == 0

    def test_training_batches(self):
        data = self.make()
        data.setup("fit")
        loader = data.train_dataloader()
        batches = list(loader)
        assert len(batches) == len(loader) == len(data.dataset("train")) // 4
        for batch in batches:
            assert set(batch) == {"image", "target", "index", "counted", "name"}
            assert batch["index"].dtype == torch.int64
            assert batch["counted"].tolist() == [True] * 4
            for image, target in zip(batch["image"], batch["target"], strict=True):
                assert image.dtype == torch.uint8
                assert set(target) == {"boxes", "labels", "image_id"}
                assert len(target["boxes"]) > 0
                assert_boxes(image, target, data.num_classes)
        assert all(isinstance(name, str) for name in batches[0]["name"])

    def test_evaluation_is_as_stored_and_complete(self):
        data = self.make(eval_batch_size=2)
        data.setup("test")
        items = data.items("test")
        seen: list[int] = []
        for batch in data.test_dataloader():
            assert set(batch) == {"image", "target", "index", "counted", "name"}
            for index, image, target, name in zip(
                batch["index"].tolist(), batch["image"], batch["target"], batch["name"], strict=True
            ):
                assert name == items.names[index]
                with Image.open(items.paths[index]) as stored:
                    pixels = torch.from_numpy(np.array(stored.convert("RGB"))).permute(2, 0, 1)
                assert (image.int() - pixels.int()).abs().max() <= 1
                assert set(target) == {"boxes", "labels", "image_id", "iscrowd", "difficult", "area"}
                assert_boxes(image, target, data.num_classes)
                assert target["iscrowd"].dtype == target["difficult"].dtype == bool
                assert target["area"].dtype == np.float32
                count = (len(target["labels"]),)
                assert all(target[key].shape == count for key in ("iscrowd", "difficult", "area"))
            seen += batch["index"][batch["counted"]].tolist()
        assert seen == list(range(len(items)))
        assert len(set(items.image_ids.tolist())) == len(items)

    def test_a_sample_does_not_depend_on_its_batch(self):
        data = self.make(**MIXED)
        data.setup("fit")
        for index, image, boxes, _ in samples_of(epoch_of(data)):
            single = data.dataset("train")[index]
            assert torch.equal(single["image"], image)
            assert np.array_equal(single["target"]["boxes"], boxes)

    def test_a_flip_moves_boxes_with_their_pixels(self):
        plain, flipped = self.make(flip=0.0), self.make(flip=1.0)
        for data in (plain, flipped):
            data.setup("fit")
        for (_, image, boxes, labels), (_, other, moved, same) in zip(
            samples_of(epoch_of(plain)), samples_of(epoch_of(flipped)), strict=True
        ):
            assert torch.equal(image.flip(-1), other)
            assert np.array_equal(labels, same)
            width = image.shape[-1]
            mirrored = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
            assert np.allclose(moved, mirrored, atol=1e-4)

    def test_boxes_are_clipped_after_the_transforms(self):
        data, moved = self.make(train_transforms=[]), self.make(train_transforms=[Shift(-7.25, 6.5)])
        for one in (data, moved):
            one.setup("fit")
        for (_, image, boxes, labels), (_, _, found, kept) in zip(
            samples_of(epoch_of(data)), samples_of(epoch_of(moved)), strict=True
        ):
            height, width = image.shape[-2:]
            expected = []
            for (x0, y0, x1, y1), label in zip(boxes.tolist(), labels.tolist(), strict=True):
                x0, x1 = (min(max(x - 7.25, 0), width) for x in (x0, x1))
                y0, y1 = (min(max(y + 6.5, 0), height) for y in (y0, y1))
                if x1 - x0 >= 1 and y1 - y0 >= 1:
                    expected.append(([x0, y0, x1, y1], label))
            assert kept.tolist() == [label for _, label in expected]
            assert found.tolist() == [pytest.approx(box, abs=1e-4) for box, _ in expected]
        gone = self.make(train_transforms=[Shift(5000.0, 0.0)])
        gone.setup("fit")
        assert all(len(sample[2]) == len(sample[3]) == 0 for sample in samples_of(epoch_of(gone)))

    def test_a_transform_that_forgets_labels_is_named(self):
        class Forget(nn.Module):
            def forward(self, sample: dict) -> dict:
                return {**sample, "boxes": sample["boxes"][:0]}

        data = self.make(train_transforms=[Forget()])
        data.setup("fit")
        with pytest.raises(AttnlabError, match=r"0 boxes but [1-9]"):
            next(iter(data.train_dataloader()))

    def test_no_image_is_decoded_twice_in_a_batch(self, monkeypatch):
        data = self.make(mosaic=1.0, mixup=1.0, mosaic_size=SIZE)
        data.setup("fit")
        read: list[str] = []

        def count(path, **options):
            read.append(str(path))
            return decode(path, **options)

        decode = detection_items.read_image
        monkeypatch.setattr(detection_items, "read_image", count)
        batches = iter(data.train_dataloader())
        batch = next(batches)
        assert max(Counter(read).values()) == 1
        assert len(read) <= len(data.dataset("train"))
        assert {tuple(image.shape) for image in batch["image"]} == {(3, SIZE, SIZE)}

    def test_the_closing_phase_has_no_mosaics(self):
        data = self.make(mosaic=1.0, mixup=1.0, mosaic_size=72, strong_share=0.5, flip=0.0)
        data.trainer = trainer(max_epochs=3)
        data.setup("fit")
        for epoch in (0, 1):
            assert {tuple(sample[1].shape) for sample in samples_of(epoch_of(data, epoch))} == {(3, 72, 72)}
        dataset = data.dataset("train")
        for index, image, boxes, labels in samples_of(epoch_of(data, 2)):
            stored = dataset.load(index)
            assert torch.equal(image, stored.image)
            assert np.array_equal(boxes, stored.boxes)
            assert np.array_equal(labels, stored.labels)

    @pytest.mark.parametrize("epochs", [None, -1])
    def test_a_share_of_unknown_epochs_is_an_error(self, epochs):
        data = self.make(mosaic=1.0, mosaic_size=SIZE, strong_share=0.5)
        if epochs is not None:
            data.trainer = trainer(max_epochs=epochs)
        with pytest.raises(AttnlabError, match=r"strong_share is 0\.5.*trainer\.max_epochs"):
            data.setup("fit")

    @pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "32-true", "bf16-mixed"])
    def test_boxes_stay_exact_in_every_precision(self, precision):
        exact = self.make()
        data = self.make()
        data.trainer = trainer(precision=precision)
        types = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
        for one in (exact, data):
            one.setup("test")
        for expected, batch in zip(exact.test_dataloader(), data.test_dataloader(), strict=True):
            # What Lightning does with a batch before it is transferred.
            batch = data.on_after_batch_transfer(data.trainer.precision_plugin.convert_input(batch), 0)
            for key in ("boxes", "area"):
                for one, other in zip(expected["target"], batch["target"], strict=True):
                    assert one[key].dtype == other[key].dtype == np.float32
                    assert np.array_equal(one[key], other[key])
            assert {image.dtype for image in batch["image"]} == {types.get(precision, torch.float32)}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train_transforms": [], "flip": 0.5}, "flip applies to the default transforms"),
            ({"train_transforms": [], "augment": []}, "augment applies to the default transforms"),
            ({"mosaic": 1.5}, r"mosaic is 1\.5"),
            ({"mosaic": 0.5, "mixup": -0.1}, r"mixup is -0\.1"),
            ({"flip": 2.0}, r"flip is 2\.0"),
            ({"mosaic": 0.5, "strong_share": 1.2}, r"strong_share is 1\.2"),
            ({"mixup": 0.5}, r"data\.mixup applies to mosaics"),
            ({"strong_share": 0.5}, r"data\.strong_share applies to mosaics"),
            ({"mosaic": 0.5, "mosaic_size": 1}, "size is 1"),
        ],
    )
    def test_options_that_cannot_work_are_refused(self, options, message):
        with pytest.raises(AttnlabError, match=message):
            self.make(**options)
