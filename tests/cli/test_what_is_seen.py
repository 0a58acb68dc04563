"""What a person sees of a run without a terminal, and what tells two runs apart afterwards."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
import yaml
from lightning.pytorch import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attnlab.models import build_segmenter


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
    network = build_segmenter("DeepLabV3Plus", "tu-test_resnet", 2, {"decoder_channels": 16})
    plain = sum(parameter.numel() for parameter in network.parameters())
    summary = outcome.out[: outcome.out.index("epoch 1/2")]
    attention = sum(int(n.replace(",", "")) for n in re.findall(r"channels +([\d,]+) parameters", summary))
    assert f"{plain + attention:,d}, of which {plain + attention:,d} are trained" in summary
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
    assert ("of which" in outcome.out) == ("progress" in flag)


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
    assert run("fit", *seen).status == 0
    events = EventAccumulator(str(tmp_path / "lightning_logs/version_0"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"hparams/val/mIoU", "hparams/last/val/mIoU"} <= tags
    plugins = events.summary_metadata
    content = str(plugins["_hparams_/session_start_info"].plugin_data.content)
    for name in ("seed", "data.root", "attention.name"):
        assert name in content
