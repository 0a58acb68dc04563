"""Where a gallery's pictures go: to every logger that takes some, and to the first one's folder."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from attnlab.callbacks import Pictures, Predictions, Records
from attnlab.views import ClassificationView, DetectionView, Gallery, Picture, SegmentationView
from attnlab.views.base import Record

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


class Two(Gallery):
    """A picture for all, and one for the folder alone; knows what it was asked."""

    def __init__(self, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self.asked: list[object] = []

    def begin(self, images):
        self.asked.append(images)

    def collect(self, outputs, batch, data):
        self.asked.append((float(outputs), batch.tolist(), type(data)))

    def pictures(self, stage, result, data):
        self.asked.append((stage, result))
        yield Picture(f"{stage}_a", PIXELS, f"{stage}/a.jpg")
        yield Picture(stage, PIXELS[:2])


class Other(Two):
    pass


class Data(L.LightningDataModule):
    def loader(self):
        return DataLoader(torch.arange(3.0), batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = loader


class Task(L.LightningModule):
    """Its scores are there when its own epoch end is over."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.results = {}

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        return batch.sum()

    test_step = validation_step

    def on_validation_epoch_end(self):
        self.results["val"] = "scores"

    def on_test_epoch_end(self):
        self.results["test"] = "scores of the test"

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class WandB(DummyLogger):
    """Takes pictures as WandbLogger does; like it, it has no ``log_dir``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.shown = folder, []

    name, version, log_dir = "project", "abc", None

    @property
    def save_dir(self):
        return str(self.folder)

    def log_image(self, key, images, step=None, **kwargs):
        self.shown.append((key, [np.asarray(image) for image in images], step))


class MLFlow(MLFlowLogger):
    """Lightning's, without mlflow's client."""

    def __init__(self, folder: Path) -> None:
        Logger.__init__(self)
        self.folder, self.shown = folder, []

    name, version, run_id = "12", "run", "run"

    @property
    def save_dir(self):
        return str(self.folder)

    @property
    def experiment(self):
        return self

    def log_image(self, run_id, image, artifact_file=None, **kwargs):
        # mlflow's client takes arrays (H, W, 3) and PIL's images.
        self.shown.append((run_id, image, artifact_file))

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def after_save_checkpoint(self, checkpoint_callback):
        pass

    def finalize(self, status="success"):
        pass


def trainer_of(folder, callbacks, loggers, **options):
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=callbacks,
        logger=loggers,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        **options,
    )


def after_test(folder, loggers, gallery=None):
    callback = Pictures(gallery or Two())
    trainer_of(folder, [callback], loggers).test(Task(), datamodule=Data(), verbose=False)
    return callback


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*.png")}


def test_every_logger_that_takes_pictures_is_given_them(tmp_path):
    board = TensorBoardLogger(tmp_path, name="tb", version=0)
    table = CSVLogger(tmp_path, name="csv")
    wandb, mlflow = WandB(tmp_path / "wandb"), MLFlow(tmp_path / "mlflow")
    after_test(tmp_path, [board, table, wandb, mlflow])
    events = EventAccumulator(board.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["test/a.jpg"]
    (image,) = events.Images("test/a.jpg")
    assert (image.step, image.width, image.height) == (0, 6, 4)
    ((key, images, step),) = wandb.shown
    assert (key, step, len(images)) == ("test/a.jpg", 0, 1)
    assert np.array_equal(images[0], PIXELS)
    ((run_id, drawn, file),) = mlflow.shown
    assert (run_id, file) == ("run", "test/a.jpg/0.png")
    assert np.array_equal(drawn, PIXELS)
    assert files_of(tmp_path) == {"tb/version_0/pictures/test_a.png", "tb/version_0/pictures/test.png"}


def test_a_logger_that_takes_none_still_has_the_files(tmp_path):
    callback = after_test(tmp_path, CSVLogger(tmp_path, name="csv", version=3))
    assert callback.folder == tmp_path / "csv/version_3/pictures"
    assert files_of(tmp_path) == {"csv/version_3/pictures/test_a.png", "csv/version_3/pictures/test.png"}
    assert np.array_equal(np.asarray(Image.open(callback.folder / "test_a.png")), PIXELS)
    assert np.array_equal(np.asarray(Image.open(callback.folder / "test.png")), PIXELS[:2])


@pytest.mark.parametrize(("kind", "where"), [(WandB, "x/project/abc"), (MLFlow, "x/12/run")])
def test_files_go_to_a_loggers_folder_that_has_no_log_dir(tmp_path, kind, where):
    """The folder that its checkpoints lie in."""
    logger = kind(tmp_path / "x")
    assert logger.log_dir is None
    callback = after_test(tmp_path, [logger, CSVLogger(tmp_path / "csv")])
    assert callback.folder == tmp_path / where / "pictures"
    assert {path.name for path in callback.folder.iterdir()} == {"test_a.png", "test.png"}
    assert len(logger.shown) == 1


def test_a_run_without_a_logger_draws_nothing(tmp_path):
    gallery = Two()
    assert after_test(tmp_path, False, gallery).folder is None
    assert gallery.asked == []
    assert files_of(tmp_path) == set()


def test_the_gallery_is_asked_for_the_epochs_that_are_drawn(tmp_path):
    """Of the set's three images in two batches, after the scores were made; nothing in the sanity check."""
    gallery, wandb = Two(every_n_epochs=2), WandB(tmp_path)
    trainer = trainer_of(tmp_path, [Pictures(gallery)], wandb, max_epochs=4, num_sanity_val_steps=2)
    trainer.fit(Task(), datamodule=Data())
    assert gallery.asked == [3, (1.0, [0.0, 1.0], Data), (2.0, [2.0], Data), ("val", "scores")] * 3
    assert [step for _, _, step in wandb.shown] == [2, 6, 8]


def test_a_validation_that_was_asked_for_is_always_drawn(tmp_path):
    gallery = Two(every_n_epochs=5)
    trainer = trainer_of(tmp_path, [Pictures(gallery)], WandB(tmp_path))
    trainer.validate(Task(), datamodule=Data(), verbose=False)
    assert gallery.asked[-1] == ("val", "scores")


def test_nothing_is_done_for_a_gallery_that_wants_nothing(tmp_path):
    gallery = Two()
    gallery.wanted = False
    assert after_test(tmp_path, CSVLogger(tmp_path), gallery).folder is None
    assert gallery.asked == []


def test_callbacks_of_two_galleries_stand_side_by_side(tmp_path):
    """Lightning refuses callbacks whose states would take each other's place in a checkpoint."""
    callbacks = [Pictures(Two()), Pictures(Other())]
    trainer_of(tmp_path, callbacks, False, max_epochs=1).fit(Task(), datamodule=Data())
    assert [callback.state_key for callback in callbacks] == ["Pictures[Two]", "Pictures[Other]"]


@pytest.mark.parametrize("view", [ClassificationView, DetectionView, SegmentationView])
def test_the_callbacks_of_a_task_have_states_of_their_own(view):
    callbacks = [Pictures(view.gallery()), Predictions(view.writer())]
    callbacks += [
        Records(kind()) if issubclass(kind, Record) else Pictures(kind()) for kind in view.more.values()
    ]
    assert len({callback.state_key for callback in callbacks}) == len(callbacks)
