"""Who wins: flag over recipe over checkpoint, in any order; and what is refused, all through `main`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from attnlab.cli.trainer import AttnlabCLI
from tests.cli.conftest import checkpoint

RECIPE = """
model:
  class_path: SegmentationTask
  init_args:
    encoder: tu-test_resnet
    attention: {name: cbam, at: stage, options: {reduction: 8}}
    optimizer: {lr: 0.5, weight_decay: 0.125}
data:
  class_path: ShapesSegmentationDataModule
  init_args: {root: shapes, batch_size: 5, crop_size: 64}
"""


@pytest.fixture
def parsed(run, monkeypatch, tmp_path) -> Callable[..., Any]:
    """What a command's arguments come to, without building anything of it."""
    found: list[Any] = []

    def stop(cli: AttnlabCLI) -> None:
        found.append(cli.config[cli.subcommand])
        raise SystemExit(0)

    monkeypatch.setattr(AttnlabCLI, "before_instantiate_classes", stop)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def call(*arguments: str) -> Any:
        outcome = run(*arguments)
        assert outcome.status == 0, outcome.err
        return found.pop()

    return call


class TestOrder:
    FLAGS = (
        "--config=recipe.yaml",
        "--model.optimizer.lr=0.25",
        "--data.batch_size=7",
        "--model.encoder=vgg11",
    )

    @pytest.mark.parametrize("turn", range(4))
    def test_a_flag_beats_the_recipe_wherever_it_stands(self, parsed, turn):
        config = parsed("fit", *self.FLAGS[turn:], *self.FLAGS[:turn])
        options = config.model.init_args
        assert (options.optimizer.lr, options.optimizer.weight_decay) == (0.25, 0.125)
        assert (options.encoder, config.data.init_args.batch_size) == ("vgg11", 7)
        assert (options.attention.name, options.attention.options) == ("cbam", {"reduction": 8})

    def test_options_may_come_before_the_class(self, parsed):
        config = parsed(
            "fit", "--model.network=resnet34", "--data.batch_size=3", "--model=ClassificationTask"
        )
        assert config.model.class_path == "attnlab.tasks.ClassificationTask"
        assert config.model.init_args.network == "resnet34"
        assert config.data.init_args.batch_size == 3

    def test_of_two_recipes_the_later_wins(self, parsed, tmp_path):
        (tmp_path / "over.yaml").write_text("model: {init_args: {optimizer: {lr: 0.75}}}")
        options = parsed("fit", "--config=recipe.yaml", "--config=over.yaml").model.init_args
        assert (options.optimizer.lr, options.optimizer.weight_decay, options.encoder) == (
            0.75,
            0.125,
            "tu-test_resnet",
        )

    def test_a_recipe_of_before_tasks_were_classes(self, parsed, tmp_path):
        old = yaml.safe_load(RECIPE)
        old["model"] = old["model"]["init_args"]
        (tmp_path / "old.yaml").write_text(yaml.safe_dump({"task": "segmentation", **old}))
        assert parsed("fit", "--config=old.yaml").as_dict() == parsed("fit", "--config=recipe.yaml").as_dict()

    def test_a_block_in_a_file_of_its_own(self, parsed, tmp_path):
        (tmp_path / "more").mkdir()
        (tmp_path / "more/data.yaml").write_text(yaml.safe_dump(yaml.safe_load(RECIPE)["data"]))
        (tmp_path / "more/all.yaml").write_text("data: data.yaml")
        assert parsed("fit", "--config=more/all.yaml").data.init_args.batch_size == 5
        assert parsed("fit", "--data=more/data.yaml").data.init_args.batch_size == 5


class TestAnother:
    """A name that changes starts from its own defaults, not from another's options."""

    def test_attention(self, parsed, tmp_path):
        given = parsed("fit", "--config=recipe.yaml", "--model.attention=se").model.init_args.attention
        assert (given.name, given.at, given.options) == ("se", "stage", {})
        (tmp_path / "over.yaml").write_text("model: {init_args: {attention: {name: se}}}")
        given = parsed("fit", "--config=recipe.yaml", "--config=over.yaml").model.init_args.attention
        assert (given.name, given.at, given.options) == ("se", "stage", {})

    def test_data_keep_what_both_have_but_no_place(self, parsed, caplog):
        config = parsed("fit", "--config=recipe.yaml", "--data=MaskFolderDataModule")
        options = config.data.init_args
        assert (options.batch_size, options.crop_size, options.root) == (5, 64, "data")
        said = "Ignored, because another class is used: root of ShapesSegmentationDataModule"
        assert said in caplog.text

    def test_over_a_checkpoint(self, run, small, parsed, monkeypatch, tmp_path):
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        flags = ["--model.attention=cbam", "--model.attention.reduction=2", "--model.attention.at=stage"]
        assert run("fit", *small, *flags).status == 0
        found: list[Any] = []

        def stop(cli: AttnlabCLI) -> None:
            found.append(cli.config[cli.subcommand])
            raise SystemExit(0)

        monkeypatch.setattr(AttnlabCLI, "before_instantiate_classes", stop)
        run("test", "--ckpt_path=last")
        run("test", "--ckpt_path=last", "--model.attention=se")
        run("test", "--ckpt_path=last", "--data=MaskFolderDataModule", "--data.root=other")
        same, attention, data = found
        assert same.model.init_args.attention.options == {"reduction": 2}
        assert same.data.init_args.root == str(tmp_path / "voc")
        assert attention.model.init_args.attention.options == {}
        assert (data.data.init_args.root, data.data.init_args.crop_size) == ("other", 64)

    def test_print_config_with_a_checkpoint(self, run, small, tmp_path):
        assert run("fit", *small, "--data.eval_size=40").status == 0
        outcome = run("test", f"--ckpt_path={checkpoint(tmp_path)}", "--data.batch_size=4", "--print_config")
        assert outcome.status == 0, outcome.err
        printed = yaml.safe_load(outcome.out)
        assert printed["data"]["init_args"]["eval_size"] == 40
        assert printed["data"]["init_args"]["batch_size"] == 4
        assert printed["model"]["init_args"]["encoder"] == "tu-test_resnet"


class TestRefused:
    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ("--model.attention.nam=x", "--model.attention.name"),
            ("--model.attention.modes=replace", "--model.attention.mode"),
            ("--model.encode=x", "--model.encoder"),
            ("--model.optimizer.weight_decy=1", "--model.optimizer.weight_decay"),
            ("--data.batch_siz=3", "--data.batch_size"),
            ("--trainer.max_epoch=3", "--trainer.max_epochs"),
            ("--picture.count=3", "--pictures.count"),
            ("--model.attention.mode=replac", "takes replace, residual, rezero, got replac"),
            ("--model.freeze_backbone_epochs=two", "--model.freeze_backbone_epochs takes int, got two"),
            ("--trainer.max_epochs=many", "--trainer.max_epochs takes int, null, got many"),
            ("--model.class_names=[a,b]", "set --data.class_names instead of --model.class_names"),
            ("--model.ignore_index=3", "ignore_index comes from the data"),
        ],
    )
    def test_in_one_line_that_says_what_was_meant(self, run, typed, said):
        outcome = run("fit", typed)
        assert outcome.status == 2
        assert said in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "model: {init_args: {encodr: x}}",
                "no option --model.encodr in a.yaml. Did you mean --model.encoder",
            ),
            ("model: {init_args: {attention: {nme: x}}}", "--model.attention.nme in a.yaml"),
            ("trainer: {max_epoch: 3}", "--trainer.max_epoch in a.yaml. Did you mean --trainer.max_epochs"),
            ("data: {init_args: {rot: 3}}", "--data.rot in a.yaml. Did you mean --data.root"),
            ("data: {init_args: {batch_size: many}}", "--data.batch_size in a.yaml takes int, got many"),
            ("model: {class_path: SegmentationTask, encoder: x}", "not encoder"),
            ("model: [a, b]", "model in a.yaml must be a block of keys, got ['a', 'b']"),
            ("task: segmentation\nmodel: [a]", "model in a.yaml must be a block of keys"),
            ("data: 5", "data in a.yaml must be a block of keys, got 5"),
            ("data: {class_path: [x]}", "class_path of data in a.yaml must be a class's name"),
            ("model: {init_args: 5}", "init_args of model in a.yaml must be a block of keys"),
            ("model: {init_args: {attention: [se]}}", "model.attention in a.yaml must be a block of keys"),
            ("model: {init_args: {schedule: 5}}", "model.schedule in a.yaml must be a block of keys"),
            ("trainer: 5\nckpt_path: last", "trainer in a.yaml must be a block of keys"),
            ("ckpt_path: [a]", "ckpt_path in a.yaml must be last, best or a file"),
            ("pictures: [1]", "pictures in a.yaml must be a block of keys"),
            ("checkpoint: 5", "checkpoint in a.yaml must be a block of keys"),
            ("a: [1", "The recipe 'a.yaml' is not valid YAML"),
        ],
    )
    def test_in_a_recipe(self, run, tmp_path, text, said):
        (tmp_path / "a.yaml").write_text(text)
        outcome = run("fit", "--config=a.yaml")
        assert outcome.status == 2
        assert said in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
