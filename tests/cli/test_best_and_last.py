"""What best.ckpt holds, and which run --ckpt_path last and best mean: by the command line, in all tasks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from attnlab.tasks import BaseTask, ClassificationTask, DetectionTask, SegmentationTask

QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
TASKS: dict[str, type[BaseTask]] = {
    "classification": ClassificationTask,
    "segmentation": SegmentationTask,
    "detection": DetectionTask,
}
NETWORKS = {
    "classification": ["--model.network=timm/test_resnet"],
    "segmentation": [
        *("--model.architecture=DeepLabV3Plus", "--model.encoder=tu-test_resnet", "--data.crop_size=64"),
        "--model.architecture_options.decoder_channels=16",
    ],
    "detection": ["--model.network=yolox_nano", "--model.network_options.size=64"],
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each task's data are drawn once."""
    return tmp_path_factory.mktemp("drawn")


# Of what is the same code in all of them, the quick set looks at one.
THE_OTHERS_SLOW = [
    pytest.param(name, marks=[] if name == "classification" else pytest.mark.slow) for name in sorted(TASKS)
]


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fit(run, drawn: Path) -> Callable[..., object]:
    """Runs ``fit`` of a task for two steps an epoch."""
    return lambda task, *more: run("fit", *options(task, drawn), *more)


def options(task: str, drawn: Path) -> list[str]:
    return [
        *(f"--task={task}", *NETWORKS[task], f"--data.root={drawn / task}", *QUIET),
        *("--data.num_train=6", "--data.num_val=6", "--data.image_size=64", "--data.batch_size=3"),
        *("--data.num_workers=0", "--pictures.every_n_epochs=100", "--trainer.num_sanity_val_steps=0"),
        *("--trainer.max_epochs=1", "--trainer.limit_val_batches=1", "--pictures.count=0"),
    ]


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes up what a task's validations come to."""

    def give(task: str, *values: float) -> None:
        cls, left = TASKS[task], iter(values)
        name, real = cls.monitor.removeprefix("val/"), cls.figures
        monkeypatch.setattr(cls, "figures", lambda self, found: {**real(self, found), name: next(left)})

    return give


def steps(folder: Path) -> dict[str, int]:
    found = {path.name: torch.load(path, weights_only=True) for path in folder.glob("checkpoints/*.ckpt")}
    return {name: content["global_step"] for name, content in found.items()}


def runs_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_best_is_the_network_of_the_highest_score(fit, scores, task, tmp_path):
    scores(task, 0.9, 0.2, 0.3, 0.4)
    more = ["--trainer.max_epochs=2", "--trainer.val_check_interval=0.5", "--checkpoint.save_top_k=2"]
    outcome = fit(task, *more)
    assert outcome.status == 0, outcome.err
    assert f"best {TASKS[task].monitor}" in outcome.out
    assert "0.9000" in outcome.out
    assert steps(tmp_path / "lightning_logs/version_0") == {
        "best.ckpt": 1,
        "best-epoch=0-step=1.ckpt": 1,
        "best-epoch=1-step=4.ckpt": 4,
        "last.ckpt": 4,
    }


@pytest.mark.parametrize("task", THE_OTHERS_SLOW)
def test_a_resumed_run_knows_the_best_wherever_it_lies(fit, scores, task, tmp_path):
    scores(task, 0.25, 0.1875, 0.125, 0.5)
    assert fit(task, "--trainer.logger.save_dir=logs").status == 0
    first = torch.load(tmp_path / "logs/version_0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for epochs, place in ((2, "./logs//"), (3, str(tmp_path / "moved"))):
        if place.startswith("/"):
            (tmp_path / "logs").rename(place)
        more = [f"--trainer.logger.save_dir={place}", f"--trainer.max_epochs={epochs}", "--ckpt_path=last"]
        outcome = fit(task, *more)
        assert outcome.status == 0, outcome.err
        assert "0.2500" in outcome.out
    folder = tmp_path / "moved/version_0"
    assert steps(folder) == {"best.ckpt": 2, "last.ckpt": 6}
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, first[key]) for key, value in best.items())
    assert runs_in(tmp_path / "moved") == ["version_0"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--checkpoint.monitor=MONITORS"], "Did you mean 'val/"),
        (["--checkpoint.monitor=val/los"], "Unknown score 'val/los'"),
        (["--checkpoint.filename={epoch}-{MONITORS:.2f}"], "Unknown score 'MONITORS'"),
        (["--checkpoint.monitor=learning_rate"], "Unknown score 'learning_rate'"),
        (["--checkpoint.mode=min"], "of which higher is better"),
        (["--checkpoint.monitor=train/loss"], "of which lower is better"),
        (
            ["--trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: MONITORS, mode: max}}]"],
            "monitor of EarlyStopping",
        ),
        (
            ["--trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: MONITOR}}]"],
            "EarlyStopping is MONITOR, of which higher is better",
        ),
        (
            ["--trainer.callbacks=[{class_path: ModelCheckpoint, init_args: {monitor: MONITOR}}]"],
            "ModelCheckpoint is MONITOR, of which higher is better",
        ),
        (
            [
                "--trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: MONITOR, mode: max}}]",
                "--trainer.limit_val_batches=0",
            ],
            "means no validation",
        ),
        (["--checkpoint.every_n_train_steps=1"], "saves between validations"),
    ],
)
def test_a_score_that_cannot_come_is_said_before_anything_is_done(run, tmp_path, typed, said):
    refused(run, "segmentation", tmp_path, typed, said)


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_and_so_in_the_other_tasks(run, task, tmp_path):
    refused(run, task, tmp_path, ["--checkpoint.monitor=MONITORS"], "Did you mean 'val/")
    refused(run, task, tmp_path, ["--checkpoint.mode=min"], "of which higher is better")


def refused(run, task: str, tmp_path: Path, typed: list[str], said: str) -> None:
    monitor = TASKS[task].monitor
    words = [word.replace("MONITOR", monitor) for word in typed]
    outcome = run("fit", *options(task, tmp_path), *words)
    assert outcome.status == 2, outcome.out
    assert said.replace("MONITOR", monitor) in outcome.err
    assert len([line for line in outcome.err.splitlines() if "error" in line]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_score_of_training_that_does_not_come_is_said_after_a_batch(fit, task, tmp_path):
    outcome = fit(task, "--checkpoint.monitor=train/acc", "--checkpoint.mode=min")
    assert outcome.status == 2
    assert "Unknown score 'train/acc'" in outcome.err
    assert "train/loss" in outcome.err


@pytest.mark.parametrize("task", THE_OTHERS_SLOW)
def test_scores_of_training_and_of_code_of_ones_own(fit, task, tmp_path):
    own = [
        *("{class_path: EarlyStopping, init_args: {monitor: train/loss_epoch}}", "ModelCheckpoint"),
        f"{__name__}.Logs",
    ]
    outcome = fit(task, "--checkpoint.monitor=mine/score", f"--trainer.callbacks=[{', '.join(own)}]")
    assert outcome.status == 0, outcome.err
    found = steps(tmp_path / "lightning_logs/version_0")
    assert found == {"best.ckpt": 2, "last.ckpt": 2, "epoch=0-step=2.ckpt": 2}


class Logs(Callback):
    """A callback of a user's, which logs what no task knows."""

    def on_train_epoch_end(self, trainer, pl_module):
        self.log("mine/score", 0.5)


def test_the_newest_run_is_meant_and_not_the_newest_file(run, fit, drawn, tmp_path, monkeypatch):
    assert fit("classification").status == 0
    step = ClassificationTask.training_step

    def stop(self: ClassificationTask, batch: dict[str, object], batch_idx: int) -> torch.Tensor:
        if batch_idx:
            raise ValueError("as if it were killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "training_step", stop)
        with pytest.raises(ValueError, match="killed"):
            fit("classification", "--model.optimizer.lr=0.5")
    logs = tmp_path / "lightning_logs"
    assert runs_in(logs) == ["version_0", "version_1"]
    copied = tmp_path / "copied"
    for version in ("version_1", "version_0"):
        shutil.copytree(logs / version, copied / version, copy_function=shutil.copyfile)
    for folder, place in ((logs, []), (copied, ["--trainer.logger.save_dir=copied"])):
        name = folder.name
        for command, wanted in (("fit", "last"), ("test", "best"), ("validate", "last"), ("predict", "best")):
            words = options("classification", drawn) if command == "fit" else QUIET
            outcome = run(command, *words, *place, f"--ckpt_path={wanted}")
            assert outcome.status == 2, outcome.out
            assert f"newest run, {name}/version_1, has no checkpoints/{wanted}.ckpt" in outcome.err
            assert f"--ckpt_path {name}/version_0/checkpoints/{wanted}.ckpt" in outcome.err
    # What the message names is taken.
    file = "--ckpt_path=lightning_logs/version_0/checkpoints/best.ckpt"
    outcome = run("test", *QUIET, file)
    assert outcome.status == 0, outcome.err


def test_without_a_logger(run, fit, drawn, tmp_path):
    assert fit("classification").status == 0
    none = ["--trainer.logger=false", "--trainer.default_root_dir=own"]
    outcome = fit("classification", *none, "--ckpt_path=last")
    assert outcome.status == 2
    assert f"no checkpoints/last.ckpt in {tmp_path / 'own'}" in outcome.err
    assert fit("classification", *none).status == 0
    outcome = fit("classification", *none, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert outcome.status == 0, outcome.err
    assert steps(tmp_path / "own")["last.ckpt"] == 4
    assert runs_in(tmp_path / "lightning_logs") == ["version_0"]
    outcome = run("test", *QUIET, *none, "--ckpt_path=last")
    assert outcome.status == 0, outcome.err
    assert runs_in(tmp_path / "own") == ["checkpoints"]
    outcome = fit("classification", *none, "--trainer.logger.save_dir=own", "--ckpt_path=last")
    assert outcome.status == 2
    assert "--trainer.logger is false" in outcome.err


BOARD = "{class_path: TensorBoardLogger, init_args: {save_dir: tb, name: ''}}"
TABLE = "{class_path: CSVLogger, init_args: {save_dir: PLACE, name: ''}}"


@pytest.mark.parametrize(
    ("first", "place"),
    [
        ("board", "csv"),
        ("table", "tb"),
        pytest.param("board", "tb", marks=pytest.mark.slow),
        pytest.param("table", "csv", marks=pytest.mark.slow),
    ],
)
def test_all_loggers_go_on_in_their_folders(fit, scores, tmp_path, place, first):
    scores("segmentation", 0.25, 0.1875)
    (tmp_path / "csv/version_3").mkdir(parents=True)
    loggers = [BOARD, TABLE.replace("PLACE", place)]
    typed = f"--trainer.logger=[{', '.join(loggers if first == 'board' else loggers[::-1])}]"
    assert fit("segmentation", typed).status == 0
    before = {folder: runs_in(tmp_path / folder) for folder in ("tb", "csv")}
    assert before == {"tb": ["version_0"], "csv": ["version_3", *(["version_4"] if place == "csv" else [])]}
    outcome = fit("segmentation", typed, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert outcome.status == 0, outcome.err
    assert "0.2500" in outcome.out
    assert {folder: runs_in(tmp_path / folder) for folder in ("tb", "csv")} == before
    (metrics,) = tmp_path.glob(f"{place}/*/metrics.csv")
    column = metrics.read_text().splitlines()[0].split(",").index("epoch")
    epochs = {line.split(",")[column] for line in metrics.read_text().splitlines()[1:]}
    assert epochs == {"0", "1"}
    # The YAML of the resumed run starts another run, not one in this folder.
    (saved,) = tmp_path.glob("*/*/config_2.yaml")
    for logger in yaml.safe_load(saved.read_text())["trainer"]["logger"]:
        assert logger["init_args"]["version"] is None


@pytest.mark.parametrize("task", THE_OTHERS_SLOW)
def test_weights_alone_are_tested_and_not_resumed(run, fit, drawn, task, tmp_path):
    assert fit(task, "--checkpoint.save_weights_only=true").status == 0
    outcome = run("test", *QUIET, "--ckpt_path=best")
    assert outcome.status == 0, outcome.err
    outcome = fit(task, "--ckpt_path=best")
    assert outcome.status == 2
    assert "holds weights only" in outcome.err
    outcome = fit(task, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert outcome.status == 0, outcome.err


def test_a_run_with_averaged_weights_at_its_end_is_resumed(fit, tmp_path):
    """StochasticWeightAveraging puts a schedule of its own in the task's place."""
    own = "{class_path: StochasticWeightAveraging, init_args: {swa_lrs: 0.01, swa_epoch_start: 1}}"
    more = [f"--trainer.callbacks=[{own}]"]
    assert fit("classification", *more, "--trainer.max_epochs=2").status == 0
    outcome = fit("classification", *more, "--trainer.max_epochs=4", "--ckpt_path=last")
    assert outcome.status == 0, outcome.err
