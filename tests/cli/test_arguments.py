"""What was typed: flags, recipes and checkpoints, read without any library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnlab.cli.arguments import Arguments
from attnlab.errors import AttnlabError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*words: str) -> Arguments:
    return Arguments.read(["fit", *words])


class TestFlags:
    @pytest.mark.parametrize(
        ("words", "value"),
        [
            (["--data.root=a b"], "a b"),
            (["--data.root", "a b"], "a b"),
            (["--data.root=a=b"], "a=b"),
            (["--data.root=-1"], "-1"),
            (["--data.root", "-1"], "-1"),
            (["--data.root", "-2.5e-3"], "-2.5e-3"),
            (["--data.root="], ""),
            (["--data.root"], ""),
            (["--data.root", "--model.encoder=x"], ""),
            (["--data.root", "-c", "a.yaml"], ""),
        ],
    )
    def test_a_value_stands_behind_an_equals_sign_or_a_space(self, folder, words, value):
        (folder / "a.yaml").write_text("{}")
        given = read(*words)
        assert given.values("--data.root") == [value]
        assert given.flags[: len(words)] == [word for word in words if word not in ("-c", "a.yaml")]

    def test_all_values_in_their_order(self):
        given = read("--a=1", "--b", "2", "--a", "3")
        assert given.values("--a") == ["1", "3"]
        assert given.values("--a", "--b") == ["1", "2", "3"]
        assert given.names() == ["--a", "--b", "--a"]

    def test_a_word_of_no_flag_comes_by_itself(self):
        assert read("one", "--flag", "two", "three").names() == ["one", "--flag", "three"]

    def test_names_of_other_tools_are_told(self):
        given = read("--lr", "0.5", "--trainer.max-epochs=3")
        assert given.flags == ["--model.optimizer.lr", "0.5", "--trainer.max_epochs=3"]
        assert given.taken["--lr"] == "--model.optimizer.lr"

    def test_classes_can_be_left_out(self):
        given = read(
            "--model=A", "--model.class_path", "B", "--model.encoder", "x", "--data", "C", "--data.root=r"
        )
        assert given.class_named("model") == "B"
        assert given.class_named("data") == "C"
        assert given.without_classes() == ["--model.encoder", "x", "--data.root=r"]

    @pytest.mark.parametrize("word", ["-h", "--help", "--model.help", "--data.help=X"])
    def test_a_page_that_is_asked_for_needs_no_checkpoint(self, word):
        assert read(word, "--ckpt_path=last").asks_for_help
        assert not read("--data.helper=1").asks_for_help


class TestRecipes:
    def test_both_in_their_order_whatever_stands_between(self, folder):
        (folder / "1.yaml").write_text("trainer: {max_epochs: 1}")
        (folder / "2.yaml").write_text("trainer: {max_epochs: 2}")
        given = read("--config=1.yaml", "--lr=0.1", "-c", "2.yaml")
        assert given.recipes == [{"trainer": {"max_epochs": 1}}, {"trainer": {"max_epochs": 2}}]
        assert given.sources == ["1.yaml", "2.yaml"]
        assert given.flags == ["--model.optimizer.lr=0.1"]

    @pytest.mark.parametrize("text", ['{"data": {"root": "a b"}}', "{data: {root: a b}}"])
    def test_written_out(self, text):
        assert read(f"--config={text}").recipes == [{"data": {"root": "a b"}}]

    def test_a_block_written_out(self):
        block = {"class_path": "X", "init_args": {"root": "r"}}
        given = read("--data", json.dumps(block))
        assert given.recipes == [{"data": block}]
        assert given.class_named("data") == "X"
        assert given.flags == []

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--config"], "takes a YAML file"),
            (["--config={a: [1"], "is not valid YAML"),
            (["--config", "--lr=1"], "takes a YAML file"),
            (["--task=clasification"], "Did you mean 'classification'"),
        ],
    )
    def test_that_cannot_be_read(self, words, said):
        with pytest.raises(AttnlabError, match=said):
            read(*words)

    def test_where_an_option_stands(self, folder):
        (folder / "1.yaml").write_text("model: {init_args: {encoder: a, optimizer: {lr: 1}}}")
        (folder / "2.yaml").write_text("{model: {init_args: {encoder: b}}, seed_everything: 0}")
        given = read("-c=1.yaml", "-c=2.yaml", "--model.weights=none")
        assert given.place_of("--model.encoder") == " in 2.yaml"
        assert given.place_of("--model.optimizer.lr") == " in 1.yaml"
        assert given.place_of("--seed_everything") == " in 2.yaml"
        assert given.place_of("--model.weights") == ""
        assert given.place_of("--model.encoder.no_block") == ""
        assert given.place_of("--nowhere") == ""

    def test_a_class_is_a_word_or_a_class_path(self):
        for written in ("model: X", "model: {class_path: X}"):
            read = Arguments.read(["fit", f"--config={{{written}}}"])
            assert read.class_named("model") == "X"
        assert Arguments.read(["fit", "--config={model: {init_args: {}}}"]).class_named("model") is None


class TestCheckpoints:
    @pytest.fixture
    def two(self, folder):
        for name in ("one.ckpt", "two.ckpt"):
            (folder / name).touch()
        (folder / "a.yaml").write_text("ckpt_path: one.ckpt")

    @pytest.mark.parametrize(
        ("words", "name"),
        [
            (["--ckpt_path=two.ckpt"], "two.ckpt"),
            (["--ckpt_path", "two.ckpt"], "two.ckpt"),
            (["--config=a.yaml"], "one.ckpt"),
            (["--ckpt_path=two.ckpt", "--config=a.yaml"], "two.ckpt"),
            (["--ckpt_path=one.ckpt", "--ckpt_path=two.ckpt"], "two.ckpt"),
            ([], None),
        ],
    )
    def test_a_flag_beats_the_recipe(self, two, words, name):
        given = read(*words)
        assert given.checkpoint_asked_for == name
        assert given.checkpoint == (None if name is None else Path(name))

    @pytest.mark.parametrize(
        ("recipe", "words", "found"),
        [
            ({}, [], "lightning_logs"),
            ({"save_dir": "logs"}, [], "logs"),
            ({"save_dir": "logs", "name": "mine"}, [], "logs/mine"),
            ({"save_dir": "logs", "name": "mine"}, ["--trainer.logger.name=yours"], "logs/yours"),
            ({"name": "mine"}, ["--trainer.logger.init_args.save_dir", "else"], "else/mine"),
            ({"save_dir": "logs"}, ["--trainer.logger.save_dir=a", "--trainer.logger.save_dir=b"], "b"),
        ],
    )
    @pytest.mark.parametrize("many", [False, True])
    def test_last_is_looked_for_where_the_logger_writes(self, folder, recipe, words, found, many):
        logger: object = {"class_path": "CSVLogger", "init_args": recipe}
        other = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "not here"}}
        content = {"trainer": {"logger": [logger, other] if many else logger}}
        (folder / "a.yaml").write_text(json.dumps(content))
        assert read("--config=a.yaml", *words).log_folder() == Path(found)
        last = folder / found / "version_0/checkpoints/last.ckpt"
        last.parent.mkdir(parents=True)
        last.touch()
        given = read("--config=a.yaml", *words, "--ckpt_path=last")
        assert given.checkpoint is not None
        assert given.checkpoint.resolve() == last.resolve()

    def test_loggers_that_are_switched_off(self, folder):
        (folder / "a.yaml").write_text("trainer: {logger: false}")
        given = read("--config=a.yaml", "--trainer.default_root_dir=runs")
        assert given.log_folder() is None
        # A test without a logger may still be of a run that had one.
        assert Arguments.read(["test", "--config=a.yaml"]).log_folder() == Path("lightning_logs")
        own = folder / "runs/checkpoints/last.ckpt"
        with_logger = folder / "lightning_logs/version_0/checkpoints/last.ckpt"
        for path in (own, with_logger):
            path.parent.mkdir(parents=True)
            path.touch()
        words = ("--config=a.yaml", "--trainer.default_root_dir=runs", "--ckpt_path=last")
        assert read(*words).checkpoint == own.relative_to(folder)
        own.unlink()
        with pytest.raises(AttnlabError, match=r"no checkpoints/last\.ckpt in .*runs"):
            read(*words)
        assert Arguments.read(["test", *words]).checkpoint == with_logger.relative_to(folder)
        for word in ("--trainer.logger.save_dir=runs", "--trainer.logger.init_args.name=x"):
            with pytest.raises(AttnlabError, match=r"option of a logger, but --trainer\.logger is false"):
                read("--config=a.yaml", word, "--ckpt_path=last")
        assert read(
            "--config=a.yaml", "--trainer.logger=true", "--trainer.default_root_dir=runs"
        ).log_folder() == Path("runs/lightning_logs")

    def test_a_list_of_loggers_as_typed(self, folder):
        typed = (
            "[{class_path: CSVLogger, init_args: {save_dir: a, name: b}}, {class_path: TensorBoardLogger}]"
        )
        assert read(f"--trainer.logger={typed}").log_folder() == Path("a/b")
        assert read("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir=c").log_folder() == Path("c")
        assert read("--trainer.logger.save_dir=c", "--trainer.logger=false").log_folder() is None
