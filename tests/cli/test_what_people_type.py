"""Commands as people type them first: bare ones, names of other tools, modules of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from attnlab.cli.shorthand import OTHER_NAMES, with_proper_names
from attnlab.cli.trainer import AttnlabCLI
from attnlab.run_length import DEFAULT_EPOCHS
from tests.cli.conftest import checkpoint, write_class_folders

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lengths(monkeypatch) -> list[tuple[int | None, int]]:
    """What fit was told, instead of training."""
    found: list[tuple[int | None, int]] = []

    def fit(cli: AttnlabCLI, *_: object, **__: object) -> None:
        found.append((cli.trainer.max_epochs, cli.trainer.max_steps))

    monkeypatch.setattr(AttnlabCLI, "fit", fit)
    return found


class TestBare:
    @pytest.mark.parametrize(
        ("command", "task"),
        [
            ("test", "classification"),
            ("validate", "detection"),
            ("predict", "segmentation"),
            ("test", "segmentation"),
        ],
    )
    def test_no_scores_of_a_random_network(self, run, command, task, tmp_path):
        outcome = run(command, f"--task={task}", "--trainer.accelerator=cpu")
        assert outcome.status == 2
        assert "--ckpt_path best" in outcome.err
        assert "--random_weights true" in outcome.err
        assert list(tmp_path.iterdir()) == []

    def test_imagenet_weights_are_no_trained_segmenter(self, run):
        assert "outside its backbone" in run("test", "--model.weights=imagenet").err

    @pytest.mark.parametrize(("classes", "status"), [(3, 0), (7, 2)])
    def test_weights_must_reach_the_head(self, run, tmp_path, classes, status):
        """A file of a network for other classes leaves the classifier random."""
        from attnlab.models import build_classifier

        write_class_folders(tmp_path / "pictures", classes=3, train=1, val=2)
        torch.save(
            build_classifier("timm/test_resnet", classes).network.state_dict(), tmp_path / "weights.pth"
        )
        outcome = run(
            "test",
            *("--task=classification", "--model.network=timm/test_resnet", "--model.weights=weights.pth"),
            *("--data=ImageFolderDataModule", "--data.root=pictures", "--data.crop_size=32"),
            *("--data.num_workers=0", "--trainer.accelerator=cpu"),
        )
        assert outcome.status == status, outcome.err
        assert ("leaves 2 tensors of the network random" in outcome.err) == bool(status)

    def test_unless_that_is_meant(self, run, small, tmp_path):
        outcome = run("test", *small, "--random_weights=true")
        assert outcome.status == 0, outcome.err
        assert "test mIoU" in outcome.out
        assert not (tmp_path / "lightning_logs").exists()

    def test_fit_has_a_length(self, run, lengths):
        outcome = run("fit", "--trainer.accelerator=cpu")
        assert outcome.status == 0, outcome.err
        assert lengths == [(DEFAULT_EPOCHS, -1)]

    @pytest.mark.parametrize(
        ("given", "length"),
        [
            ("--trainer.max_steps=7", (None, 7)),
            ("--trainer.max_epochs=3", (3, -1)),
            ("--trainer.max_time=00:00:10:00", (None, -1)),
        ],
    )
    def test_a_length_of_ones_own_stays(self, run, lengths, given, length):
        assert run("fit", given, "--model.schedule=constant", "--trainer.accelerator=cpu").status == 0
        # Lightning writes -1 for an end that the clock decides.
        assert lengths in ([length], [(-1, length[1])])


class TestOtherNames:
    TYPED = (
        ("--epochs=3", "trainer.max_epochs", 3),
        ("--lr=0.5", "model.optimizer.lr", 0.5),
        ("--batch-size=5", "data.init_args.batch_size", 5),
        ("--trainer.gpus=1", "trainer.devices", 1),
        ("--seed=4", "seed_everything", 4),
        ("--attention.mode=rezero", "model.attention.mode", "rezero"),
        ("--attention=ela_s", "model.attention.name", "ela_s"),
        ("--optimizer=SGD", "model.optimizer.name", "SGD"),
        ("--trainer.log-every-n-steps=7", "trainer.log_every_n_steps", 7),
    )

    def test_get_the_option_that_is_meant(self, run, small, lengths, monkeypatch):
        seen = []
        monkeypatch.setattr(
            AttnlabCLI, "before_instantiate_classes", lambda self: seen.append(self.config.fit)
        )
        outcome = run("fit", *small, *(typed for typed, _, _ in self.TYPED))
        assert outcome.status == 0, outcome.err
        for _, key, value in self.TYPED:
            assert str(seen[0].get(key.replace("model.", "model.init_args."))) == str(value)

    @pytest.mark.parametrize("flag", ["--batch_size", "--data.init_args.batch_size", "--data.batch_size"])
    def test_of_the_data(self, flag):
        meant = "--data.batch_size" if flag == "--batch_size" else flag
        assert with_proper_names([flag, "3"])[0] == [meant, "3"]

    def test_each_leads_to_an_option_that_there_is(self, run):
        pages = run("fit", "--help").out + run("predict", "--help").out
        pages += run("fit", "--task=classification", "--help").out
        # Options of a block that depends on its name are no flags of the parser.
        flags = {option for option in OTHER_NAMES.values() if option != "model.optimizer.momentum"}
        assert [option for option in sorted(flags) if f"--{option}" not in pages] == []

    def test_a_value_is_left_alone(self):
        argv = ["fit", "--data.class_names=[a-b]", "--data.root", "--my-folder", "-c", "a-b.yaml"]
        assert with_proper_names(argv)[0] == [*argv[:3], "--my_folder", *argv[4:]]
        assert with_proper_names(['--config={"a-b": 1}'])[0] == ['--config={"a-b": 1}']


class TestFlags:
    @pytest.mark.parametrize(
        ("typed", "near"),
        [
            ("--model.freeze_backbone", "--model.freeze_backbone_bn"),
            ("--trainer.max_ep", "--trainer.max_epochs"),
            ("--data.batch", "batch_size"),
            ("--pictures.coun", "--pictures.count"),
        ],
    )
    def test_no_abbreviation_is_taken(self, run, small, typed, near):
        outcome = run("fit", *small, f"{typed}=1")
        assert outcome.status == 2
        assert near in outcome.err

    @pytest.mark.parametrize(
        "command", [["attention", "list", "--roun", "1"], ["profile", "x", "--siz", "9"]]
    )
    def test_nor_by_the_other_commands(self, run, command):
        assert run(*command).status == 2


class TestHelp:
    def test_it_starts_with_what_people_change(self, run):
        for task, own in (("segmentation", "--model.encoder"), ("detection", "--model.network")):
            page = run("fit", f"--task={task}", "--help").out
            first = page.split("\n\n")[1]
            lines = first.splitlines()
            assert lines[0] == "what people change most:"
            assert len(lines) - 1 == 10
            assert own in first
            for flag in ("--model.attention ", "--trainer.max_epochs", "--data.batch_size", "--ckpt_path"):
                assert flag in first
            assert "1000" not in page[page.rindex("--trainer.max_epochs") :][:400]

    @pytest.mark.parametrize(
        ("block", "has", "has_not"),
        [
            ("model", "--model.attention.mode", "--trainer.devices"),
            ("model.attention", "--model.attention.mode", "--model.encoder"),
            ("trainer", "--trainer.devices", "--model.encoder"),
            ("data", "--data.crop_size", "--model.encoder"),
            ("attention", "--model.attention.mode", "--trainer.devices"),
        ],
    )
    def test_of_one_block(self, run, block, has, has_not):
        outcome = run("fit", f"--{block}.help")
        assert outcome.status == 0, outcome.err
        assert has in outcome.out
        assert has_not not in outcome.out

    def test_of_a_block_that_there_is_not(self, run):
        outcome = run("fit", "--models.help")
        assert outcome.status == 2
        assert "Did you mean 'model'" in outcome.err

    def test_a_reader_that_has_seen_enough(self, tmp_path):
        command = f"{sys.executable} {ROOT / 'main.py'} --help | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr


OWN = '''
from torch import nn
from attnlab.data import VOCSegmentationDataModule

class Halve(nn.Module):
    """Half of what comes in.

    Args:
        channels: Channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x):
        return x / 2

class Mine(VOCSegmentationDataModule):
    """My data."""
'''


class TestOnesOwnModules:
    """Found from one's own working folder, in every command."""

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "my_own_blocks.py").write_text(OWN)
        before = list(sys.path)
        yield tmp_path
        sys.path[:] = before
        sys.modules.pop("my_own_blocks", None)

    def test_in_training_and_when_the_checkpoint_is_loaded(self, run, small, folder):
        own = [option for option in small if not option.startswith(("--data=", "--model.attention="))]
        flags = ["--data=my_own_blocks.Mine", "--model.attention=my_own_blocks.Halve"]
        outcome = run("fit", *flags, *own)
        assert outcome.status == 0, outcome.err
        config = yaml.safe_load((folder / "lightning_logs/version_0/config.yaml").read_text())
        assert config["data"]["class_path"] == "my_own_blocks.Mine"
        # As a fresh process finds it: nothing is imported yet.
        sys.modules.pop("my_own_blocks")
        trusted = ("--trust_checkpoint", "true")
        assert "test --ckpt_path {} {} {}".format(
            checkpoint(folder, "best").relative_to(folder), *trusted
        ) in (outcome.out)
        outcome = run("test", "--ckpt_path=best", *trusted, "--trainer.accelerator=cpu")
        assert outcome.status == 0, outcome.err

    @pytest.mark.parametrize("words", [("show", "my_own_blocks.Halve")])
    def test_in_a_fresh_process(self, folder, words):
        # As `python main.py` of another folder starts: the working folder is not on the path.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [sys.executable, str(ROOT / "main.py"), "attention", *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Half of what comes in" in done.stdout
