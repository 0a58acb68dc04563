"""What a person sees of a run without a terminal, and what tells two runs apart afterwards."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn

from attnlab.models import build_segmenter
from tests.cli.conftest import scalars, write_class_folders

# Runs of seconds on what each task makes itself or finds in class folders.
OF_EACH_TASK = {
    "classification": [
        "--task=classification",
        "--model.network=timm/test_resnet",
        "--data=ImageFolderDataModule",
        "--data.root=pictures",
        "--data.crop_size=32",
    ],
    "detection": [
        "--task=detection",
        "--model.network=yolox_nano",
        "--model.network_options.size=64",
        "--data.root=shapes",
        "--data.num_train=8",
        "--data.num_val=5",
        "--data.image_size=64",
    ],
    "segmentation": [
        "--task=segmentation",
        "--model.architecture=FPN",
        "--model.encoder=tu-test_resnet",
        "--data=ShapesSegmentationDataModule",
        "--data.root=shapes",
        "--data.num_train=8",
        "--data.num_val=5",
        "--data.image_size=64",
        "--data.crop_size=64",
    ],
}
SHORT = [
    "--data.batch_size=4",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--pictures.count=0",
]


@pytest.fixture
def of_task(tmp_path):
    write_class_folders(tmp_path / "pictures", classes=5, train=3, val=2)
    return lambda task: [*OF_EACH_TASK[task], *SHORT]


def hparams_of(run: Path) -> tuple[dict[str, Any], set[str]]:
    """What TensorBoard's tab reads of a run: its options with their values, and its metrics' tags."""
    events = EventAccumulator(str(run))
    events.Reload()
    parts = {}
    for part in ("session_start_info", "experiment"):
        data = events.summary_metadata[f"_hparams_/{part}"].plugin_data.content
        parts[part] = HParamsPluginData.FromString(data)
    options = {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in parts["session_start_info"].session_start_info.hparams.items()
    }
    metrics = {info.name.tag for info in parts["experiment"].experiment.metric_infos}
    assert metrics <= set(events.Tags()["scalars"])
    return options, metrics


class Stop(Callback):
    """Interrupts in the first epoch, after its first step."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: object, batch: object, batch_idx: int
    ) -> None:
        if batch_idx == 1:
            raise KeyboardInterrupt


@pytest.fixture
def seen(small):
    """Options of a run with all that is said, as it is by default."""
    silent = ("--trainer.enable_progress_bar", "--trainer.enable_model_summary")
    return [option for option in small if not option.startswith(silent)]


def test_a_run_without_a_terminal(run, seen, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "60")
    outcome = run("fit", *seen, "--trainer.max_epochs=2", "--pictures.count=1")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    epochs = [line for line in lines if re.match(r"epoch \d/2  step \d/4  loss ", line)]
    assert len(epochs) == 2
    assert "val/mIoU" in epochs[0]
    # The network, counted by hand; and where attention is.
    network = build_segmenter("DeepLabV3Plus", "tu-test_resnet", 2, {"decoder_channels": 16}).network
    plain = sum(parameter.numel() for parameter in network.parameters())
    summary = outcome.out[: outcome.out.index("epoch 1/2")]
    attention = sum(int(n.replace(",", "")) for n in re.findall(r"channels +([\d,]+) parameters", summary))
    assert f"{plain + attention:,d}, {plain + attention:,d} trainable" in summary
    assert f"attention {attention:,d}" in summary
    assert "ela_t (replace) at 4 sites" in summary
    # Nothing that is untrue or not of this run.
    said = outcome.out + outcome.err
    for noise in ("FLOPs", "MeanMetric", "litlogger", "TPU", "Modules in train mode"):
        assert noise not in said
    # Paths whole, each on its line, and then commands that work as they stand.
    end = outcome.out[outcome.out.rindex("┘") + 1 :]
    best = "lightning_logs/version_0/checkpoints/best.ckpt"
    assert f"\nbest checkpoint: {best}\n" in end
    assert "\npictures: lightning_logs/version_0/pictures/val.png\n" in end
    assert f"test --ckpt_path {best}\n" in end
    assert f"predict --ckpt_path {best} --data.predict_images FOLDER\n" in end
    assert end.strip().endswith("tensorboard --logdir lightning_logs/version_0")


@pytest.mark.parametrize(
    "flag", ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
)
def test_each_can_be_silenced(run, seen, flag):
    outcome = run("fit", *seen, flag)
    assert outcome.status == 0, outcome.err
    assert ("epoch 1/1  step" in outcome.out) == ("summary" in flag)
    assert (" trainable" in outcome.out) == ("progress" in flag)


@pytest.mark.parametrize("logger", ["TensorBoardLogger", "CSVLogger"])
def test_hparams_are_there_from_the_start(run, seen, tmp_path, logger):
    flags = [f"--trainer.logger={logger}", "--trainer.logger.save_dir=logs", "--trainer.logger.name="]
    outcome = run("fit", *seen, *flags, f"--trainer.callbacks={__name__}.Stop", "--seed_everything=7")
    assert outcome.status != 0
    assert not list(tmp_path.rglob("*.ckpt"))
    hparams = yaml.safe_load((tmp_path / "logs/version_0/hparams.yaml").read_text())
    assert hparams["seed"] == 7
    assert hparams["data.class"] == "VOCSegmentationDataModule"
    assert hparams["data.batch_size"] == 3
    assert hparams["attention.name"] == "ela_t"
    assert hparams["trainer.max_epochs"] == 1
    assert hparams["version.torchvision"] == version("torchvision")


def test_tensorboard_compares_runs_by_seed_data_and_score(run, seen, tmp_path):
    assert run("fit", *seen, "--seed_everything=3").status == 0
    options, metrics = hparams_of(tmp_path / "lightning_logs/version_0")
    assert {"score/val/mIoU_best", "score/val/mIoU", "val/loss"} <= metrics
    assert options["seed"] == 3
    assert options["data.root"] == str(tmp_path / "voc")
    assert options["data.batch_size"] == 3
    assert options["attention.name"] == "ela_t"
    saved = yaml.safe_load((tmp_path / "lightning_logs/version_0/config.yaml").read_text())
    assert options["optimizer.lr"] == saved["model"]["init_args"]["optimizer"]["lr"]


def test_tensorboard_knows_the_options_of_an_interrupted_run(run, seen, tmp_path):
    assert run("fit", *seen, f"--trainer.callbacks={__name__}.Stop", "--seed_everything=3").status != 0
    options, metrics = hparams_of(tmp_path / "lightning_logs/version_0")
    assert options["seed"] == 3
    assert metrics == {"score/val/mIoU_best"}


def test_a_run_that_goes_on_has_its_score_where_the_interrupted_one_had_none(run, seen, tmp_path):
    """TensorBoard keeps the names of metrics that it reads first."""
    steps = ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=logs", "--trainer.logger.name="]
    named = [*seen, *steps, "--trainer.logger.version=one"]
    assert run("fit", *named, f"--trainer.callbacks={__name__}.Stop").status != 0
    assert run("fit", *named).status == 0
    _, metrics = hparams_of(tmp_path / "logs/one")
    assert "score/val/mIoU_best" in metrics
    events = EventAccumulator(str(tmp_path / "logs/one"))
    events.Reload()
    assert events.Scalars("score/val/mIoU_best")[-1].value == events.Scalars("val/mIoU")[-1].value


def test_tensorboard_as_the_second_logger_and_without_checkpoints(run, of_task, tmp_path):
    loggers = tmp_path / "loggers.yaml"
    logger = {"init_args": {"save_dir": "logs", "name": "", "version": "one"}}
    loggers.write_text(
        yaml.safe_dump(
            {"trainer": {"logger": [{"class_path": c, **logger} for c in ("CSVLogger", "TensorBoardLogger")]}}
        )
    )
    outcome = run(
        "fit", *of_task("classification"), f"--config={loggers}", "--trainer.enable_checkpointing=false"
    )
    assert outcome.status == 0, outcome.err
    options, metrics = hparams_of(tmp_path / "logs/one")
    assert options["task"] == "classification"
    assert "score/val/top1" in metrics
    events = EventAccumulator(str(tmp_path / "logs/one"))
    events.Reload()
    assert {"cost.macs", "cost.parameters"} <= options.keys()
    assert "cost/text_summary" in events.Tags()["tensors"]
    # The file is that of both loggers, and each has added to it what it was given.
    assert yaml.safe_load((tmp_path / "logs/one/hparams.yaml").read_text())["cost.macs"] > 0
    # Sections stand in alphabetical order, and TensorBoard opens the first two.
    sections = list(dict.fromkeys(tag.partition("/")[0] for tag in sorted(events.Tags()["scalars"])))
    assert sections[:2] == ["score", "train"]


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("classification", {"best val/top1": "val/top1", "val top-1": "val/top1", "val top-5": "val/top5"}),
        ("detection", {"best val/AP": "val/AP", "val AP": "val/AP", "val AP50, AP75": "val/AP50"}),
        ("segmentation", {"best val/mIoU": "val/mIoU", "val mIoU": "val/mIoU"}),
    ],
)
def test_the_table_that_ends_a_run_has_the_scores_and_the_cost(run, of_task, tmp_path, task, rows):
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    outcome = run("fit", *of_task(task), *logger, "--model.attention=se")
    assert outcome.status == 0, outcome.err
    figures = scalars(tmp_path / "logs")
    (hparams,) = (tmp_path / "logs").rglob("hparams.yaml")
    figures |= yaml.safe_load(hparams.read_text())
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in outcome.out[outcome.out.rindex("┏") :].splitlines()
        if line.startswith("│")
    ]
    table = dict(cells)
    for row, metric in rows.items():
        assert table[row].startswith(f"{figures[metric]:.4f}"), row
    assert table["parameters"] == f"{figures['cost.parameters'] / 1e6:.3f} M"
    (macs,) = (value for what, value in table.items() if what.startswith("MACs at"))
    assert macs == f"{figures['cost.macs'] / 1e9:.3f} G"
    assert table["attention's parameters"].startswith(f"{figures['cost.attention_parameters'] / 1e3:.1f} k")
    assert re.fullmatch(r"se at \d+ sites", table["attention"])


def test_the_summary_without_attention_counts_every_convolution(run, of_task):
    outcome = run("fit", *of_task("classification"), "--model.attention=none")
    assert outcome.status == 0, outcome.err
    network = timm.create_model("test_resnet", num_classes=5).eval()
    macs = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs
        # Each output is a sum over the weights of its channel.
        macs += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, 32, 32))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    lines = [re.split(r"  +", line, maxsplit=1) for line in outcome.out.splitlines()]
    summary = {line[0]: line[1] for line in lines if len(line) == 2}
    assert summary["parameters"] == f"{parameters:,d}, {parameters:,d} trainable"
    assert summary["MACs at 32x32"].startswith(f"{macs / 1e9:.3f} G, attention 0.0 M (0.00%)")
    assert summary["attention"] == "none"


def test_the_summary_of_many_sites_ends_with_their_number(run, of_task):
    flags = ["--model.network=resnet50", "--model.attention=eca", "--data.batch_size=15"]
    outcome = run("fit", *of_task("classification"), *flags)
    assert outcome.status == 0, outcome.err
    assert "eca (replace) at 16 sites" in outcome.out
    assert len(re.findall(r"^  \S+ +\d+ channels", outcome.out, re.MULTILINE)) == 12
    assert "\n  … and 4 more\n" in outcome.out


def test_the_summary_counts_a_shared_module_once(run, of_task):
    outcome = run("fit", *of_task("detection"), "--model.attention=ela_b", "--model.attention.shared=true")
    assert outcome.status == 0, outcome.err
    summary = outcome.out[: outcome.out.index("epoch 1/1")]
    counts = [int(n.replace(",", "")) for n in re.findall(r"channels +([\d,]+) parameters", summary)]
    assert counts.count(0) > 0
    assert f"attention {sum(counts):,d}\n" in summary
