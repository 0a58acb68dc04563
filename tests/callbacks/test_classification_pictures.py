"""What is drawn of a classifier: samples, worst mistakes, confusion."""

import math
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from attnlab.callbacks import ClassificationPictures
from attnlab.callbacks.classification_pictures import Kept, merged, mistakes_sheet, samples_sheet, spread
from attnlab.callbacks.sheets import RIGHT, WRONG
from attnlab.callbacks.thumbnails import thumbnail
from attnlab.errors import AttnlabError

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
NAMES = ["cat", "dog", "cow"]


def batch_of(labels, start=0, counted=None, step=1):
    """Images whose every pixel is their index in the set, in 0..255."""
    index = start + step * torch.arange(len(labels))
    pixels = (index[:, None, None, None] / 255 - 0.5) / 0.25
    return {
        "image": pixels.expand(-1, 3, 8, 8).clone(),
        "label": torch.tensor(labels),
        "counted": torch.tensor(counted or [True] * len(labels)),
        "index": index,
        "name": [f"n0/{int(i)}.JPEG" for i in index],
    }


def logits_of(shares):
    return torch.tensor(shares).log()


def kept_of(shares, labels, count=0, mistakes=10, **batch):
    kept = Kept(frozenset(range(count)), mistakes)
    kept.add(logits_of(shares), batch_of(labels, **batch), MEAN, STD, 16)
    return kept


def test_mistakes_come_worst_first_with_their_probabilities():
    shares = [[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.01, 0.01, 0.98], [0.4, 0.5, 0.1]]
    _, worst, images, wrong = merged([kept_of(shares, [0, 0, 1, 2])])
    assert (images, wrong) == (4, 3)
    assert [seen.index for seen in worst] == [2, 3, 0]
    assert [(seen.truth, seen.guess) for seen in worst] == [(1, 2), (2, 1), (0, 1)]
    assert worst[0].truth_share == pytest.approx(0.01)
    assert worst[0].guess_share == pytest.approx(0.98)
    assert worst[0].loss == pytest.approx(-math.log(0.01))
    assert worst[0].name == "n0/2.JPEG"
    assert (worst[0].image == 2).all()


def test_fillers_are_ignored_everywhere():
    shares = [[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.8, 0.1, 0.1]]
    kept = kept_of(shares, [1, 2, 0], count=3, counted=[True, False, True])
    first, worst, images, wrong = merged([kept])
    assert [seen.index for seen in first] == [0, 2]
    assert [seen.index for seen in worst] == [0]
    assert (images, wrong) == (2, 1)


@pytest.mark.parametrize(
    ("length", "count", "positions"), [(10, 3, {0, 3, 6}), (2, 5, {0, 1}), (7, 0, set()), (1000, 2, {0, 500})]
)
def test_samples_are_spread_over_the_set(length, count, positions):
    assert spread(length, count) == positions


def test_memory_is_bounded_and_the_worst_stay():
    generator = torch.Generator().manual_seed(0)
    kept, losses = Kept(frozenset(range(3)), 5), {}
    for start in range(0, 200, 10):
        logits = torch.randn(10, 3, generator=generator)
        labels = torch.randint(0, 3, (10,), generator=generator).tolist()
        kept.add(logits, batch_of(labels, start), MEAN, STD, 16)
        assert len(kept.worst) <= 5
        assert len(kept.samples) == 3
        for i, label in enumerate(labels):
            share = logits[i].softmax(0)
            if share.argmax() != label:
                losses[start + i] = -float(share[label].log())
    expected = sorted(losses, key=lambda index: -losses[index])[:5]
    _, worst, images, wrong = merged([kept])
    assert [seen.index for seen in worst] == expected
    assert (images, wrong) == (200, len(losses))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_keep_what_one_keeps(processes):
    """Losses are equal in pairs, so that ties are decided the same way too."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(15, 3, generator=generator).repeat_interleave(2, 0)
    labels = torch.randint(0, 3, (15,), generator=generator).repeat_interleave(2)

    def run(parts):
        kept = [Kept(frozenset(range(7)), 5) for _ in range(parts)]
        for rank, part in enumerate(kept):
            batch = batch_of(labels[rank::parts].tolist(), rank, step=parts)
            part.add(logits[rank::parts], batch, MEAN, STD, 16)
        first, worst, images, wrong = merged(kept)
        return [s.index for s in first], [s.index for s in worst], images, wrong

    assert run(processes) == run(1)
    assert run(1)[0] == [0, 1, 2, 3, 4, 5, 6]


def test_logits_that_are_no_numbers_are_the_worst_mistakes():
    shares = [[0.1, 0.9, 0.0], [math.nan, 0.5, 0.5], [0.1, math.inf, 0.0]]
    _, worst, _, wrong = merged([kept_of(shares, [0, 0, 0])])
    assert [seen.index for seen in worst] == [1, 2, 0]
    assert [seen.guess for seen in worst] == [-1, 1, 1]
    assert wrong == 3
    assert mistakes_sheet(worst, NAMES, 3, 3).ndim == 3


def test_the_same_image_twice_is_no_trouble():
    """As a sampler of one's own may have it."""
    kept = Kept(frozenset(), 3)
    for _ in range(3):
        kept.add(logits_of([[0.1, 0.9, 0.0]] * 2), batch_of([0, 0], step=0), MEAN, STD, 16)
    assert [seen.index for seen in merged([kept])[1]] == [0, 0, 0]


def test_nothing_is_kept_that_is_not_asked_for():
    kept = kept_of([[0.1, 0.9, 0.0]] * 4, [0, 0, 1, 1], count=1, mistakes=0)
    assert len(kept.samples) == 1
    assert kept.worst == []


def test_frames_say_what_is_right():
    first = merged([kept_of([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]], [0, 1], count=2)])[0]
    for seen, colour, other in ((first[0], RIGHT, WRONG), (first[1], WRONG, RIGHT)):
        drawn = samples_sheet([seen], NAMES)
        assert (drawn == colour).all(-1).any()
        assert not (drawn == other).all(-1).any()


def test_thumbnails_shrink_and_grow_by_whole_factors():
    for size, expected in (
        ((300, 150), (100, 50)),
        ((32, 20), (96, 60)),
        ((60, 60), (60, 60)),
        ((1, 400), (1, 100)),
    ):
        assert thumbnail(torch.zeros(3, *size), MEAN, STD, 100).shape[:2] == expected
    half = thumbnail(torch.zeros(3, 4, 4, dtype=torch.bfloat16), MEAN, STD, 8)
    assert (half == 128).all()


@pytest.mark.parametrize("bad", [{"count": -1}, {"mistakes": -1}, {"max_side": 0}, {"every_n_epochs": 0}])
def test_numbers_that_are_too_small_are_refused(bad):
    with pytest.raises(AttnlabError, match=next(iter(bad))):
        ClassificationPictures(**bad)


class Data(L.LightningDataModule):
    class_names = NAMES
    mean, std = MEAN, STD

    def loader(self):
        batches = [batch_of([0, 1], 0), batch_of([2, 2], 2, counted=[True, False])]
        return DataLoader(batches, batch_size=None)

    train_dataloader = val_dataloader = test_dataloader = loader


class Task(L.LightningModule):
    """Says cat with 80% to everything, and has its scores when its own epoch end is over."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.results = {}

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        return {"logits": logits_of([[0.8, 0.1, 0.1]] * 2)}

    test_step = validation_step

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.results["val"] = SimpleNamespace(matrix=torch.tensor([[1, 0, 0]] * 3))

    def on_test_epoch_end(self):
        self.results["test"] = SimpleNamespace(matrix=torch.tensor([[1, 0, 0]] * 3))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer_of(folder, callback, **options):
    return L.Trainer(
        accelerator="cpu",
        callbacks=[callback],
        logger=TensorBoardLogger(folder, name=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )


def image_steps(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}


def test_a_fit_draws_its_first_every_second_and_last_epoch_but_not_the_sanity_check(tmp_path):
    callback = ClassificationPictures(every_n_epochs=2)
    trainer = trainer_of(tmp_path, callback, max_epochs=4, num_sanity_val_steps=2)
    trainer.fit(Task(), datamodule=Data())
    assert callback.folder == tmp_path / "version_0" / "pictures"
    names = {path.name for path in callback.folder.iterdir()}
    assert names == {"val.png", "val_mistakes.png", "val_confusion.png"}
    steps = image_steps(tmp_path / "version_0")
    assert set(steps) == {"val/samples", "val/mistakes", "val/confusion"}
    assert all(drawn == [2, 6, 8] for drawn in steps.values())
    samples = np.asarray(Image.open(callback.folder / "val.png"))
    assert (samples == RIGHT).all(-1).any()


def test_a_test_draws_what_is_asked_for(tmp_path):
    callback = ClassificationPictures(count=0, mistakes=0)
    trainer_of(tmp_path, callback).test(Task(), datamodule=Data(), verbose=False)
    assert [path.name for path in callback.folder.iterdir()] == ["test_confusion.png"]
    callback = ClassificationPictures(confusion=False)
    trainer_of(tmp_path, callback).test(Task(), datamodule=Data(), verbose=False)
    assert {path.name for path in callback.folder.iterdir()} == {"test.png", "test_mistakes.png"}
