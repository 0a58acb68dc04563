"""Lightning's CLI with attnlab's defaults, links and rules for checkpoints."""

from __future__ import annotations

import argparse
import copy
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info

from attnlab import checkpoints, launchers, run_length, runs
from attnlab.callbacks import CostReport, ProgressLines, RunReport
from attnlab.callbacks.best import BestCheckpoint
from attnlab.callbacks.monitors import MonitorCheck
from attnlab.callbacks.remember import RememberData
from attnlab.callbacks.signals import Signals
from attnlab.callbacks.tensorboard import ScoresFirst
from attnlab.cli import help_page, parts
from attnlab.cli.arguments import LOGS, Arguments
from attnlab.cli.classes import chosen, fitted, of_checkpoint, path_of
from attnlab.cli.shorthand import expand
from attnlab.data import DataModule
from attnlab.errors import AttnlabError
from attnlab.recipes import as_block
from attnlab.tasks import BaseTask

LOGGER = {
    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
    "init_args": {"save_dir": LOGS, "name": "", "default_hp_metric": False},
}
# Warnings meant for the libraries' developers, or about what is intended here: no ModelCheckpoint in a test,
# no scores before the first validation (after it, a missing monitor is an error), resuming within an epoch
# (the data say what is repeated).
KNOWN_NOISE = (
    r"`ModelCheckpoint\(monitor=.*could not find the monitored key",
    r"(Experiment logs|Checkpoint) directory .* exists and is not empty",
    r"Be aware that when using `ckpt_path`, callbacks used",
    r"You're resuming from a checkpoint that ended before the epoch ended",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"[\s\S]*(instantiate_classes|skip_none)[\s\S]*deprecated",
)
# What the task takes from its data.
LINKED = ("class_names", "ignore_index")


class StrictParser(LightningArgumentParser):
    """A parser without abbreviations: --model.freeze_backbone is not --model.freeze_backbone_bn.

    Set in the class because the parsers of classes' options must be of this kind, too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})


class AttnlabCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict``, in Lightning's subclass mode.

    Adds to Lightning's: short flags for the task's blocks; class names passed from the data to the network;
    the callbacks of every run, with their options; ``--ckpt_path last|best|FILE``, where a checkpoint
    provides what neither the YAML nor a flag sets; and one-line errors instead of tracebacks.

    Args:
        arguments: The arguments as typed.
        content: The checkpoint's content; empty without one.

    Raises:
        AttnlabError: Invalid input.
    """

    def __init__(self, arguments: Arguments, content: Mapping[str, Any]) -> None:
        self.typed, self.content = arguments, content
        self.checkpoint = arguments.checkpoint
        self.run_folder = None if self.checkpoint is None else runs.of_checkpoint(self.checkpoint)
        recipe, self.may_fetch = of_checkpoint(arguments, content)
        self.task, self.data = chosen(arguments, recipe)
        sources, recipes = [str(self.checkpoint), *arguments.sources], [recipe, *arguments.recipes]
        self.recipes = list(zip(sources, recipes, strict=True))
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
            arguments: The arguments as typed.

        Raises:
            AttnlabError: Invalid input.
        """
        for message in KNOWN_NOISE:
            warnings.filterwarnings("ignore", message=message)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_notice)
        for typed, option in arguments.taken.items():
            rank_zero_info(f"{typed} is read as {option}.")
        return cls(arguments, {} if arguments.checkpoint is None else checkpoints.read(arguments.checkpoint))

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the subcommand that runs, so that only its parser is built, and the arguments it skips."""
        name = self.typed.subcommand
        return {name: LightningCLI.subcommands()[name] | {"weights_only"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks' options and the links from data to task."""
        # The subcommand's own parser, whose flags are suggested for a misspelled one.
        self.flags = parser
        if self.typed.subcommand != "fit":
            parser.add_argument(
                "--random_weights",
                type=bool,
                default=False,
                help="Run with random weights: neither a checkpoint nor pretrained weights are needed.",
            )
        parser.add_argument(
            "--trust_checkpoint",
            type=bool,
            default=False,
            help="Run code that the checkpoint names: classes that are not attnlab's, downloads, and folders "
            "it remembers. Only for files from people you trust.",
        )
        parser.add_class_arguments(BestCheckpoint, "checkpoint", skip={"dirpath", "save_last"})
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": self.task.monitor,
                "checkpoint.mode": "max",
                "checkpoint.enable_version_counter": False,
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
        """Build the parser; attnlab's final table replaces Lightning's."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        if {"validate", "test"} & set(self.subcommands()):
            self.flags.set_defaults({"verbose": False})

    def _exhibits(self) -> dict[str, type]:
        """The parts of the task's view, by the name of their options."""
        view = self.task.view
        return {"pictures": view.gallery, "predictions": view.writer, **view.more}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the checkpoint's recipe, the user's, and the flags, later ones winning."""
        subcommand = self.typed.subcommand
        pages = help_page.Pages(parser, self.flags, subcommand, self.task, self.data)
        if self.typed.asks_for_help and pages.print(self.typed.flags):
            raise SystemExit(0)
        classes = {"model": self.task, "data": self.data}
        words = [f"--{block}={path_of(block, cls)}" for block, cls in classes.items()]
        defaults = self.flags.get_defaults()
        for source, recipe in self.recipes:
            for key, value in recipe.items():
                if isinstance(defaults.get(key), Namespace):
                    as_block(value, f"{key} in {source}")
            fit, left_out = fitted(recipe, classes, source)
            for text in left_out:
                rank_zero_info(f"Ignored, because another class is used: {text}.")
            _refuse_linked(fit.get("model", {}).get("init_args", {}))
            words += [f"--config={yaml.safe_dump(fit, sort_keys=False)}"] if fit else []
        flags = expand(self.typed.without_classes())
        _refuse_linked(word.partition("=")[0].removeprefix("--model.") for word in flags)
        try:
            self.config = parser.parse_args([subcommand, *words, *flags])
        except argparse.ArgumentError as error:
            raise AttnlabError(pages.explained(str(error.message or error), self.typed)) from error
        # With a path here, Lightning would let the checkpoint's options override the flags.
        self.config[subcommand].ckpt_path = None
        # Not saved with the run: the next checkpoint may be somebody else's.
        self.config[subcommand].trust_checkpoint = False
        wanted = self.typed.checkpoint_asked_for
        if subcommand == "fit":
            self._give_length(self.config.fit.trainer, checkpoints.length(self.content))
            self._goes_on = wanted == "last"
            self._resumed = self._goes_on and self.run_folder is not None
            if self.content and "optimizer_states" not in self.content:
                raise AttnlabError(
                    f"{self.checkpoint} holds weights only (--checkpoint.save_weights_only), so training "
                    "cannot go on from it. Use --ckpt_path last."
                )
            self._resumed_step = self.content.get("global_step")
        else:
            self._refuse_random_weights(subcommand, self.config[subcommand])
        self._place(subcommand, flags)

    def _give_length(self, trainer: Namespace, remembered: dict[str, int]) -> None:
        """Set the training length if neither flags nor YAML do: the checkpoint's, or the default."""
        if run_length.is_given(trainer.as_dict()):
            return
        if run_length.is_given(remembered):
            trainer.update(Namespace(**remembered))
            return
        trainer.max_epochs = run_length.DEFAULT_EPOCHS
        rank_zero_info(
            f"No training length given: training for {run_length.DEFAULT_EPOCHS} epochs. To change it: "
            "--trainer.max_epochs N."
        )

    def _refuse_random_weights(self, subcommand: str, config: Namespace) -> None:
        """Scoring or using an untrained network is usually a mistake."""
        if self.checkpoint is not None or config.random_weights:
            return
        none = config.model.init_args.get("weights") in (None, "none")
        if none or not self.task.weights_reach_head:
            where = "" if none else " outside its backbone"
            raise AttnlabError(
                f"{subcommand} has no trained network: the weights would be random{where}. Give a "
                "checkpoint (--ckpt_path best, last or FILE), or --random_weights true if that is intended."
            )

    def _place(self, subcommand: str, argv: Sequence[str]) -> None:
        """Choose the loggers' folder.

        ``fit`` makes a new folder, or continues in the run's with ``--ckpt_path last``. Scores of a
        checkpoint go to its run's folder, or to loggers set by flags. ``predict`` logs nothing.
        """
        trainer = self.config[subcommand].trainer
        self._loggers = copy.deepcopy(trainer.logger)
        named = any(argument.startswith("--trainer.logger") for argument in argv)
        if subcommand == "fit":
            if self._resumed and self.run_folder is not None:
                known = self.content.get("attnlab", {}).get("loggers", ())
                runs.point_loggers(trainer.logger, self.run_folder, known)
        elif subcommand == "predict" or (self.run_folder is None and not named):
            trainer.logger = False
        elif self.run_folder is not None and not named:
            runs.point_loggers(trainer.logger, self.run_folder)

    def before_instantiate_classes(self) -> None:
        """Put the checkpoint's path back, for the Trainer to load; let TensorBoard open on scores."""
        own = f"{ScoresFirst.__module__}.{ScoresFirst.__qualname__}"
        for loggers in (self.config[self.subcommand].trainer.logger, self._loggers):
            runs.put_scores_first(loggers, own)
        if self.checkpoint is not None:
            self.config[self.subcommand].ckpt_path = str(self.checkpoint)

    def after_instantiate_classes(self) -> None:
        """Reject data for another task, and check early that the weights file exists.

        A restored task needs no pretrained weights. For others, preparing the data first can take hours.
        """
        self.model.refuse_other_data(self.datamodule)
        self.datamodule.may_fetch = self.may_fetch
        self.model.restored = self.checkpoint is not None
        self.model.must_be_trained = (
            self.subcommand != "fit" and not self.config_init[self.subcommand].random_weights
        )
        self.model.check_weights_file()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, MonitorCheck):
                callback.check(self.trainer, self.model)
        # In the YAML that is saved, the loggers are as asked for: another run must not go into this folder.
        if self.subcommand == "fit":
            self.config.fit.trainer.logger = self._loggers

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks of every run to the user's."""
        config = self.config_init[self.subcommand]
        scored = (self.run_folder, self.checkpoint) if self.run_folder and self.checkpoint else None
        more = parts.parts_of(str(self.subcommand), config, list(self._exhibits()), scored)
        slurm = next((plugin for plugin in more["plugins"] if isinstance(plugin, SLURMEnvironment)), None)
        more["callbacks"].append(Signals(self.typed.words, slurm))
        self._refuse_foreign_run(config["trainer"]["default_root_dir"])
        try:
            built = super().instantiate_trainer(**kwargs, **more)
        except RuntimeError as error:
            if launchers.slurm_job() is None:
                raise
            # Lightning's advice about SLURM's variables.
            raise AttnlabError(str(error)) from error
        launchers.refuse_contradiction(built.num_devices, built.num_nodes)
        if config["trainer"]["sync_batchnorm"] and built.strategy.root_device.type == "cpu":
            raise AttnlabError(
                "--trainer.sync_batchnorm needs GPUs: PyTorch's SyncBatchNorm does not run on the CPU. "
                "Leave it out; each process then normalises over its own images."
            )
        return built

    def _refuse_foreign_run(self, root: str | None) -> None:
        """Under SLURM and without a checkpoint, Lightning would silently resume what any run left there."""
        left = sorted(Path(root or ".").glob("hpc_ckpt_*.ckpt")) if launchers.slurm_job() is not None else []
        if left and self.checkpoint is None:
            raise AttnlabError(
                f"{left[-1]} is a checkpoint that Lightning has left of another SLURM job, and would resume "
                f"from. Move it away, or resume from it: --ckpt_path {left[-1]}."
            )

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train. A run that fails before its first step leaves no folder."""
        if self._resumed:
            runs.keep_csv_history(self.trainer, self._resumed_step)
        folder = runs.StartedRun(self.trainer, resumed=self._goes_on)
        try:
            self.trainer.fit(model, **kwargs)
        except BaseException:
            if not any(isinstance(c, RememberData) and c.started for c in self.trainer.callbacks):  # type: ignore[attr-defined]
                folder.take_back()
            raise

    def before_test(self) -> None:
        """Append scores to what is in the run's folder."""
        if self.run_folder is not None:
            runs.keep_csv_history(self.trainer)

    before_validate = before_test


def _is_notice(record: logging.LogRecord) -> bool:
    """Whether a log line of Lightning's is about the run: not a tip, not an absent device, not said twice."""
    silent = ("💡 Tip", "TPU available: False", "GPU available: False", "\nDetected KeyboardInterrupt")
    return not record.getMessage().startswith(silent)


def _refuse_linked(names: Iterable[str]) -> None:
    """Reject task options that come from the data."""
    for name in names:
        if name in LINKED:
            raise AttnlabError(f"{name} comes from the data: set --data.{name} instead of --model.{name}.")
