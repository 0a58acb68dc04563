from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from attnlab.data import SegmentationDataModule
from attnlab.errors import AttnlabError
from tests.data.tester import GREYS, DataModuleTester


class SegmentationTester(DataModuleTester):
    """What every segmentation data module does, besides what all data modules do."""

    make: Callable[..., SegmentationDataModule]
    train_keys: ClassVar = {"mask"}
    eval_keys: ClassVar = {"size", "mask", "mask_size"}
    predict_keys: ClassVar = {"size", "original", "original_size"}
    norms: ClassVar = [*DataModuleTester.norms, (*GREYS, {"mean": GREYS[0], "std": GREYS[1]})]
    train_size: int

    def test_attributes_need_no_files(self):
        data = self.make(root="nowhere")
        assert len(data.class_names) == data.num_classes == len(data.palette)
        assert data.palette[:2] == [[0, 0, 0], [128, 0, 0]]
        assert data.ignore_index == 255
        assert data.mean == (0.485, 0.456, 0.406)
        assert data.skipped == []

    def test_training_batches(self):
        data = self.make()
        data.setup("fit")
        loader = data.train_dataloader()
        assert len(loader) == self.train_size // 2
        batch = next(iter(loader))
        assert set(batch) == {"image", "mask", "index", "counted", "name"}
        assert batch["image"].dtype == torch.uint8
        batch = data.on_after_batch_transfer(batch, 0)
        assert batch["image"].shape == (2, 3, 32, 32)
        assert batch["image"].dtype == torch.float32
        assert batch["image"].is_contiguous()
        assert batch["mask"].shape == (2, 32, 32)
        assert batch["mask"].dtype == batch["index"].dtype == torch.int64
        assert set(batch["mask"].unique().tolist()) <= {*range(data.num_classes), 255}
        assert batch["counted"].tolist() == [True, True]

    def test_evaluation_keeps_masks_at_full_size(self):
        data = self.make(eval_batch_size=2, eval_size=20)
        data.setup("test")
        seen = []
        for batch in data.test_dataloader():
            batch = data.on_after_batch_transfer(batch, 0)
            assert set(batch) == {"image", "size", "mask", "mask_size", "index", "counted", "name"}
            for row, name in enumerate(batch["name"]):
                item = next(item for item in data.items("test") if item.name == name)
                height, width = batch["size"][row].tolist()
                full_height, full_width = batch["mask_size"][row].tolist()
                with Image.open(item.mask) as stored:
                    assert (full_width, full_height) == stored.size
                    assert np.array_equal(batch["mask"][row, :full_height, :full_width], np.asarray(stored))
                assert min(height, width) == 20
                assert height / width == pytest.approx(full_height / full_width, rel=0.06)
                assert (batch["mask"][row, full_height:] == 255).all()
                assert (batch["image"][row, :, height:] == 0).all()
                assert (batch["image"][row, :, :, width:] == 0).all()
                assert batch["image"][row, :, :height, :width].std() > 0.1
            seen += batch["index"][batch["counted"]].tolist()
        assert seen == list(range(len(data.items("test"))))

    def test_prediction(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        shots = tmp_path / "shots"
        shots.mkdir()
        Image.new("RGB", (40, 20), "red").save(shots / "a.jpg", exif=exif)
        Image.new("L", (16, 16), 7).save(shots / "b.png")
        data = self.make(predict_images=str(shots), eval_batch_size=2)
        data.setup("predict")
        (batch,) = data.predict_dataloader()
        assert set(batch) == {"image", "size", "original", "original_size", "path", "index", "counted"}
        batch = data.transfer_batch_to_device(batch, torch.device("cpu"), 0)
        batch = data.on_after_batch_transfer(batch, 0)
        assert batch["image"].shape == (2, 3, 40, 20)
        assert [tuple(image.shape) for image in batch["original"]] == [(3, 40, 20), (3, 16, 16)]
        assert batch["original_size"].tolist() == [[40, 20], [16, 16]]
        assert [Path(path).name for path in batch["path"]] == ["a.jpg", "b.png"]

    def test_own_transforms_replace_the_recipe(self):
        normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
        data = self.make(
            crop_size=None, train_transforms=[v2.Resize((24, 30)), *normalise], eval_transforms=normalise
        )
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch["image"].shape == (2, 3, 24, 30)
        assert torch.equal(data.on_after_batch_transfer(dict(batch), 0)["image"], batch["image"])
        assert next(iter(data.val_dataloader()))["image"].dtype == torch.float32

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train_transforms": [v2.Identity()]}, "crop_size applies to the default transforms"),
            ({"eval_transforms": [], "eval_size": 5}, "eval_size and data.eval_transforms"),
            ({"check": False, "on_bad_image": "skip"}, "check is none"),
            ({"crop_size": 0}, "crop_size is 0"),
            ({"flip": 1.5}, "probability"),
            ({"eval_size": 0}, "eval_size is 0"),
            ({"std": (1.0, 0.0, 1.0)}, "std"),
        ],
    )
    def test_options_that_cannot_work_are_refused(self, options, message):
        with pytest.raises(AttnlabError, match=message):
            self.make(**options)
