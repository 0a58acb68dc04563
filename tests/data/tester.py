from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

from attnlab.data import DataModule
from attnlab.errors import AttnlabError

GREYS = (0.1, 0.5, 0.2), (0.5, 1.0, 0.25)
"""Means and deviations that are not ImageNet's."""

MARKS = {"image", "index", "counted"}
"""What every batch has."""


def trainer(**options) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=False, **options)


def epoch_of(data: DataModule, epoch: int = 0) -> list[dict]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def equal(first: Any, second: Any) -> bool:
    """Whether two batches, or lists of them, are the same to the last digit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def by_index(batches: list[dict]) -> dict[int, dict]:
    """Each sample of the batches by its index."""
    return {
        index: {key: values[k] for key, values in batch.items()}
        for batch in batches
        for k, index in enumerate(batch["index"].tolist())
    }


def paths_of(items: Any) -> list[Path]:
    """The pictures of a split's items."""
    if hasattr(items, "paths"):
        return [Path(path) for path in items.paths]
    return [item.image if hasattr(item, "image") else item.path for item in items]


@contextmanager
def spoilt(path: Path, content: bytes) -> Iterator[None]:
    """A file with another content, for a while: several tests may share it."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


def cut_short(path: Path) -> AbstractContextManager[None]:
    return spoilt(path, path.read_bytes()[: path.stat().st_size // 2])


class DataModuleTester:
    """What every data module does, of any task.

    ``make(**options)`` builds the one under test, without loader processes unless the options say otherwise.
    It has at least five training and three validation pictures, the first of which is a JPEG.
    """

    make: Callable[..., DataModule]
    classes: ClassVar[list[str]]
    train_keys: ClassVar[set[str]]
    """What a training batch has besides `MARKS` and the names."""
    eval_keys: ClassVar[set[str]]
    predict_keys: ClassVar[set[str]] = set()
    augmentations: ClassVar[list[dict]] = [{}]
    """Options, under each of which a picture differs between two seeds."""
    norms: ClassVar[list[tuple]] = [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), {})]
    """Means and deviations by which images are normalised, and the options that say so."""
    reads_headers: ClassVar[bool] = False
    """Whether each picture is opened whatever the check."""

    # What it says of itself

    def test_classes(self):
        data = self.make()
        assert data.class_names == self.classes
        assert data.num_classes == len(self.classes)
        assert data.skipped == []
        assert data.world == (1, 0)

    def test_it_is_built_again_from_what_it_remembers(self):
        remembered = self.make().remembered()
        again = self.make(**remembered)
        assert again.class_names == self.classes
        assert again.remembered() == remembered
        again.setup()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"check": "none", "on_bad_image": "skip"}, "check is none"),
            ({"check": "fast"}, "quick, full, none"),
            ({"batch_size": 0}, "batch_size is 0"),
            ({"eval_batch_size": 0}, "eval_batch_size is 0"),
            ({"num_workers": -1}, "num_workers is -1"),
        ],
    )
    def test_options_that_no_data_can_have_are_refused(self, options, message):
        with pytest.raises(AttnlabError, match=message):
            self.make(**options)

    # From stage to stage

    @pytest.mark.parametrize(
        ("stage", "splits"),
        [
            ("fit", {"train", "val"}),
            ("validate", {"val"}),
            ("test", {"test"}),
            (None, {"train", "val", "test"}),
        ],
    )
    def test_setup_prepares_what_a_stage_needs(self, stage, splits):
        data = self.make()
        data.setup(stage)
        assert set(data.datasets) == splits
        missing = ({"train", "val", "test"} - splits or {"predict"}).pop()
        with pytest.raises(AttnlabError, match=r"call setup\(\)"):
            getattr(data, f"{missing}_dataloader")()

    def test_what_is_set_up_is_kept(self):
        data = self.make()
        data.setup("fit")
        before = dict(data.datasets)
        for stage in ("validate", "fit", None):
            data.setup(stage)
        assert all(data.datasets[split] is dataset for split, dataset in before.items())

    # Batches

    def test_a_split_that_is_not_there_is_said_before_files_are_looked_at(self, monkeypatch):
        data = self.make(check="full")
        data.fetch()
        items, looked = data.items, []

        def absent(split: str) -> Any:
            if split == "val":
                raise AttnlabError("no such split")
            return items(split)

        monkeypatch.setattr(data, "items", absent)
        monkeypatch.setattr(data, "problems", lambda split, items: looked.append(split))
        with pytest.raises(AttnlabError, match="no such split"):
            data.setup("fit")
        assert looked == []

    def test_validating_on_pictures_that_are_trained_on_is_said(self, monkeypatch):
        data = self.make(check="none")
        data.fetch()
        items = data.items
        monkeypatch.setattr(data, "items", lambda split: items("train"))
        count = len(items("train"))
        with pytest.warns(
            UserWarning, match=f"{count} of the {count} 'val' images are also in the training split"
        ):
            data.setup("fit")

    def test_batches_of_training(self):
        data = self.make(batch_size=2)
        data.setup("fit")
        loader = data.train_dataloader()
        batches = list(loader)
        assert len(batches) == len(loader) == len(data.dataset("train")) // 2
        for batch in batches:
            assert set(batch) == MARKS | {"name"} | self.train_keys
            assert batch["index"].dtype == torch.int64
            assert batch["counted"].tolist() == [True, True]
            assert all(isinstance(name, str) for name in batch["name"])
            assert all(image.dtype == torch.uint8 for image in batch["image"])
        indices = [index for batch in batches for index in batch["index"].tolist()]
        assert len(set(indices)) == len(indices)

    def test_a_batch_that_is_not_full_is_kept_if_it_is_the_only_one(self):
        data = self.make(batch_size=1000)
        data.setup("fit")
        (batch,) = data.train_dataloader()
        assert sorted(batch["index"].tolist()) == list(range(len(data.dataset("train"))))

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_evaluation_is_complete_and_in_order(self, split):
        data = self.make(eval_batch_size=2)
        data.setup("validate" if split == "val" else "test")
        batches = list(getattr(data, f"{split}_dataloader")())
        assert all(set(batch) == MARKS | {"name"} | self.eval_keys for batch in batches)
        names = list(data.item_names(data.items(split)))
        assert [name for batch in batches for name in batch["name"]] == names
        assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(len(names)))
        assert all(batch["counted"].all() for batch in batches)

    def test_images_become_normalised_floats(self):
        for mean, std, options in self.norms:
            data = self.make(**options)
            data.setup("fit")
            batch = next(iter(data.train_dataloader()))
            raw = list(batch["image"])
            for stored, image in zip(raw, data.on_after_batch_transfer(batch, 0)["image"], strict=True):
                shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
                assert image.dtype == torch.float32
                assert image.is_contiguous()
                assert torch.allclose(image, (stored.float() / 255 - shift) / scale, atol=1e-5)

    @pytest.mark.parametrize(
        ("precision", "dtype"),
        [
            ("bf16-true", torch.bfloat16),
            ("16-true", torch.float16),
            ("64-true", torch.float64),
            ("bf16-mixed", torch.float32),
        ],
    )
    def test_images_are_of_the_trainers_precision(self, precision, dtype):
        data = self.make()
        data.trainer = trainer(precision=precision)
        data.setup("validate")
        batch = data.trainer.precision_plugin.convert_input(next(iter(data.val_dataloader())))
        assert {image.dtype for image in data.on_after_batch_transfer(batch, 0)["image"]} == {dtype}

    # Processes and random numbers

    @pytest.mark.parametrize("processes", [2, 3])
    def test_each_picture_is_counted_once_by_all_processes(self, monkeypatch, processes):
        data = self.make()
        data.setup("validate")
        shares = []
        for rank in range(processes):
            monkeypatch.setattr(type(data), "world", (processes, rank))
            shares.append(list(data.val_dataloader()))
        assert len({len(batches) for batches in shares}) == 1
        counted = [batch["index"][batch["counted"]] for batches in shares for batch in batches]
        assert sorted(torch.cat(counted).tolist()) == list(range(len(data.dataset("val"))))

    def test_a_step_of_all_processes_is_a_step_of_one(self, monkeypatch):
        data = self.make(batch_size=2)
        data.setup("fit")
        together = epoch_of(data, 1)
        data.batch_size = 1
        shares = []
        for rank in range(2):
            monkeypatch.setattr(type(data), "world", (2, rank))
            shares.append(epoch_of(data, 1))
        for step, batch in enumerate(together):
            assert equal(by_index([share[step] for share in shares]), by_index([batch]))

    def test_samples_do_not_depend_on_workers_or_history(self):
        options = {key: value for chosen in self.augmentations for key, value in chosen.items()}
        alone, helped = (self.make(num_workers=n, **options) for n in (0, 2))
        for data in (alone, helped):
            data.setup("fit")
        epoch_of(alone, 0)
        torch.manual_seed(99)
        first = epoch_of(alone, 1)
        assert equal(first, epoch_of(helped, 1))
        assert not equal(first, epoch_of(alone, 2))
        assert equal(list(alone.val_dataloader()), list(helped.val_dataloader()))

    def test_the_runs_seed_changes_the_augmentation(self, monkeypatch):
        for options in self.augmentations:
            epochs = []
            for seed in ("1", "2", "1"):
                monkeypatch.setenv("PL_GLOBAL_SEED", seed)
                data = self.make(**options)
                data.setup("fit")
                epochs.append(by_index(epoch_of(data)))
            first, second, third = epochs
            assert equal(first, third)
            both = first.keys() & second.keys()
            assert any(not equal(first[k]["image"], second[k]["image"]) for k in both)

    def test_loading_leaves_the_networks_random_numbers_alone(self):
        data = self.make()
        data.setup("fit")
        iterator = iter(data.train_dataloader())

        def drawn() -> list[float]:
            return [torch.rand(()).item(), random.random(), np.random.rand()]  # noqa: NPY002

        def reset() -> None:
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002

        reset()
        expected = drawn()
        reset()
        next(iterator)
        assert drawn() == expected

    # Bad pictures

    @pytest.mark.parametrize("check", ["quick", "full"])
    def test_a_picture_that_is_cut_short_is_named(self, check):
        data = self.make()
        items = data.items("val")
        path = paths_of(items)[0]
        message = rf"(?s)1 of {len(items)} .*'val' images.*{path.name}"
        with cut_short(path), pytest.raises(AttnlabError, match=message):
            self.make(check=check).setup("validate")
        self.make(check=check).setup("validate")

    @pytest.mark.parametrize("check", ["quick", "full"])
    def test_a_picture_that_is_cut_short_is_left_out_on_request(self, check):
        data = self.make()
        data.setup("validate")
        items = data.items("val")
        path = paths_of(items)[0]
        lenient = self.make(check=check, on_bad_image="skip")
        with cut_short(path), pytest.warns(UserWarning, match=path.name):
            lenient.setup("validate")
        assert lenient.skipped == list(data.item_names(items))[:1]
        assert len(lenient.dataset("val")) == len(items) - 1
        assert equal({**data.dataset("val")[1], "index": 0}, lenient.dataset("val")[0])

    def test_what_quick_cannot_see_full_finds(self):
        path = paths_of(self.make().items("val"))[0]
        # The header of a JPEG of 64 x 64 pixels, and none of them.
        with spoilt(path, b"\xff\xd8\xff\xc0\0\x11\x08\0\x40\0\x40\x03" + bytes(500) + b"\xff\xd9"):
            if not self.reads_headers:
                self.make(check="quick").setup("validate")
            with pytest.raises(AttnlabError, match=rf"(?s)'val' images.*{path.name}"):
                self.make(check="full").setup("validate")

    def test_without_a_check_reading_names_the_file(self):
        path = paths_of(self.make().items("val"))[0]
        data = self.make(check="none")
        if not self.reads_headers:
            with spoilt(path, b"x"):
                data.setup("validate")
                with pytest.raises(AttnlabError, match=path.name):
                    list(data.val_dataloader())

    # Pictures to predict on

    def test_prediction_needs_no_data_set(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        shots = tmp_path / "shots"
        shots.mkdir()
        # Stored lying: its red half is on the left, and above once it is turned upright.
        lying = Image.new("RGB", (80, 40), "blue")
        lying.paste("red", (0, 0, 40, 40))
        lying.save(shots / "a.jpg", exif=exif)
        Image.new("L", (50, 60), 7).save(shots / "b.png")
        remembered = self.make().remembered()
        data = self.make(
            **{"root": "nowhere", "predict_images": str(shots), "eval_batch_size": 2, **remembered}
        )
        assert data.class_names == self.classes
        data.setup("predict")
        (batch,) = data.predict_dataloader()
        assert set(batch) == MARKS | {"path"} | self.predict_keys
        assert [Path(path).name for path in batch["path"]] == ["a.jpg", "b.png"]
        assert batch["index"].tolist() == [0, 1]
        upright, grey = batch["image"]
        height, width = upright.shape[-2:]
        above, below = (upright[:, int(share * height), width // 2].tolist() for share in (1 / 8, 7 / 8))
        assert (above[0] > 200, above[2] < 50, below[0] < 50, below[2] > 200) == (True,) * 4
        assert (grey[:, 10, 10] == 7).all()

    def test_prediction_on_nothing_is_an_error(self):
        with pytest.raises(AttnlabError, match="predict_images"):
            self.make().setup("predict")
