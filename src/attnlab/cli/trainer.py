"""Lightning's CLI with attnlab's defaults, links and rules for checkpoints."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from attnlab import checkpoints, run_length, runs
from attnlab.callbacks import CostReport, ProgressLines, RunReport
from attnlab.callbacks.remember import RememberData
from attnlab.callbacks.tensorboard import ScoresFirst
from attnlab.cli import help_page, parts
from attnlab.cli.arguments import Arguments
from attnlab.cli.classes import chosen, fitted, path_of
from attnlab.cli.shorthand import expand
from attnlab.data import DataModule
from attnlab.errors import AttnlabError
from attnlab.tasks import BaseTask

LOGGER = {
    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
    "init_args": {"save_dir": "lightning_logs", "name": "", "default_hp_metric": False},
}
# Said by libraries to their own developers, or on purpose not done here: no ModelCheckpoint in a test, no
# scores before the first validation (after it, a monitor that is not there is an error).
KNOWN_NOISE = (
    r"`ModelCheckpoint\(monitor=.*could not find the monitored key",
    r"Be aware that when using `ckpt_path`, callbacks used",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"[\s\S]*(instantiate_classes|skip_none)[\s\S]*deprecated",
)
# What the task takes from its data, so that nobody has to say it twice.
LINKED = ("class_names", "ignore_index")


class StrictParser(LightningArgumentParser):
    """A parser that takes no abbreviations: --model.freeze_backbone is not --model.freeze_backbone_bn.

    The parser of a class's options is one, too, so it is said here and not where the first one is built.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})


class AttnlabCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict``, in Lightning's subclass mode.

    What it adds to Lightning's: short flags for the task's blocks; classes that flow from the data to the
    network; the callbacks of every run, with their options; ``--ckpt_path last|best|FILE``, where a
    checkpoint fills in what neither the YAML nor a flag says; and one clear error instead of a traceback.

    Args:
        arguments: What was typed.
        content: The checkpoint's; empty without one.

    Raises:
        AttnlabError: For input that cannot work.
    """

    def __init__(self, arguments: Arguments, content: Mapping[str, Any]) -> None:
        self.typed, self.content = arguments, content
        self.checkpoint = arguments.checkpoint
        self.run_folder = None if self.checkpoint is None else runs.of_checkpoint(self.checkpoint)
        recipe = checkpoints.remembered(content) if content else {}
        self.task, self.data = chosen(arguments, recipe)
        for name in checkpoints.FROM_DATA:
            recipe.get("model", {}).get("init_args", {}).pop(name, None)
        self.recipes = [recipe, *arguments.recipes]
        super().__init__(
            BaseTask,
            DataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=[],
            trainer_defaults={"logger": LOGGER},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=RememberData,
            save_config_kwargs={"save_to_log_dir": False},
            parser_class=StrictParser,
            parser_kwargs={"exit_on_error": False, arguments.subcommand: {"exit_on_error": False}},
        )

    @classmethod
    def run_command(cls, arguments: Arguments) -> AttnlabCLI:
        """Parse the arguments, build everything, run the subcommand.

        Args:
            arguments: What was typed.

        Raises:
            AttnlabError: For input that cannot work.
        """
        for message in KNOWN_NOISE:
            warnings.filterwarnings("ignore", message=message)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_notice)
        for typed, option in arguments.taken.items():
            rank_zero_info(f"{typed} is taken for {option}.")
        return cls(arguments, {} if arguments.checkpoint is None else checkpoints.read(arguments.checkpoint))

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that is run, so that only its parser is built, with the arguments left out of it."""
        name = self.typed.subcommand
        return {name: LightningCLI.subcommands()[name] | {"weights_only"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks' options and the links from data to task."""
        # The subcommand's own parser: the one whose flags a typing error is compared with.
        self.flags = parser
        if self.typed.subcommand != "fit":
            parser.add_argument(
                "--random_weights",
                type=bool,
                default=False,
                help="Go on without a checkpoint and without pretrained weights: a network of random weights "
                "is meant.",
            )
        parser.add_class_arguments(ModelCheckpoint, "checkpoint", skip={"dirpath", "save_last"})
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": self.task.monitor,
                "checkpoint.mode": "max",
                "checkpoint.enable_version_counter": False,
                "checkpoint.save_on_train_epoch_end": True,
            }
        )
        parser.add_lightning_class_args(CostReport, "cost")
        parser.add_lightning_class_args(RunReport, "report")
        parser.add_lightning_class_args(ProgressLines, "progress")
        for name, exhibit in self._exhibits().items():
            parser.add_class_arguments(exhibit, name)
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Build the parser; the closing table takes the place of Lightning's own."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        if {"validate", "test"} & set(self.subcommands()):
            self.flags.set_defaults({"verbose": False})

    def _exhibits(self) -> dict[str, type]:
        """What the task's view is made of, by what its options are called."""
        view = self.task.view
        return {"pictures": view.gallery, "predictions": view.writer, **view.more}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the checkpoint's recipe, the user's, and the flags, so that what comes later wins."""
        subcommand = self.typed.subcommand
        pages = help_page.Pages(parser, self.flags, subcommand, self.task, self.data)
        if self.typed.asks_for_help and pages.print(self.typed.flags):
            raise SystemExit(0)
        classes = {"model": self.task, "data": self.data}
        words = [f"--{block}={path_of(block, cls)}" for block, cls in classes.items()]
        for recipe in self.recipes:
            fit, left_out = fitted(recipe, classes)
            for text in left_out:
                rank_zero_info(f"Left out, as another class is named: {text}.")
            _refuse_linked(fit.get("model", {}).get("init_args", {}))
            words += [f"--config={yaml.safe_dump(fit, sort_keys=False)}"] if fit else []
        flags = expand(self.typed.without_classes())
        _refuse_linked(word.partition("=")[0].removeprefix("--model.") for word in flags)
        try:
            self.config = parser.parse_args([subcommand, *words, *flags])
        except argparse.ArgumentError as error:
            raise AttnlabError(pages.explained(str(error.message or error), self.typed)) from error
        # Lightning would now let the checkpoint's options override the flags; it sees no path until then.
        self.config[subcommand].ckpt_path = None
        wanted = self.typed.checkpoint_asked_for
        if subcommand == "fit":
            self._give_length(self.config.fit.trainer, self.content.get("attnlab", {}).get("length", {}))
            self._resumed = wanted == "last" and self.run_folder is not None
            self._resumed_step = self.content.get("global_step")
        else:
            self._refuse_random_weights(subcommand, self.config[subcommand])
        self._place(subcommand, flags)

    def _give_length(self, trainer: Namespace, remembered: dict[str, int]) -> None:
        """Say how long training is where neither flags nor YAML do: as long as planned, or the default."""
        if run_length.is_given(trainer.as_dict()):
            return
        if run_length.is_given(remembered):
            trainer.update(Namespace(**remembered))
            return
        trainer.max_epochs = run_length.DEFAULT_EPOCHS
        rank_zero_info(
            f"No length is given: training for {run_length.DEFAULT_EPOCHS} epochs. "
            "For another: --trainer.max_epochs N."
        )

    def _refuse_random_weights(self, subcommand: str, config: Namespace) -> None:
        """Scores and predictions of a network that nobody has trained are asked for by mistake, mostly."""
        if self.checkpoint is not None or config.random_weights:
            return
        none = config.model.init_args.get("weights") in (None, "none")
        if none or not self.task.weights_reach_head:
            where = "" if none else " outside its backbone"
            raise AttnlabError(
                f"{subcommand} has no trained network: its weights would be random{where}. Name a "
                "checkpoint: --ckpt_path best, last or FILE. If random ones are meant: --random_weights true."
            )

    def _place(self, subcommand: str, argv: Sequence[str]) -> None:
        """Let the loggers write where a run of this kind may.

        ``fit`` makes a folder, and goes on in its own with ``--ckpt_path last``. Scores of a checkpoint go to
        its run's folder, or to loggers that flags name. Predictions go where they are told.
        """
        trainer = self.config[subcommand].trainer
        named = any(argument.startswith("--trainer.logger") for argument in argv)
        if subcommand == "fit":
            if self._resumed and self.run_folder is not None:
                runs.point_loggers(trainer.logger, self.run_folder)
        elif subcommand == "predict" or (self.run_folder is None and not named):
            trainer.logger = False
        elif self.run_folder is not None and not named:
            runs.point_loggers(trainer.logger, self.run_folder)

    def before_instantiate_classes(self) -> None:
        """Put the checkpoint's path back, for the Trainer to load; let TensorBoard open on scores."""
        own = f"{ScoresFirst.__module__}.{ScoresFirst.__qualname__}"
        runs.put_scores_first(self.config[self.subcommand].trainer.logger, own)
        if self.checkpoint is not None:
            self.config[self.subcommand].ckpt_path = str(self.checkpoint)

    def after_instantiate_classes(self) -> None:
        """Refuse data of another task; spare a restored one its pretrained weights, perhaps gone by now.

        For any other, look for the file now: fetching and checking the data can take hours.
        """
        self.model.refuse_other_data(self.datamodule)
        self.model.restored = self.checkpoint is not None
        self.model.must_be_trained = (
            self.subcommand != "fit" and not self.config_init[self.subcommand].random_weights
        )
        self.model.check_weights_file()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add to the user's callbacks those of every run."""
        config = self.config_init[self.subcommand]
        scored = (self.run_folder, self.checkpoint) if self.run_folder and self.checkpoint else None
        more = parts.parts_of(str(self.subcommand), config, list(self._exhibits()), scored)
        built = super().instantiate_trainer(**kwargs, **more)
        if config["trainer"]["sync_batchnorm"] and built.strategy.root_device.type == "cpu":
            raise AttnlabError(
                "--trainer.sync_batchnorm needs GPUs: PyTorch's SyncBatchNorm takes no tensors of the CPU. "
                "Leave it away; each process then normalises over its own images."
            )
        return built

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train. A run that fails before its first step leaves no folder."""
        if self._resumed:
            runs.keep_csv_history(self.trainer, self._resumed_step)
        folder = runs.NewFolder(self.trainer)
        try:
            self.trainer.fit(model, **kwargs)
        except BaseException:
            if not any(isinstance(c, RememberData) and c.started for c in self.trainer.callbacks):  # type: ignore[attr-defined]
                folder.take_back()
            raise

    def before_test(self) -> None:
        """Let scores go into the run's folder beside what is there."""
        if self.run_folder is not None:
            runs.keep_csv_history(self.trainer)

    before_validate = before_test


def _is_notice(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's is about the run: no advertisement, no device that is not there."""
    return not record.getMessage().startswith(("💡 Tip", "TPU available: False", "GPU available: False"))


def _refuse_linked(names: Iterable[str]) -> None:
    """Options that the data answer cannot be given beside them."""
    for name in names:
        if name in LINKED:
            raise AttnlabError(f"{name} comes from the data: give --data.{name} instead of --model.{name}.")
