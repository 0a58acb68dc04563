"""Whose folder is whose. The commands that use it are run in tests/cli."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

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
    logger = CSVLogger(str(folder), name="a", version="b")
    return SimpleNamespace(is_global_zero=True, fast_dev_run=False, logger=logger, loggers=[logger])


def test_what_was_made_is_taken_back_and_what_was_there_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    made = runs.StartedRun(trainer_in(tmp_path / "mine/new"))  # type: ignore[arg-type]
    (tmp_path / "mine/new/a/b/config.yaml").write_text("")
    made.take_back()
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "config_2.yaml"])
def test_a_folder_that_another_run_has_begun_is_left(tmp_path, name):
    made = runs.StartedRun(trainer_in(tmp_path))  # type: ignore[arg-type]
    (tmp_path / "a/b" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "a/b" / name).write_text("")
    made.take_back()
    assert (tmp_path / "a/b" / name).is_file()
    runs.StartedRun(trainer_in(tmp_path)).take_back()  # type: ignore[arg-type]
    assert (tmp_path / "a/b" / name).is_file()


def test_runs_of_one_moment_get_folders_of_their_own(tmp_path):
    """Each asks for a free version before any of them has made its folder."""
    loggers = [TensorBoardLogger(str(tmp_path / "logs"), name="") for _ in range(4)]
    trainers = [
        SimpleNamespace(is_global_zero=True, fast_dev_run=False, logger=logger, loggers=[logger])
        for logger in loggers
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(runs.StartedRun, trainers))
    folders = sorted((tmp_path / "logs").iterdir())
    assert [folder.name for folder in folders] == [f"version_{k}" for k in range(4)]
    assert all(len((folder / "started.txt").read_text().splitlines()) == 1 for folder in folders)


def test_the_loggers_of_a_run_share_its_version_and_are_found_again(tmp_path):
    def trainer_of(*loggers: Logger) -> SimpleNamespace:
        logger = loggers[0]
        return SimpleNamespace(is_global_zero=True, fast_dev_run=False, logger=logger, loggers=loggers)

    (tmp_path / "csv/version_4").mkdir(parents=True)
    board, table = TensorBoardLogger(str(tmp_path / "tb"), name=""), CSVLogger(str(tmp_path / "csv"), name="")
    beside = CSVLogger(str(tmp_path / "tb"), name="")
    trainer = trainer_of(board, table, beside)
    runs.StartedRun(trainer)  # type: ignore[arg-type]
    known = runs.folders_of_loggers(trainer)  # type: ignore[arg-type]
    assert known == [
        ["TensorBoardLogger", "."],
        ["CSVLogger", "../../csv/version_5"],
        ["CSVLogger", "."],
    ]
    parsed = [
        {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": {}}
        for name in ("TensorBoardLogger", "CSVLogger", "CSVLogger")
    ]
    runs.point_loggers(parsed, tmp_path / "tb/version_0", known)
    found = [Path(each["init_args"]["save_dir"]) / each["init_args"]["version"] for each in parsed]
    there = [tmp_path / "tb/version_0", tmp_path / "csv/version_5", tmp_path / "tb/version_0"]
    assert [path.resolve() for path in found] == there


def test_runs_without_a_logger_have_their_stamp_with_the_checkpoints(tmp_path):
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        fast_dev_run=False,
        logger=None,
        loggers=[],
        default_root_dir=str(tmp_path),
        checkpoint_callback=object(),
    )
    first = runs.StartedRun(trainer)
    stamp = tmp_path / "checkpoints/started.txt"
    assert stamp.is_file()
    first.take_back()
    assert list(tmp_path.iterdir()) == []
    runs.StartedRun(trainer)
    (tmp_path / "config.yaml").write_text("# of the user")
    assert runs.of_checkpoint(tmp_path / "checkpoints/last.ckpt") is None
    text = stamp.read_text()
    runs.StartedRun(trainer, resumed=True)
    runs.StartedRun(trainer).take_back()
    assert stamp.read_text() == text
