"""The best checkpoint is the network of the best score, saved when it was scored."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from attnlab.callbacks import AtomicCheckpointIO, RampedEMA
from attnlab.callbacks.best import BestCheckpoint
from attnlab.callbacks.checkpoint_io import LastCheckpoint
from attnlab.errors import AttnlabError


class Net(BoringModel):
    """Its scores are given, one for each validation, and one for each epoch of training."""

    def __init__(self, val=(), train=()):
        super().__init__()
        self.val, self.train_scores = iter(val), list(train)

    def training_step(self, batch, batch_idx):
        if self.train_scores:
            self.log("train/score", self.train_scores[self.current_epoch], on_step=True, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking and (value := next(self.val, None)) is not None:
            self.log("val/score", value)


def fitted(
    folder: Path, net: Net, resume: Path | None = None, more: Any = (), **options: Any
) -> BestCheckpoint:
    """Four steps an epoch, unless the Trainer's options, in capitals, say otherwise."""
    trainer = {key.lower(): options.pop(key) for key in list(options) if key.isupper()}
    given = {"filename": "best", "monitor": "val/score", "mode": "max", "enable_version_counter": False}
    best, io = BestCheckpoint(**{**given, **options}), AtomicCheckpointIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[best, LastCheckpoint(io), *more],
            plugins=[io],
            **{
                "limit_train_batches": 4,
                "limit_val_batches": 1,
                "max_epochs": 2,
                "num_sanity_val_steps": 0,
                **trainer,
            },
        ).fit(net, ckpt_path=resume)
    return best


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def files(folder: Path) -> dict[str, int]:
    return {path.name: step_of(path) for path in sorted((folder / "checkpoints").iterdir())}


@pytest.mark.parametrize("sanity", [0, 1])
@pytest.mark.parametrize(
    ("trainer", "scores", "step"),
    [
        ({"VAL_CHECK_INTERVAL": 0.5}, [0.9, 0.2, 0.3, 0.4], 2),
        ({"VAL_CHECK_INTERVAL": 0.5}, [0.1, 0.2, 0.9, 0.4], 6),
        ({"VAL_CHECK_INTERVAL": 0.25}, [0.1, 0.2, 0.3, 0.9, 0.4, 0.3, 0.2, 0.1], 4),
        ({"CHECK_VAL_EVERY_N_EPOCH": None, "VAL_CHECK_INTERVAL": 3}, [0.1, 0.9], 6),
        ({"CHECK_VAL_EVERY_N_EPOCH": 2, "MAX_EPOCHS": 5}, [0.9, 0.2], 8),
        ({"MAX_STEPS": 6, "VAL_CHECK_INTERVAL": 0.5}, [0.1, 0.2, 0.9], 6),
    ],
)
def test_it_is_that_of_the_highest_score(tmp_path, trainer, scores, step, sanity):
    best = fitted(tmp_path, Net(scores), NUM_SANITY_VAL_STEPS=sanity, **trainer)
    assert float(best.best_model_score) == pytest.approx(0.9)
    assert step_of(tmp_path / "checkpoints/best.ckpt") == step


def test_the_lowest_where_that_is_better(tmp_path):
    fitted(tmp_path, Net([0.5, 0.2, 0.1, 0.4]), mode="min", VAL_CHECK_INTERVAL=0.5)
    assert step_of(tmp_path / "checkpoints/best.ckpt") == 6


@pytest.mark.parametrize("name", ["train/score", "train/score_epoch"])
@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_a_score_of_training_is_that_of_the_whole_epoch(tmp_path, name, interval):
    net = Net([0.9] * 6, train=[0.1, 0.3, 0.2])
    best = fitted(tmp_path, net, monitor=name, MAX_EPOCHS=3, VAL_CHECK_INTERVAL=interval)
    assert float(best.best_model_score) == pytest.approx(0.3)
    assert step_of(tmp_path / "checkpoints/best.ckpt") == 8


def test_without_validation_a_score_of_training_is_looked_at(tmp_path):
    fitted(tmp_path, Net(train=[0.3, 0.1]), monitor="train/score", LIMIT_VAL_BATCHES=0)
    assert step_of(tmp_path / "checkpoints/best.ckpt") == 4


@pytest.mark.parametrize(("k", "kept"), [(2, {4, 12}), (-1, {4, 8, 12})])
@pytest.mark.parametrize("name", ["best", "mine", "mine-{epoch}", "{epoch}-{val/score:.2f}"])
def test_several_are_kept_and_the_best_has_the_name(tmp_path, k, kept, name):
    fitted(tmp_path, Net([0.9, 0.2, 0.3]), save_top_k=k, filename=name, MAX_EPOCHS=3)
    found = files(tmp_path)
    assert found.pop("best.ckpt") == 4
    assert found.pop("last.ckpt") == 12
    assert (set(found.values()), len(found)) == (kept, len(kept))
    assert all(path.is_file() for path in (tmp_path / "checkpoints").iterdir())


def test_a_file_name_of_ones_own_is_beside_the_best(tmp_path):
    fitted(tmp_path, Net([0.2, 0.9, 0.3]), filename="{epoch}-{val/score:.2f}", MAX_EPOCHS=3)
    assert files(tmp_path) == {"best.ckpt": 8, "epoch=1-val_score=0.90.ckpt": 8, "last.ckpt": 12}
    best, own = tmp_path / "checkpoints/best.ckpt", tmp_path / "checkpoints/epoch=1-val_score=0.90.ckpt"
    assert best.samefile(own)


def test_nothing_but_the_last(tmp_path):
    fitted(tmp_path, Net([0.2, 0.9]), save_top_k=0)
    assert files(tmp_path) == {"last.ckpt": 8}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, {"epoch=1-step=8.ckpt": 8}),
        ({"save_top_k": -1}, {"epoch=0-step=4.ckpt": 4, "epoch=1-step=8.ckpt": 8}),
        ({"every_n_train_steps": 3}, {"epoch=1-step=6.ckpt": 6}),
        ({"every_n_epochs": 2, "save_top_k": -1}, {"epoch=1-step=8.ckpt": 8}),
    ],
)
def test_where_nothing_is_monitored_none_is_called_the_best(tmp_path, options, found):
    fitted(tmp_path, Net([0.2, 0.9]), monitor=None, **options)
    assert files(tmp_path) == {**found, "last.ckpt": 8}


def test_every_so_many_epochs(tmp_path):
    fitted(tmp_path, Net([0.9, 0.2, 0.3, 0.1]), every_n_epochs=2, MAX_EPOCHS=4)
    assert step_of(tmp_path / "checkpoints/best.ckpt") == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every_n_train_steps": 5}, r"every_n_train_steps saves between validations.*monitor null"),
        ({"save_top_k": -2}, "save_top_k=-2"),
        ({"monitor": None, "save_top_k": 2}, "save_top_k=2"),
        ({"filename": "last"}, "name of the last checkpoint"),
        ({"mode": "highest"}, "`mode` can be"),
    ],
)
def test_options_that_contradict_each_other(tmp_path, options, said):
    with pytest.raises(AttnlabError, match=said):
        fitted(tmp_path, Net(), **options)


def test_weights_alone_must_be_those_that_are_scored(tmp_path):
    with pytest.raises(AttnlabError, match="RampedEMA averages are scored"):
        fitted(tmp_path, Net([0.1]), save_weights_only=True, more=[RampedEMA()])


def test_a_score_that_does_not_come_is_said_after_the_first_validation(tmp_path):
    with pytest.raises(
        AttnlabError, match=r"Nothing has logged --checkpoint\.monitor val/other\..*val/score"
    ):
        fitted(tmp_path, Net([0.1]), monitor="val/other")


class Stop(Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 6:
            raise ValueError("as if something broke")


def test_what_is_saved_when_something_breaks_is_not_called_the_best(tmp_path):
    with pytest.raises(ValueError, match="broke"):
        fitted(tmp_path, Net([0.9, 0.2]), save_on_exception=True, more=[Stop()])
    assert files(tmp_path) == {"best.ckpt": 4, "exception-epoch=1-step=6.ckpt": 6, "last.ckpt": 4}


def test_a_checkpoint_callback_of_ones_own_beside_it(tmp_path):
    own = [ModelCheckpoint(save_top_k=-1), ModelCheckpoint(monitor="val/score", mode="max", filename="own")]
    fitted(tmp_path, Net([0.9, 0.2]), more=own)
    assert files(tmp_path) == {
        "best.ckpt": 4,
        "epoch=0-step=4.ckpt": 4,
        "epoch=1-step=8.ckpt": 8,
        "last.ckpt": 8,
        "own.ckpt": 4,
    }


class TestResumed:
    """The best is known by what it is, not by how its path is spelled."""

    @pytest.mark.parametrize("place", ["moved", "linked", "relative", "dotted"])
    @pytest.mark.parametrize("start", ["last", "best"])
    def test_in_a_folder_of_another_spelling(self, tmp_path, monkeypatch, place, start):
        fitted(tmp_path / "a", Net([0.25]), MAX_EPOCHS=1)
        monkeypatch.chdir(tmp_path)
        if place == "moved":
            (tmp_path / "a").rename(tmp_path / "b")
        elif place == "linked":
            (tmp_path / "b").symlink_to(tmp_path / "a")
        folder = {"relative": "a", "dotted": "./a/../a"}.get(place, str(tmp_path / "b"))
        from_ = Path(folder) / f"checkpoints/{start}.ckpt"
        best = fitted(folder, Net([0.1875]), resume=from_)
        assert float(best.best_model_score) == 0.25
        assert files(Path(folder)) == {"best.ckpt": 4, "last.ckpt": 8}

    def test_a_better_one_replaces_it(self, tmp_path):
        fitted(tmp_path / "a", Net([0.25]), MAX_EPOCHS=1)
        (tmp_path / "a").rename(tmp_path / "b")
        fitted(tmp_path / "b", Net([0.5]), resume=tmp_path / "b/checkpoints/last.ckpt")
        assert files(tmp_path / "b") == {"best.ckpt": 8, "last.ckpt": 8}

    def test_elsewhere_it_has_a_best_of_its_own(self, tmp_path):
        fitted(tmp_path / "a", Net([0.25]), MAX_EPOCHS=1)
        fitted(tmp_path / "b", Net([0.1875]), resume=tmp_path / "a/checkpoints/last.ckpt")
        assert files(tmp_path / "b") == {"best.ckpt": 8, "last.ckpt": 8}
        assert files(tmp_path / "a") == {"best.ckpt": 4, "last.ckpt": 4}

    @pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 1), (3, 2)])
    def test_with_another_number_of_them(self, tmp_path, before, after):
        fitted(tmp_path, Net([0.9, 0.2, 0.3]), save_top_k=before, MAX_EPOCHS=3)
        last = tmp_path / "checkpoints/last.ckpt"
        best = fitted(tmp_path, Net([0.4, 0.5]), resume=last, save_top_k=after, MAX_EPOCHS=5)
        assert step_of(tmp_path / "checkpoints/best.ckpt") == 4
        expected = [0.9, 0.5][:after]
        assert sorted(map(float, best.best_k_models.values()), reverse=True) == pytest.approx(expected)

    def test_from_a_checkpoint_of_before_this_class(self, tmp_path):
        fitted(tmp_path, Net([0.25]), MAX_EPOCHS=1)
        last = tmp_path / "checkpoints/last.ckpt"
        content = torch.load(last, weights_only=True)
        states = content["callbacks"]
        own = next(key for key in states if key.startswith("BestCheckpoint"))
        former = ModelCheckpoint(monitor="val/score", mode="max").state_key
        states[former] = states.pop(own)
        torch.save(content, last)
        fitted(tmp_path, Net([0.1875]), resume=last)
        assert files(tmp_path) == {"best.ckpt": 4, "last.ckpt": 8}

    def test_where_nothing_is_monitored_the_newest_alone_is_kept(self, tmp_path):
        fitted(tmp_path / "a", Net([0.25]), monitor=None, MAX_EPOCHS=1)
        shutil.move(tmp_path / "a", tmp_path / "b")
        fitted(tmp_path / "b", Net([0.5]), monitor=None, resume=tmp_path / "b/checkpoints/last.ckpt")
        assert files(tmp_path / "b") == {"epoch=1-step=8.ckpt": 8, "last.ckpt": 8}
