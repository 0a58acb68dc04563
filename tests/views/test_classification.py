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

from attnlab.callbacks import Pictures
from attnlab.drawing.cards import sheet
from attnlab.drawing.figures import RIGHT, WRONG
from attnlab.errors import AttnlabError
from attnlab.views import classification as module
from attnlab.views.classification import ClassificationGallery, Kept, spread

NAMES = ["cat", "dog", "cow"]
DATA = SimpleNamespace(class_names=NAMES, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


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
    kept.add(logits_of(shares), batch_of(labels, **batch), DATA, 16)
    return kept


def worst_of(kept):
    return sorted(kept.worst, reverse=True)


@pytest.fixture
def sheets(monkeypatch):
    """Title and cards of the sheets that are drawn."""
    drawn = []

    def recorded(cards, title, columns=6):
        drawn.append((title, cards))
        return sheet(cards, title, columns)

    monkeypatch.setattr(module, "sheet", recorded)
    return drawn


def test_mistakes_come_worst_first_with_their_probabilities(sheets):
    gallery = ClassificationGallery(count=0)
    gallery.begin(4)
    shares = [[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.01, 0.01, 0.98], [0.4, 0.5, 0.1]]
    gallery.collect({"logits": logits_of(shares)}, batch_of([0, 0, 1, 2]), DATA)
    assert [picture.name for picture in gallery.pictures("val", None, DATA)] == ["val_mistakes"]
    ((title, cards),) = sheets
    assert title.startswith("Worst 3 of 3 mistakes in 4 images")
    assert [[(line.text, line.figure) for line in card.lines] for card in cards] == [
        [("dog", "1.0%"), ("-> cow", "98%"), ("n0/2.JPEG", "")],
        [("cow", "10%"), ("-> dog", "50%"), ("n0/3.JPEG", "")],
        [("cat", "20%"), ("-> dog", "70%"), ("n0/0.JPEG", "")],
    ]
    assert [int(card.image.mean()) for card in cards] == [2, 3, 0]
    assert cards[0].image.shape == (128, 128, 3)


def test_only_so_many_of_the_mistakes_are_drawn(sheets):
    gallery = ClassificationGallery(count=0, mistakes=1)
    gallery.begin(2)
    gallery.collect({"logits": logits_of([[0.3, 0.7, 0], [0.1, 0.9, 0]])}, batch_of([0, 0]), DATA)
    list(gallery.pictures("val", None, DATA))
    assert sheets[0][0].startswith("Worst 1 of 2 mistakes in 2 images")
    assert [card.lines[2].text for card in sheets[0][1]] == ["n0/1.JPEG"]


def test_a_set_without_mistakes_says_so(sheets):
    gallery = ClassificationGallery(count=0)
    gallery.begin(1)
    gallery.collect({"logits": logits_of([[0.8, 0.1, 0.1]])}, batch_of([0]), DATA)
    assert [picture.tag for picture in gallery.pictures("test", None, DATA)] == ["test/mistakes"]
    assert sheets == [("No mistakes in 1 images", [])]


def test_fillers_are_ignored_everywhere():
    shares = [[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.8, 0.1, 0.1]]
    kept = kept_of(shares, [1, 2, 0], count=3, counted=[True, False, True])
    assert [seen.index for seen in kept.samples] == [0, 2]
    assert [seen.index for seen in kept.worst] == [0]
    assert (kept.images, kept.wrong) == (2, 1)


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
        kept.add(logits, batch_of(labels, start), DATA, 16)
        assert len(kept.worst) <= 5
        assert len(kept.samples) == 3
        for i, label in enumerate(labels):
            share = logits[i].softmax(0)
            if share.argmax() != label:
                losses[start + i] = -float(share[label].log())
    expected = sorted(losses, key=lambda index: -losses[index])[:5]
    assert [seen.index for seen in worst_of(kept)] == expected
    assert (kept.images, kept.wrong) == (200, len(losses))


def test_what_was_drawn_is_kept_no_longer():
    gallery = ClassificationGallery()
    gallery.begin(2)
    gallery.collect({"logits": logits_of([[0.1, 0.9, 0]] * 2)}, batch_of([0, 1]), DATA)
    assert len(list(gallery.pictures("val", None, DATA))) == 2
    assert list(gallery.pictures("val", None, DATA)) == []
    gallery.collect({"logits": logits_of([[0.1, 0.9, 0]] * 2)}, batch_of([0, 1]), DATA)
    gallery.begin(2)  # as after an interrupted run
    assert list(gallery.pictures("val", None, DATA)) == []


@pytest.mark.parametrize("count", [2, 3])
def test_processes_together_draw_what_one_draws(processes, sheets, count):
    """Losses are equal in pairs, so that ties are decided the same way too."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(15, 3, generator=generator).repeat_interleave(2, 0)
    labels = torch.randint(0, 3, (15,), generator=generator).repeat_interleave(2)

    def run(parts):
        def process(rank):
            gallery = ClassificationGallery(count=7, mistakes=5)
            gallery.begin(30)
            batch = batch_of(labels[rank::parts].tolist(), rank, step=parts)
            gallery.collect({"logits": logits[rank::parts]}, batch, DATA)
            gallery.exchange()
            return [picture.pixels for picture in gallery.pictures("val", None, DATA)]

        return processes(parts, process)

    (one,), many = run(1), run(count)
    assert [int(card.image.mean()) for card in sheets[0][1]] == [k * 30 // 7 for k in range(7)]
    for drawn in many:
        assert all(np.array_equal(a, b) for a, b in zip(drawn, one, strict=True))


def test_logits_that_are_no_numbers_are_the_worst_mistakes(sheets):
    gallery = ClassificationGallery()
    gallery.begin(3)
    shares = [[0.1, 0.9, 0.0], [math.nan, 0.5, 0.5], [0.1, math.inf, 0.0]]
    gallery.collect({"logits": logits_of(shares)}, batch_of([0, 0, 0]), DATA)
    worst = worst_of(gallery._kept)
    assert [seen.index for seen in worst] == [1, 2, 0]
    assert [seen.guess for seen in worst] == [-1, -1, 1]
    assert gallery._kept.wrong == 3
    assert all(picture.pixels.ndim == 3 for picture in gallery.pictures("val", None, DATA))
    for _, cards in sheets:
        assert [("-> no prediction", "NaN") in [(x.text, x.figure) for x in c.lines] for c in cards].count(
            True
        ) == 2


def test_the_same_image_twice_is_no_trouble():
    """As a sampler of one's own may have it."""
    kept = Kept(frozenset(), 3)
    for _ in range(3):
        kept.add(logits_of([[0.1, 0.9, 0.0]] * 2), batch_of([0, 0], step=0), DATA, 16)
    assert [seen.index for seen in worst_of(kept)] == [0, 0, 0]


def test_nothing_is_kept_that_is_not_asked_for():
    kept = kept_of([[0.1, 0.9, 0.0]] * 4, [0, 0, 1, 1], count=1, mistakes=0)
    assert len(kept.samples) == 1
    assert kept.worst == []


def test_frames_say_what_is_right():
    samples = kept_of([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]], [0, 1], count=2).samples
    for seen, colour, other in ((samples[0], RIGHT, WRONG), (samples[1], WRONG, RIGHT)):
        drawn = sheet([seen.card(NAMES, with_shares=False)], "")
        assert (drawn == colour).all(-1).any()
        assert not (drawn == other).all(-1).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_drawn(dtype):
    batch = batch_of([0, 0], start=128)
    batch["image"] = torch.zeros(2, 3, 4, 4, dtype=dtype)
    kept = Kept(frozenset([128]), 5)
    kept.add(logits_of([[0.1, 0.9, 0.0]] * 2).to(dtype), batch, DATA, 8)
    assert (kept.samples[0].image == 128).all()
    assert kept.samples[0].truth_share == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("bad", [{"count": -1}, {"mistakes": -1}, {"max_side": 0}, {"every_n_epochs": 0}])
def test_numbers_that_are_too_small_are_refused(bad):
    with pytest.raises(AttnlabError, match=f"pictures.{next(iter(bad))} is"):
        ClassificationGallery(**bad)


class Data(L.LightningDataModule):
    class_names = NAMES
    mean, std = DATA.mean, DATA.std

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
    callback = Pictures(ClassificationGallery(every_n_epochs=2))
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
    callback = Pictures(ClassificationGallery(count=0, mistakes=0))
    trainer_of(tmp_path, callback).test(Task(), datamodule=Data(), verbose=False)
    assert [path.name for path in callback.folder.iterdir()] == ["test_confusion.png"]
    callback = Pictures(ClassificationGallery(confusion=False))
    trainer_of(tmp_path, callback).test(Task(), datamodule=Data(), verbose=False)
    assert {path.name for path in callback.folder.iterdir()} == {"test.png", "test_mistakes.png"}
    callback = Pictures(ClassificationGallery(count=0, mistakes=0, confusion=False))
    trainer_of(tmp_path, callback).test(Task(), datamodule=Data(), verbose=False)
    assert callback.folder is None
