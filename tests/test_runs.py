"""Whose folder is whose. The commands that use it are run in tests/cli."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger

from attnlab import runs


def test_a_checkpoints_run_is_where_its_configuration_lies(tmp_path, monkeypatch):
    checkpoint = tmp_path / "version_3/checkpoints/last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    assert runs.of_checkpoint(checkpoint) is None
    (tmp_path / "version_3/config.yaml").write_text("")
    assert runs.of_checkpoint(checkpoint) == tmp_path / "version_3"
    assert runs.of_checkpoint(tmp_path / "version_3/last.ckpt") is None
    monkeypatch.chdir(tmp_path)
    assert runs.of_checkpoint(Path("version_3/checkpoints/last.ckpt")) == Path("version_3")
    monkeypatch.chdir(checkpoint.parent)
    assert runs.of_checkpoint(Path("last.ckpt")) == tmp_path / "version_3"


def test_loggers_of_folders_are_pointed_to_the_run():
    loggers = [
        {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "x"}},
        {"class_path": "mine.Server", "init_args": {"save_dir": "x"}},
    ]
    runs.point_loggers(loggers, Path("a/b/version_2"))
    assert loggers[0]["init_args"] == {"save_dir": "a/b", "name": "", "version": "version_2"}
    assert loggers[1]["init_args"] == {"save_dir": "x"}
    for nothing in (None, True, []):
        runs.point_loggers(nothing, Path("a"))


def test_tensorboards_own_logger_gives_way_to_ours():
    logger = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {}}
    other = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
    runs.put_scores_first([logger, other], "attnlab.Mine")
    assert (logger["class_path"], other["class_path"]) == (
        "attnlab.Mine",
        "lightning.pytorch.loggers.CSVLogger",
    )


def test_a_name_is_free_numbered_or_not_needed(tmp_path):
    path = tmp_path / "config.yaml"
    assert runs.free_name(path, "a") == path
    path.write_text("a")
    assert runs.free_name(path, "a") is None
    assert runs.free_name(path, "b") == tmp_path / "config_2.yaml"
    (tmp_path / "config_2.yaml").write_text("b")
    assert runs.free_name(path, "b") is None
    assert runs.free_name(path, "c") == tmp_path / "config_3.yaml"


def rows(logger: CSVLogger) -> list[str]:
    return (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()


def csv_logger(folder: Path) -> CSVLogger:
    return CSVLogger(str(folder), name="", version="run", flush_logs_every_n_steps=1)


def written(folder: Path, steps: range) -> CSVLogger:
    logger = csv_logger(folder)
    for step in steps:
        logger.log_metrics({"loss": float(step)}, step)
    logger.log_hyperparams({"lr": 0.5})
    logger.save()
    return logger


@pytest.mark.parametrize(("steps", "kept"), [(None, [0, 1, 2, 3]), (1, [0, 1]), (0, [0])])
def test_a_resumed_run_appends_from_its_step_on(tmp_path, steps, kept):
    assert len(rows(written(tmp_path, range(4)))) == 5
    again = csv_logger(tmp_path)
    runs.keep_csv_history(SimpleNamespace(is_global_zero=True, loggers=[again]), steps)  # type: ignore[arg-type]
    again.log_metrics({"loss": 9.0}, 9)
    again.save()
    found = [line.split(",") for line in rows(again)]
    column = found[0].index("loss")
    assert [float(row[column]) for row in found[1:]] == [*kept, 9]
    assert "lr: 0.5" in (tmp_path / "run/hparams.yaml").read_text()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["hparams.yaml", "metrics.csv"]


def trainer_in(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(is_global_zero=True, logger=CSVLogger(str(folder), name="a", version="b"))


def test_what_was_made_is_taken_back_and_what_was_there_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    made = runs.StartedRun(trainer_in(tmp_path / "mine/new"))  # type: ignore[arg-type]
    (tmp_path / "mine/new/a/b").mkdir(parents=True)
    (tmp_path / "mine/new/a/b/config.yaml").write_text("")
    made.take_back()
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "config_2.yaml"])
def test_a_folder_that_another_run_has_begun_is_left(tmp_path, name):
    made = runs.StartedRun(trainer_in(tmp_path))  # type: ignore[arg-type]
    (tmp_path / "a/b" / name).parent.mkdir(parents=True)
    (tmp_path / "a/b" / name).write_text("")
    made.take_back()
    assert (tmp_path / "a/b" / name).is_file()
    runs.StartedRun(trainer_in(tmp_path)).take_back()  # type: ignore[arg-type]
    assert (tmp_path / "a/b" / name).is_file()
