"""Who writes where: fit makes a run's folder, scores of its checkpoints go into it, nothing else is left."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from PIL import Image

from attnlab import runs
from attnlab.cli.trainer import AttnlabCLI
from attnlab.errors import AttnlabError
from tests.cli.conftest import checkpoint

CSV = ("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.logger.name=")
QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_run_keeps_its_csv_history_and_its_first_yaml(run, small, tmp_path):
    assert run("fit", *small, *CSV).status == 0
    folder = tmp_path / "logs/version_0"
    before, config = rows_of(folder / "metrics.csv"), (folder / "config.yaml").read_bytes()
    outcome = run(
        "fit", *small, *CSV, "--ckpt_path=last", "--trainer.max_epochs=2", "--model.optimizer.lr=1e-4"
    )
    assert outcome.status == 0, outcome.err
    after = rows_of(folder / "metrics.csv")
    assert [{k: row[k] for k in before[0]} for row in after[: len(before)]] == before
    assert {row["epoch"] for row in after} >= {"0", "1"}
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["version_0"]
    assert (folder / "config.yaml").read_bytes() == config
    options = yaml.safe_load((folder / "config_2.yaml").read_text())["model"]["init_args"]
    assert options["optimizer"]["lr"] == 1e-4


def test_rows_of_steps_that_are_made_again_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n0,3.0\n4,2.0\n5,\n9,1.0\n")
    assert runs._without_rows_after(path, 5) == ["step", "train/loss"]
    assert [row["step"] for row in rows_of(path)] == ["0", "4", "5"]


def test_scores_go_into_the_run_of_their_checkpoint(run, trained, tmp_path):
    trained()
    folder = tmp_path / "lightning_logs/version_0"
    before = files_below(folder)
    for command in ("test", "validate", "test"):
        outcome = run(command, "--ckpt_path=best", *QUIET)
        assert outcome.status == 0, outcome.err
        assert "scores.json" in outcome.out
        assert "MACs at" in outcome.out  # beside the scores, whichever set they are of
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
    after = files_below(folder)
    # Validation draws its pictures anew, of the checkpoint that it has scored.
    kept = {name for name in before if not name.startswith("pictures/")}
    assert [name for name in kept if after[name] != before[name]] == []
    scores = json.loads((folder / "scores.json").read_text())
    assert set(scores[0]) == {"split", "metric", "value", "checkpoint", "date", "versions"}
    found = {(entry["split"], entry["metric"]) for entry in scores}
    assert {("test", "mIoU"), ("val", "mIoU"), ("test", "loss")} <= found
    # Appended: of the first test, of validation, of the second test.
    splits = [entry["split"] for entry in scores]
    assert [split for split, before in zip(splits, ["", *splits], strict=False) if split != before] == [
        "test",
        "val",
        "test",
    ]
    assert {entry["checkpoint"] for entry in scores} == {"checkpoints/best.ckpt"}
    assert {"attnlab", "torch", "lightning", "python"} <= scores[0]["versions"].keys()
    # The picture of the test lies beside that of validation.
    assert (folder / "pictures/test.png").is_file()


def test_a_csv_logger_of_the_yaml_keeps_its_history_in_a_test(run, small, tmp_path):
    (tmp_path / "log.yaml").write_text(
        "trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: logs, name: ''}}}"
    )
    assert run("fit", *small, "--config=log.yaml").status == 0
    path = tmp_path / "logs/version_0/metrics.csv"
    before = rows_of(path)
    assert run("test", *small, "--config=log.yaml", "--ckpt_path=last").status == 0
    after = rows_of(path)
    assert [{k: row[k] for k in before[0]} for row in after[: len(before)]] == before
    assert any(row.get("test/mIoU") for row in after[len(before) :])
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["version_0"]


def test_a_file_of_scores_that_is_none_is_said_before_the_test(run, trained, tmp_path):
    trained()
    (tmp_path / "lightning_logs/version_0/scores.json").write_text('{"mine": 1}')
    outcome = run("test", "--ckpt_path=best", *QUIET)
    assert outcome.status == 2
    assert "Move or rename it" in outcome.err
    assert (tmp_path / "lightning_logs/version_0/scores.json").read_text() == '{"mine": 1}'


def test_predict_and_a_test_of_a_moved_checkpoint_leave_no_run(run, trained, tmp_path):
    trained()
    moved = checkpoint(tmp_path).rename(tmp_path / "moved.ckpt")
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    there = {path.name for path in tmp_path.iterdir()}
    assert run("predict", f"--ckpt_path={moved}", "--data.predict_images=photo.png", *QUIET).status == 0
    outcome = run("test", f"--ckpt_path={moved}", *QUIET)
    assert outcome.status == 0, outcome.err
    assert "test mIoU" in outcome.out
    assert {path.name for path in tmp_path.iterdir()} == there | {"predictions"}
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.parametrize("logger", [(), CSV], ids=["tensorboard", "csv"])
def test_a_run_that_fails_before_its_first_step_leaves_no_folder(run, small, voc, tmp_path, logger):
    there = {path.name for path in tmp_path.iterdir()}
    picture = voc / "VOCdevkit/VOC2012/JPEGImages/t4.jpg"
    content = picture.read_bytes()
    picture.write_bytes(content[:-900])
    assert run("fit", *small, *logger).status == 2
    assert {path.name for path in tmp_path.iterdir()} == there
    picture.write_bytes(content)
    assert run("fit", *small, *logger).status == 0
    picture.write_bytes(content[:-900])
    assert run("fit", *small, *logger).status == 2
    assert [path.name for path in (tmp_path / ("logs" if logger else "lightning_logs")).iterdir()] == [
        "version_0"
    ]


def test_what_another_run_has_begun_in_the_folder_stays(tmp_path):
    """Two runs that are started at once may be given one version."""
    trainer = Trainer(logger=TensorBoardLogger(tmp_path, name=""), accelerator="cpu", barebones=False)
    folder = runs.StartedRun(trainer)
    for name in ("events.out.tfevents.1", "events.out.tfevents.2"):
        (tmp_path / "version_0").mkdir(exist_ok=True)
        (tmp_path / "version_0" / name).touch()
    folder.take_back()
    assert len(list((tmp_path / "version_0").iterdir())) == 2
    (tmp_path / "version_0/events.out.tfevents.2").unlink()
    folder.take_back()
    assert not (tmp_path / "version_0").exists()


def test_a_run_that_fails_later_keeps_its_folder(run, small, tmp_path, monkeypatch):
    from attnlab.tasks import SegmentationTask

    def fail(task: SegmentationTask) -> None:
        raise AttnlabError("as if the disk were full")

    monkeypatch.setattr(SegmentationTask, "on_validation_epoch_end", fail)
    assert run("fit", *small, "--trainer.num_sanity_val_steps=0").status == 2
    assert (tmp_path / "lightning_logs/version_0/config.yaml").is_file()


def test_without_a_logger_a_yaml_of_ones_own_stays(run, small, tmp_path):
    (tmp_path / "config.yaml").write_text("# mine")
    assert run("fit", *small, "--trainer.logger=false").status == 0
    assert (tmp_path / "config.yaml").read_text() == "# mine"


class ServerLogger(Logger):
    """As loggers of a server are: it has a folder for all runs, and an id, but no folder of a run."""

    @property
    def name(self) -> str:
        return "project"

    @property
    def version(self) -> str:
        return "run7"

    @property
    def save_dir(self) -> str:
        return "server"

    @property
    @rank_zero_experiment
    def experiment(self) -> object:
        return self

    def log_metrics(self, metrics, step=None) -> None: ...

    def log_hyperparams(self, params, *args, **kwargs) -> None: ...


def test_a_logger_with_a_server_gets_the_yaml_beside_the_checkpoints(run, small, tmp_path):
    (tmp_path / "server").mkdir()
    (tmp_path / "server/config.yaml").write_text("# of an earlier run")
    assert run("fit", *small, f"--trainer.logger={__name__}.ServerLogger").status == 0
    assert (tmp_path / "server/config.yaml").read_text() == "# of an earlier run"
    assert (tmp_path / "server/project/run7/config.yaml").is_file()
    assert (tmp_path / "server/project/run7/checkpoints/last.ckpt").is_file()


def test_a_resumed_run_goes_on_to_the_length_that_was_planned(run, small, tmp_path, monkeypatch):
    assert run("fit", *small, "--trainer.max_epochs=3", "--trainer.limit_train_batches=1").status == 0
    content = torch.load(checkpoint(tmp_path), weights_only=True)
    assert content["attnlab"]["length"] == {"max_epochs": 3, "max_steps": -1}
    lengths = []
    monkeypatch.setattr(AttnlabCLI, "fit", lambda self, *a, **k: lengths.append(self.trainer.max_epochs))
    assert run("fit", "--ckpt_path=last", *QUIET).status == 0
    assert run("fit", "--ckpt_path=last", "--trainer.max_epochs=5", *QUIET).status == 0
    assert lengths == [3, 5]


@pytest.mark.parametrize(
    ("task", "flags", "name"),
    [
        ("segmentation", [], "a.png"),
        ("classification", ["--model.network=timm/test_resnet"], "predictions.png"),
        ("detection", ["--model.network=yolox_nano", "--model.network_options.size=64"], "a.jpg"),
    ],
)
def test_predictions_into_the_folder_of_the_pictures_are_refused(run, tmp_path, task, flags, name):
    """Before the first picture, in every task; the drawn data's classes are enough to build the network."""
    Image.new("RGB", (70, 66), "red").save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    outcome = run(
        "predict",
        f"--task={task}",
        *flags,
        "--random_weights=true",
        *QUIET,
        f"--data.predict_images={tmp_path / name}",
        f"--predictions.output_dir={tmp_path}",
    )
    assert outcome.status == 2, outcome.out
    assert "overwrite an input image" in outcome.err
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]
