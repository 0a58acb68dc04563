from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from attnlab.data import ClassificationDataModule
from attnlab.errors import AttnlabError
from tests.data.tester import GREYS, DataModuleTester


class ClassificationTester(DataModuleTester):
    """What every classification data module does, besides what all data modules do."""

    make: Callable[..., ClassificationDataModule]
    folders: ClassVar[list[str] | None] = None
    """The class folders, where they are not called as the classes are."""
    train_size: int
    train_keys: ClassVar = {"label"}
    eval_keys: ClassVar = {"label"}
    # RandAugment draws from torch; the recipe does too.
    augmentations: ClassVar = [{"augment": [v2.ColorJitter(brightness=0.5), v2.RandAugment()]}]
    norms: ClassVar = [*DataModuleTester.norms, (*GREYS, {"mean": GREYS[0], "std": GREYS[1]})]

    def test_attributes(self):
        data, folders = self.make(), self.folders or self.classes
        assert data.class_folders == folders
        assert data.crop_size == 32
        assert data.remembered() == {"classes": dict(zip(folders, self.classes, strict=True))}

    def test_training_batches(self):
        data = self.make()
        data.setup("fit")
        loader = data.train_dataloader()
        assert len(loader) == self.train_size // 4
        batch = next(iter(loader))
        assert set(batch) == {"image", "label", "index", "counted", "name"}
        assert batch["image"].dtype == torch.uint8
        batch = data.on_after_batch_transfer(batch, 0)
        assert batch["image"].shape == (4, 3, 32, 32)
        assert batch["image"].dtype == torch.float32
        assert batch["image"].is_contiguous()
        assert batch["label"].shape == (4,)
        assert batch["label"].dtype == batch["index"].dtype == torch.int64
        assert batch["counted"].tolist() == [True] * 4

    def test_evaluation_is_torchvisions_and_complete(self):
        data = self.make(eval_resize=36)
        data.setup("test")
        reference = v2.Compose([v2.Resize(36, antialias=True), v2.CenterCrop(32)])
        seen = []
        for batch in data.test_dataloader():
            assert set(batch) == {"image", "label", "index", "counted", "name"}
            for image, label, name in zip(batch["image"], batch["label"], batch["name"], strict=True):
                assert name.split("/")[0] == data.class_folders[label]
                (item,) = (item for item in data.items("test") if item.name == name)
                with Image.open(item.path) as stored:
                    pixels = torch.from_numpy(np.array(stored)).permute(2, 0, 1)
                assert (image.int() - reference(pixels).int()).abs().max() <= 1
            seen += batch["index"][batch["counted"]].tolist()
        assert seen == list(range(len(data.items("test"))))

    def test_own_transforms_replace_the_recipe(self):
        own = [v2.Resize((24, 30)), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
        data = self.make(train_transforms=own, eval_transforms=own)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch["image"].shape == (4, 3, 24, 30)
        assert torch.equal(data.on_after_batch_transfer(dict(batch), 0)["image"], batch["image"])
        assert next(iter(data.val_dataloader()))["image"].dtype == torch.float32

    def test_other_classes_than_remembered_are_refused(self):
        first, *others = self.folders or self.classes
        renamed = {name: name for name in [*others, "dodo"]}
        for stage in ("fit", "validate", "test"):
            with pytest.raises(AttnlabError, match=rf"Missing: dodo\. Not expected: {first}\."):
                self.make(classes=renamed).setup(stage)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train_transforms": [], "scale": (0.5, 1.0)}, "scale applies to the default transforms"),
            ({"train_transforms": [], "flip": 0.5}, "flip applies to the default transforms"),
            ({"train_transforms": [], "augment": []}, "augment applies to the default transforms"),
            ({"eval_transforms": [], "eval_resize": 64}, "eval_resize and data.eval_transforms"),
            ({"eval_resize": 31}, "eval_resize 31 is smaller than crop_size 32"),
            ({"eval_resize": "big"}, "eval_resize is 'big'"),
            ({"classes": {}}, "classes is empty"),
            ({"crop_size": 0}, "crop_size is 0"),
            ({"flip": 1.5}, "probability"),
            ({"scale": (0.5, 1.5)}, "scale is"),
            ({"std": (1.0, 0.0, 1.0)}, "std"),
        ],
    )
    def test_options_that_cannot_work_are_refused(self, options, message):
        with pytest.raises(AttnlabError, match=message):
            self.make(**options)
