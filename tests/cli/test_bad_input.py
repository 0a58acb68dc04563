"""Every kind of bad input, through the command line: one clear error, before training starts."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.callbacks import AtomicCheckpointIO
from tests.cli.conftest import checkpoint

ROOT = Path(__file__).parents[2]
NAMELESS = "--trainer.logger.name="


@pytest.fixture
def refused(run, small, tmp_path):
    """Run fit with more options; it must stop with one error before it has trained."""

    def call(*more: object, command: str = "fit") -> str:
        outcome = run(command, *small, *more)
        assert outcome.status == 2, outcome.out[-2000:] + outcome.err[-2000:]
        assert "Traceback" not in outcome.err
        assert outcome.err.count("error: ") == 1
        assert not list(tmp_path.rglob("*.ckpt"))
        return outcome.err.partition("error: ")[2]

    return call


@pytest.fixture
def folder(voc: Path) -> Path:
    return voc / "VOCdevkit" / "VOC2012"


class TestData:
    def test_root_missing(self, refused):
        message = refused("--data.root=/no/such/folder")
        assert "/no/such/folder" in message
        assert "--data.download true" in message

    @pytest.mark.parametrize("part", ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"])
    def test_half_extracted(self, refused, folder, part):
        shutil.rmtree(folder / part)
        message = refused()
        assert part in message
        assert "--data.download true" in message

    @pytest.mark.parametrize("part", ["JPEGImages/t3.jpg", "SegmentationClass/v1.png"])
    def test_an_id_without_its_file(self, refused, folder, part):
        (folder / part).unlink()
        assert part in refused()

    def test_a_mask_of_another_size(self, refused, folder):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "SegmentationClass/t2.png")
        message = refused()
        assert "t2.png" in message
        assert "9" in message

    def test_mask_values_that_are_no_class(self, refused, folder):
        path = folder / "SegmentationClass/t1.png"
        pixels = np.array(Image.open(path))
        pixels[0, 0], pixels[0, 1] = 21, 254
        Image.fromarray(pixels).save(path)
        message = refused()
        assert "t1.png" in message
        assert "21" in message
        assert "254" in message

    def test_a_truncated_jpeg_is_named(self, refused, folder):
        path = folder / "JPEGImages/t4.jpg"
        path.write_bytes(path.read_bytes()[:-900])
        message = refused()
        assert "t4.jpg" in message
        assert "--data.on_bad_image skip" in message

    def test_a_truncated_jpeg_is_skipped_on_request(self, run, small, folder):
        path = folder / "JPEGImages/t4.jpg"
        path.write_bytes(path.read_bytes()[:-900])
        with pytest.warns(UserWarning, match="t4.jpg"):
            outcome = run("fit", *small, "--data.on_bad_image=skip")
        assert outcome.status == 0
        line = next(line for line in outcome.out.splitlines() if "bad images skipped" in line)
        assert "1" in line

    @pytest.mark.real_data
    def test_a_real_truncated_jpeg(self, refused, folder):
        broken = ROOT.parent / "shared/data/broken/truncated_2010_006034.jpg"
        if not broken.is_file():
            pytest.skip(f"no real truncated JPEG at {broken}")
        shutil.copy(broken, folder / "JPEGImages/t0.jpg")
        assert "t0.jpg" in refused()

    def test_num_classes_that_contradicts_the_data(self, refused):
        message = refused("--model.num_classes=20")
        assert "20" in message
        assert "2 classes: ground, leaf" in message


class TestNames:
    @pytest.mark.parametrize(
        ("option", "near"),
        [
            ("--model.attention=cbma", "'cbam'"),
            ("--model.encoder=resnet81", "'resnet18'"),
            ("--model.encoder=tu-resnet81", "'resnet18'"),
            ("--model.architecture=DeepLabV4", "'DeepLabV3'"),
            ("--model.attention.kernel_sizes=7", "kernel_size"),
            ("--model.attention.kernel_size=wide", "kernel_size"),
            ("--model.architecture_options.decoder_chanels=8", "'decoder_channels'"),
            ("--model.optimizer=AdmW", "'AdamW'"),
            ("--model.encodr=resnet18", "--model.encoder"),
            ("--model.attention.mode=add", "residual"),
        ],
    )
    def test_unknown(self, refused, option, near):
        assert near in refused(option)

    def test_unknown_command(self, run):
        outcome = run("fitt")
        assert outcome.status == 2
        assert "Did you mean 'fit'" in outcome.err


class TestPlacement:
    def test_nothing_matches(self, refused):
        message = refused("--model.attention.at=*.layer9.*")
        assert "layer9" in message
        assert "stage" in message

    def test_a_named_placement_of_another_family(self, refused):
        assert "mobilenetv2.depthwise" in refused("--model.attention.at=mobilenetv2.depthwise")

    def test_no_feature_map(self, refused):
        message = refused("--model.attention.at=model.encoder")
        assert "'model.encoder'" in message
        assert "feature map" in message

    def test_a_crop_smaller_than_the_stride(self, refused):
        message = refused("--data.crop_size=8")
        assert "--data.crop_size 8" in message
        assert "16" in message


def test_sync_batchnorm_on_a_cpu(refused):
    assert "needs GPUs" in refused("--trainer.sync_batchnorm=true")


class TestCheckpoints:
    @pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
    @pytest.mark.parametrize("which", ["last", "best"])
    def test_none_there(self, refused, command, which, tmp_path):
        more = ["--data.predict_images=x"] if command == "predict" else []
        message = refused(f"--ckpt_path={which}", *more, command=command)
        assert f"'{which}'" in message
        assert str(tmp_path / "lightning_logs") in message

    def test_no_such_file(self, refused):
        assert "No checkpoint at nothing.ckpt" in refused("--ckpt_path=nothing.ckpt")

    def test_truncated(self, run, trained, small, tmp_path):
        trained()
        path = checkpoint(tmp_path)
        path.write_bytes(path.read_bytes()[:-5000])
        outcome = run("test", *small, f"--ckpt_path={path}")
        assert outcome.status == 2
        assert "as a checkpoint" in outcome.err

    def test_something_else(self, run, small, tmp_path):
        torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pth")
        outcome = run("test", *small, "--ckpt_path=weights.pth")
        assert outcome.status == 2
        assert "not an attnlab checkpoint" in outcome.err
        assert "--model.weights" in outcome.err

    @pytest.mark.parametrize(
        ("change", "difference"),
        [
            ("--model.encoder=resnet18", "encoder: 'resnet18' here, 'tu-test_resnet' in the checkpoint"),
            ("--model.attention=eca", "attention.name: 'eca' here, 'ela_t' in the checkpoint"),
            (
                "--model.attention.mode=residual",
                "attention.mode: 'residual' here, 'replace' in the checkpoint",
            ),
            ("--model.architecture_options.decoder_channels=32", "of another shape"),
        ],
    )
    def test_of_another_network(self, run, trained, small, change, difference):
        trained()
        outcome = run("test", *small, "--ckpt_path=last", change)
        assert outcome.status == 2
        assert difference in outcome.err


class TestWriting:
    """A disk that cannot take the checkpoint."""

    @pytest.fixture
    def small(self, small):
        """With a logger that has no thread, which the limits would meet, too."""
        return [*small, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=lightning_logs", NAMELESS]

    @pytest.fixture
    def fails(self, run, small, monkeypatch):
        """What is said where checkpoints are written under limits."""

        def call(limits: AbstractContextManager[None]) -> str:
            save = AtomicCheckpointIO.save_checkpoint

            def limited(*args: object, **kwargs: object) -> None:
                with limits:
                    save(*args, **kwargs)

            with monkeypatch.context() as patched:
                patched.setattr(AtomicCheckpointIO, "save_checkpoint", limited)
                outcome = run("fit", *small, "--trainer.max_epochs=2", "--ckpt_path=last")
            assert outcome.status == 2, outcome.err[-2000:]
            return outcome.err

        return call

    def test_a_full_disk_leaves_the_previous_checkpoint(self, run, trained, small, fails, tmp_path):
        @contextmanager
        def small_files():
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        trained()
        before = checkpoint(tmp_path).read_bytes()
        message = fails(small_files())
        assert "Could not write the checkpoint" in message
        assert "is intact" in message
        assert checkpoint(tmp_path).read_bytes() == before
        assert not list(checkpoint(tmp_path).parent.glob(".*partial"))
        assert run("test", *small, "--ckpt_path=last").status == 0

    def test_a_read_only_folder_leaves_the_previous_checkpoint(self, trained, fails, tmp_path):
        folder = checkpoint(tmp_path).parent

        @contextmanager
        def read_only():
            folder.chmod(0o555)
            # Root may write anywhere, so it gives its rights up meanwhile.
            user = os.geteuid()
            os.seteuid(user or 65534)
            try:
                yield
            finally:
                os.seteuid(user)
                folder.chmod(0o755)

        trained()
        before = checkpoint(tmp_path).read_bytes()
        assert "Could not write the checkpoint" in fails(read_only())
        assert checkpoint(tmp_path).read_bytes() == before

    def test_a_log_folder_that_cannot_be_made(self, run, small, tmp_path):
        (tmp_path / "lightning_logs").write_text("a file where the folder should be")
        outcome = run("fit", *small)
        assert outcome.status == 2
        assert "Cannot write" in outcome.err
        assert "--trainer.logger.init_args.save_dir" in outcome.err


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_a_weights_file_that_is_missing_is_said_before_data_are_made(run, tmp_path, task):
    outcome = run("fit", f"--task={task}", "--model.weights=yolox_nano_coco.pth")
    assert outcome.status == 2
    assert "error: Weights file not found: yolox_nano_coco.pth" in outcome.err
    assert "https://github.com/bubbliiiing/yolox-pytorch/releases/tag/v1.0" in outcome.err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("task", "data", "other"),
    [
        ("segmentation", "ShapesClassificationDataModule", "classification"),
        ("classification", "ShapesDetectionDataModule", "detection"),
        ("detection", "ShapesSegmentationDataModule", "segmentation"),
    ],
)
def test_data_of_another_task_are_refused_before_they_are_looked_at(run, tmp_path, task, data, other):
    outcome = run("fit", f"--task={task}", f"--data={data}", f"--data.root={tmp_path / 'nowhere'}")
    assert outcome.status == 2, outcome.out + outcome.err
    assert f"or the {other} task" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "nowhere").exists()


def test_the_task_is_that_of_the_data_that_are_named(run, tmp_path):
    outcome = run("fit", "--data=ImageFolderDataModule", f"--data.root={tmp_path / 'nowhere'}")
    assert outcome.status == 2
    assert "nowhere" in outcome.err
    assert "--task" not in outcome.err
