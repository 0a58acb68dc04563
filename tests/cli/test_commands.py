"""fit, validate, test, predict and their checkpoints, through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.checkpoints import OF_DATA
from attnlab.tasks import BaseTask, SegmentationTask
from tests.cli.conftest import checkpoint, csv_logger, scalars, weights_of


class TestHelp:
    def test_front_page(self, run):
        outcome = run("--help")
        assert outcome.status == 0
        for command in ("fit", "validate", "test", "predict", "attention list", "attention show"):
            assert command in outcome.out

    def test_every_option_has_a_type_and_a_meaning(self, run):
        outcome = run("fit", "--help")
        assert outcome.status == 0
        # The last occurrence of a flag is its entry; what follows up to the next flag is its help.
        for flag in (
            "--model.encoder ",
            "--model.attention.name",
            "--model.schedule.power",
            "--pictures.count",
        ):
            entry = outcome.out[outcome.out.rindex(flag) :].split("\n  --", 1)[0]
            assert "type: " in entry
            assert len(entry.split()) > 8
        # The data modules' options, too, though which of them apply depends on the class that is chosen.
        for flag in ("--data.train_split", "--data.num_train"):
            assert flag in outcome.out

    @pytest.mark.parametrize("task", ["segmentation", "classification"])
    def test_it_is_a_page_that_can_be_read(self, run, task):
        """Not one with all of torch.nn at every option that takes a module."""
        page = run("fit", f"--task={task}", "--help").out
        assert "torch.nn.Softmin" not in page
        assert "--data.augment" in page or task == "segmentation"
        assert page.count("\n") < 1000

    @pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
    def test_each_command_has_help(self, run, command):
        assert "--ckpt_path" in run(command, "--help").out


class TestOneRun:
    """Train, resume, validate, test and predict, each from what the step before left."""

    def test_the_whole_way(self, run, small, tmp_path):
        outcome = run("fit", *small)
        assert outcome.status == 0, outcome.err
        assert "best val/mIoU" in outcome.out
        assert "lightning_logs/version_0/checkpoints/best.ckpt" in outcome.out
        assert "lightning_logs/version_0/pictures" in outcome.out
        assert (tmp_path / "lightning_logs/version_0/pictures/val.png").is_file()

        outcome = run("fit", *small, "--ckpt_path=last", "--trainer.max_epochs=2")
        assert outcome.status == 0, outcome.err
        assert not (tmp_path / "lightning_logs/version_1").exists()
        assert torch.load(checkpoint(tmp_path), weights_only=True)["epoch"] == 1

        # From here on the checkpoint alone knows network, attention and data.
        common = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        assert run("validate", "--ckpt_path=best", *common).status == 0
        outcome = run("test", "--ckpt_path=best", *common)
        assert outcome.status == 0, outcome.err
        assert "test mIoU" in outcome.out
        assert "ela_t at" in outcome.out

        pictures = tmp_path / "photos"
        pictures.mkdir()
        Image.fromarray(np.zeros((40, 61, 3), np.uint8)).save(pictures / "a.jpg")
        Image.fromarray(np.zeros((33, 20, 4), np.uint8), "RGBA").save(pictures / "b.png")
        (pictures / "more").mkdir()
        Image.fromarray(np.zeros((25, 25), np.uint8)).convert("1").save(pictures / "more/a.png")
        outcome = run(
            "predict",
            "--ckpt_path=last",
            *common,
            f"--data.predict_images={pictures}",
            "--predictions.output_dir=out",
        )
        assert outcome.status == 0, outcome.err
        masks = [p for p in (tmp_path / "out").glob("*.png") if "overlay" not in p.name]
        sizes = {path.name: Image.open(path).size for path in masks}
        assert sizes == {"a.png": (61, 40), "b.png": (20, 33), "a_2.png": (25, 25)}
        mask = Image.open(tmp_path / "out/a.png")
        assert mask.mode == "P"
        assert np.array(mask).max() < 21
        assert (tmp_path / "out/b_overlay.png").is_file()

    def test_a_checkpoint_is_plain_and_loads_in_python(self, run, small, tmp_path):
        assert run("fit", *small, "--data.train_transforms=null").status == 0
        content = torch.load(checkpoint(tmp_path), weights_only=True)
        assert content[OF_DATA]["_class_path"].endswith("VOCSegmentationDataModule")
        for cls in (SegmentationTask, BaseTask):
            task = cls.load_from_checkpoint(checkpoint(tmp_path), weights_only=True)
            assert type(task) is SegmentationTask
            assert task.attention.name == "ela_t"
            weights = task.state_dict()
            assert all(torch.equal(value, weights[key]) for key, value in content["state_dict"].items())


def test_predict_needs_no_data_set(run, small, voc, tmp_path):
    """A checkpoint trained elsewhere: its data set is not here, and is neither looked for nor fetched."""
    assert run("fit", *small, "--data.download=true").status == 0
    voc.rename(tmp_path / "gone")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    given = ["--ckpt_path=last", "--data.predict_images=photo.png", "--trainer.accelerator=cpu"]
    outcome = run("predict", *given)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "predictions/photo.png").is_file()


def test_an_interruption_says_how_to_go_on(run, small, monkeypatch):
    def stop(task: SegmentationTask) -> None:
        if task.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(SegmentationTask, "on_train_epoch_start", stop)
    assert "with --ckpt_path last" in run("fit", *small, "--trainer.max_epochs=2").out


class TestPrecedence:
    """An explicit flag beats the YAML; the YAML beats what the checkpoint remembers."""

    @pytest.fixture
    def trained(self, trained):
        trained("--model.loss.dice=0.25", "--data.eval_size=40")

    def remembered(self, run, tmp_path, *more: str) -> float:
        """Learning rate of the head after one more epoch."""
        assert run("fit", "--ckpt_path=last", "--trainer.max_epochs=2", *more).status == 0
        content = torch.load(checkpoint(tmp_path), weights_only=True)
        return content["hyper_parameters"]["optimizer"]["lr"]

    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")

    def test_the_checkpoint_fills_in(self, run, trained, tmp_path):
        assert self.remembered(run, tmp_path, *self.quiet) == 1e-3
        content = torch.load(checkpoint(tmp_path), weights_only=True)
        assert content["hyper_parameters"]["loss"]["dice"] == 0.25
        assert content[OF_DATA]["eval_size"] == 40

    def test_the_yaml_beats_the_checkpoint(self, run, trained, tmp_path):
        (tmp_path / "a.yaml").write_text("model: {optimizer: {lr: 0.5}}")
        assert self.remembered(run, tmp_path, *self.quiet, "--config=a.yaml") == 0.5

    def test_a_flag_beats_both_and_reaches_the_optimizer(self, run, trained, tmp_path):
        (tmp_path / "a.yaml").write_text("model: {optimizer: {lr: 0.5}}")
        flags = ["--config=a.yaml", "--model.optimizer.lr=0.25", "--model.schedule=constant"]
        assert self.remembered(run, tmp_path, *self.quiet, *flags) == 0.25
        content = torch.load(checkpoint(tmp_path), weights_only=True)
        assert [group["lr"] for group in content["optimizer_states"][0]["param_groups"]] == [0.25] * 3


class TestReproducibility:
    """Bit for bit, on a CPU."""

    def test_a_seed_makes_two_runs_alike(self, run, trained, small, tmp_path):
        trained()
        for version, more in enumerate([["--data.num_workers=2"], ["--seed_everything=1"]], 1):
            assert run("fit", *small, *more).status == 0
            assert checkpoint(tmp_path, version=version).is_file()
        first, second, other = (weights_of(checkpoint(tmp_path, version=v)) for v in range(3))
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert not all(torch.equal(first[key], other[key]) for key in first)


class TestScores:
    def test_do_not_depend_on_the_batch_size(self, run, trained, small):
        trained()
        for size in (1, 2, 5):
            more = [f"--data.eval_batch_size={size}", *csv_logger(f"b{size}")]
            assert (
                run(
                    "test", *small, *more, "--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt"
                ).status
                == 0
            )
        found = [scalars(Path(f"logs/b{size}")) for size in (1, 2, 5)]
        for values in found[1:]:
            assert {k: v for k, v in values.items() if "loss" not in k} == {
                k: v for k, v in found[0].items() if "loss" not in k
            }

    def test_are_taken_at_full_size_whatever_the_network_saw(self, run, trained, small):
        """A network that sees images shrunk to 24 pixels is still scored on every pixel of the masks."""
        trained()
        for size in ("null", "24"):
            last = "lightning_logs/version_0/checkpoints/last.ckpt"
            more = [f"--data.eval_size={size}", f"--ckpt_path={last}", *csv_logger(f"s{size}")]
            outcome = run("test", *small, *more)
            assert outcome.status == 0, outcome.err
        assert {v["test/pixel_accuracy"] for v in (scalars(Path("logs/snull")), scalars(Path("logs/s24")))}


def test_accumulated_batches_draw_different_dropout(run, small, monkeypatch):
    drawn = []
    step = SegmentationTask.training_step

    def record(task: SegmentationTask, batch: dict, batch_idx: int) -> torch.Tensor:
        drawn.append(torch.get_rng_state())
        return step(task, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", record)
    more = ["--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=2"]
    assert run("fit", *small, *more).status == 0
    assert len(drawn) == 4
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_the_closing_table_names_what_was_monitored_and_nothing_of_the_sanity_check(run, small):
    more = ["--checkpoint.monitor=val/loss", "--checkpoint.mode=min"]
    assert "best val/loss" in run("fit", *small, *more).out
    out = run("fit", *small, "--trainer.max_steps=1", "--checkpoint.monitor=null").out
    assert "fit: SegmentationTask" in out
    assert "mIoU" not in out


def test_attention_none_is_a_plain_network(run, small, tmp_path):
    assert run("fit", *small, "--model.attention=none").status == 0
    assert not any("attention" in key for key in weights_of(checkpoint(tmp_path)))


def test_pretrained_file_and_frozen_statistics(run, small, tmp_path):
    from attnlab.models import build_segmenter

    encoder = build_segmenter("DeepLabV3Plus", "tu-test_resnet", 21).network.encoder
    torch.save(encoder.state_dict(), tmp_path / "backbone.pth")
    options = [
        "--model.weights=backbone.pth",
        "--model.freeze_backbone_bn=true",
        "--model.attention.mode=rezero",
    ]
    assert run("fit", *small, *options).status == 0
    after = weights_of(checkpoint(tmp_path))
    for key, value in encoder.state_dict().items():
        if "running" in key:
            assert torch.equal(after[f"network.model.encoder.{key}"], value), key
    changed = [
        k for k, v in encoder.state_dict().items() if not torch.equal(after[f"network.model.encoder.{k}"], v)
    ]
    assert changed
    # The checkpoint has taken the file's place.
    (tmp_path / "backbone.pth").unlink()
    assert run("test", *small, *options, "--ckpt_path=last").status == 0
    assert run("fit", *small, *options, "--ckpt_path=last", "--trainer.max_epochs=2").status == 0


def test_imagenet_weights_that_cannot_be_fetched(run, small, monkeypatch):
    import huggingface_hub.errors
    import segmentation_models_pytorch as smp

    def offline(*args: object, **kwargs: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("the hub cannot be reached")

    monkeypatch.setattr(smp.encoders, "get_encoder", offline)
    outcome = run("fit", *small, "--model.weights=imagenet")
    assert outcome.status == 2
    assert "the hub cannot be reached" in outcome.err
    assert "--model.weights FILE" in outcome.err
