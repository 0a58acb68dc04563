"""Lightning's CLI with attnlab's defaults, links and rules for checkpoints."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from attnlab import __version__, checkpoints, help_page, run_length, run_parts, runs
from attnlab.callbacks import CostReport, ProgressLines, RunReport
from attnlab.callbacks.remember import RememberData
from attnlab.callbacks.tensorboard import ScoresFirst
from attnlab.data import DataModule
from attnlab.errors import AttnlabError
from attnlab.shorthand import expand, with_proper_names, without
from attnlab.task_kinds import DEFAULT_TASK, TASK_KINDS, TaskKind, data_named, task_asked_for

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
# These come from the data, whatever a checkpoint remembers of them.
FROM_DATA = ("class_names", "ignore_index", "num_classes")
OF_THE_TASK = (
    *("--model", "--data", "--pictures", "--predictions"),
    *sorted({f"--{name}" for kind in TASK_KINDS.values() for name in kind.task.view.more}),
)


class AnotherTask(Exception):
    """The checkpoint is of another task than the parser was built for.

    Args:
        kind: The checkpoint's.
    """

    def __init__(self, kind: TaskKind) -> None:
        super().__init__(kind.name)
        self.kind = kind


class AttnlabCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict``.

    What it adds to Lightning's: short flags for the task's blocks; classes that flow from the data to the
    network; the callbacks of every run, with their options; ``--ckpt_path last|best|FILE``, where a
    checkpoint fills in what neither the YAML nor a flag says; and one clear error instead of a traceback.

    Attributes:
        kind: The task that the options are of. It is found before the parser is built: from ``--task``, from
            the YAML, or from the checkpoint.
    """

    kind: TaskKind

    @classmethod
    def run_command(cls, argv: Sequence[str]) -> AttnlabCLI:
        """Parse the arguments, build everything, run the subcommand.

        Args:
            argv: The subcommand and its options.

        Raises:
            AttnlabError: For input that cannot work.
        """
        for message in KNOWN_NOISE:
            warnings.filterwarnings("ignore", message=message)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_notice)
        argv, taken = with_proper_names(argv)
        for typed, option in taken.items():
            rank_zero_info(f"{typed} is taken for {option}.")
        asked = task_asked_for(argv)
        try:
            return cls._run_task(TASK_KINDS[asked or DEFAULT_TASK], argv)
        except AnotherTask as other:
            if asked is None:
                return cls._run_task(other.kind, argv)
            raise AttnlabError(
                f"The checkpoint is of a {other.kind.name} task, and the arguments or the YAML ask for "
                f"{asked}. Leave --task and --config away to take all from the checkpoint."
            ) from None

    @classmethod
    def _run_task(cls, kind: TaskKind, argv: Sequence[str]) -> AttnlabCLI:
        subcommand = argv[0]
        members = {"kind": kind, "subcommands": staticmethod(lambda: _arguments_of(subcommand))}
        only = type(cls.__name__, (cls,), members)
        # An abbreviation is a guess: --model.freeze_backbone is no --model.freeze_backbone_bn.
        strict = {"exit_on_error": False, "allow_abbrev": False}
        return only(
            kind.task,
            DataModule,
            subclass_mode_data=True,
            args=list(argv),
            trainer_defaults={"logger": LOGGER},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=RememberData,
            save_config_kwargs={"save_to_log_dir": False},
            parser_kwargs={**strict, subcommand: strict},
        )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Build the parser; the closing table takes the place of Lightning's own."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        if {"validate", "test"} & set(self.subcommands()):
            self.flags.set_defaults({"verbose": False})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks' options and the links from data to task."""
        # The subcommand's own parser: the one whose flags a typing error is compared with.
        self.flags = parser
        parser.add_argument(
            "--task",
            type=Literal[tuple(TASK_KINDS)],
            default=self.kind.name,
            help="What is trained for. It decides which options --model, --data, --pictures and "
            "--predictions have: see --task TASK --help.",
        )
        if "fit" not in self.subcommands():
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
                "checkpoint.monitor": self.kind.task.monitor,
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
        for name in self.kind.from_data:
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def _exhibits(self) -> dict[str, type]:
        """What the task's view is made of, by what its options are called."""
        view = self.kind.task.view
        return {"pictures": view.gallery, "predictions": view.writer, **view.more}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and fill in from the checkpoint what neither YAML nor flags say."""
        assert isinstance(args, list)
        subcommand, *rest = expand(args)
        if {"-h", "--help"} & set(rest):
            self._print_help(parser, subcommand)
        block = help_page.block_asked_for(rest)
        if block is not None:
            self._print_block(parser, subcommand, block)
        self.checkpoint: Path | None = None
        self.run_folder: Path | None = None
        # First without the options that are the task's or the data's, which the checkpoint may have to say.
        config = self._parse(parser, [subcommand, *without(rest, OF_THE_TASK)])[subcommand]
        wanted = config.get("ckpt_path")
        content: dict[str, Any] = {}
        if wanted:
            self.checkpoint = checkpoints.resolve(wanted, _log_folder(config.trainer.logger))
            content = checkpoints.read(self.checkpoint)
            self.run_folder = runs.of_checkpoint(self.checkpoint)
            rest = [f"--config={json.dumps(self._remembered(content))}", *rest]
        self.config = self._parse(parser, [subcommand, *rest])
        if wanted:
            # Lightning would now let the checkpoint's options override the flags; it sees no path until then.
            self.config[subcommand].ckpt_path = None
        if subcommand == "fit":
            self._give_length(self.config[subcommand].trainer, content.get("attnlab", {}).get("length", {}))
            self._resumed = wanted == "last" and self.run_folder is not None
            self._resumed_step = content.get("global_step")
        else:
            self._refuse_random_weights(subcommand, self.config[subcommand])
        self._place(subcommand, rest)

    def _remembered(self, content: dict[str, Any]) -> dict[str, Any]:
        """The options of model and data that a checkpoint holds.

        Raises:
            AttnlabError: It is of a task that is not known here.
            AnotherTask: It is of a task that the parser was not built for.
        """
        task = content.get("attnlab", {}).get("task", DEFAULT_TASK)
        if task not in TASK_KINDS:
            raise AttnlabError(
                f"{self.checkpoint} is of a {task} task, which this version of attnlab ({__version__}) has "
                f"not: it has {', '.join(TASK_KINDS)}."
            )
        if task != self.kind.name:
            raise AnotherTask(TASK_KINDS[task])
        model = {key: value for key, value in content["hyper_parameters"].items() if key not in FROM_DATA}
        data = content.get("attnlab", {}).get("data")
        return {"model": model} | ({} if data is None else {"data": data})

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
        none = config.model.get("weights") in (None, "none")
        if none or not self.kind.task.weights_reach_head:
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

    def _print_help(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """What people change most, the subcommand's options, and those of the data modules."""
        page = help_page.readable(self.flags.format_help())
        of_data = self._data_pages(parser, subcommand)
        defaults = self.flags.get_defaults()
        print(help_page.changed_most(subcommand, "\n".join([page, *of_data.values()]), defaults.get))
        print(page)
        for name, of_class in of_data.items():
            print(f"\nOptions of --data={name}:\n\n{of_class}")
        raise SystemExit(0)

    def _print_block(self, parser: LightningArgumentParser, subcommand: str, name: str) -> None:
        """The options of one block, such as ``model`` or ``model.attention``.

        Raises:
            AttnlabError: There is no such block.
        """
        of_data = self._data_pages(parser, subcommand) if name == "data" or name.startswith("data.") else {}
        found = help_page.blocks(help_page.readable(self.flags.format_help()), name, of_data)
        print("\n\n".join(found))
        raise SystemExit(0)

    def _data_pages(self, parser: LightningArgumentParser, subcommand: str) -> dict[str, str]:
        """The options of each data module that suits the task: they depend on the class."""
        pages = {}
        for data in self.kind.data:
            page = io.StringIO()
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(page):
                parser.parse_args([subcommand, f"--data.help={data}"])
            pages[data] = help_page.readable(page.getvalue())
        return pages

    def _parse(self, parser: LightningArgumentParser, argv: list[str]) -> Any:
        """Parse, with near matches for what is not known.

        The task's own data comes in by an argument: of a default, the parser would keep the options when
        another class is named.
        """
        if data_named(argv) is None:
            argv = [argv[0], f"--data={self.kind.default_data}", *argv[1:]]
        try:
            return parser.parse_args(argv)
        except argparse.ArgumentError as error:
            message = str(error.message or error)
            key = re.search(r"NestedArg\(key='([\w.]+)'", message)
            known = self.flags.format_help()
            if key and not message.startswith('Parser key "trainer'):
                known = "\n".join(self._data_pages(parser, argv[0]).values())
                if f"--data.{key[1]} " not in known:
                    message = f"The data has no option --data.{key[1]}"
            raise AttnlabError(f"{message}{help_page.near_flags(message, known)}") from error

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
        parts = run_parts.parts_of(str(self.subcommand), config, list(self._exhibits()), scored)
        built = super().instantiate_trainer(**kwargs, **parts)
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


def _arguments_of(subcommand: str) -> dict[str, set[str]]:
    """The one subcommand that is run, so that only its parser is built, with the arguments left out of it."""
    return {subcommand: LightningCLI.subcommands()[subcommand] | {"weights_only"}}


def _log_folder(logger: Any) -> Path:
    """Where the configured logger keeps its runs."""
    options = logger.get("init_args", {}) if hasattr(logger, "get") else {}
    return Path(options.get("save_dir") or "lightning_logs") / (options.get("name") or "")
