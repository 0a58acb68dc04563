"""Lightning's CLI with attnlab's defaults, links and rules for checkpoints."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from attnlab import __version__, checkpoints
from attnlab.callbacks import AtomicCheckpointIO, CostReport, RunReport
from attnlab.data import DataModule
from attnlab.errors import AttnlabError
from attnlab.shorthand import expand
from attnlab.task_kinds import DEFAULT_TASK, TASK_KINDS, TaskKind, data_is_named, task_asked_for

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
# Longer lists of the classes that an option takes are left out of the help page.
MANY_CLASSES = 20
OF_THE_TASK = (
    *("--model", "--data", "--pictures", "--predictions"),
    *sorted({f"--{name}" for kind in TASK_KINDS.values() for name in kind.more}),
)


class RememberData(SaveConfigCallback):
    """Saves the run's YAML in its folder, and the data's part of it in every checkpoint.

    With the task's own options, which a checkpoint holds anyway, that makes a checkpoint enough to test or
    predict.
    """

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the data's options."""
        data = _plain(self.config.data)
        module = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(module, DataModule) and isinstance(data, dict):
            data["init_args"] = {**(data.get("init_args") or {}), **module.remembered()}
        checkpoint.setdefault("attnlab", {}).update({"version": __version__, "data": data})


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
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"exit_on_error": False, subcommand: {"exit_on_error": False}},
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
        parser.add_class_arguments(
            ModelCheckpoint,
            "checkpoint",
            skip={"dirpath", "save_last"},
        )
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": self.kind.task.monitor,
                "checkpoint.mode": "max",
                "checkpoint.enable_version_counter": False,
                "checkpoint.save_on_train_epoch_end": True,
            }
        )
        parser.add_lightning_class_args(self.kind.pictures, "pictures")
        parser.add_lightning_class_args(CostReport, "cost")
        parser.add_lightning_class_args(self.kind.writer, "predictions")
        parser.add_lightning_class_args(RunReport, "report")
        for name, callback in self.kind.more.items():
            parser.add_lightning_class_args(callback, name)
        for name in self.kind.from_data:
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and fill in from the checkpoint what neither YAML nor flags say."""
        assert isinstance(args, list)
        subcommand, *rest = expand(args)
        if {"-h", "--help"} & set(rest):
            self._print_help(parser, subcommand)
        self.checkpoint: Path | None = None
        # First without the options that are the task's or the data's, which the checkpoint may have to say.
        config = self._parse(parser, [subcommand, *_without(rest, OF_THE_TASK)])[subcommand]
        wanted = config.get("ckpt_path")
        if not wanted:
            self.config = self._parse(parser, [subcommand, *rest])
            return
        self.checkpoint = checkpoints.resolve(wanted, _log_folder(config.trainer.logger))
        content = checkpoints.read(self.checkpoint)
        task = content.get("attnlab", {}).get("task", DEFAULT_TASK)
        if task not in TASK_KINDS:
            raise AttnlabError(
                f"{self.checkpoint} is of a {task} task, which this version of attnlab ({__version__}) has "
                f"not: it has {', '.join(TASK_KINDS)}."
            )
        if task != self.kind.name:
            raise AnotherTask(TASK_KINDS[task])
        remembered: dict[str, Any] = {
            "model": {k: v for k, v in content["hyper_parameters"].items() if k not in FROM_DATA}
        }
        if "data" in content.get("attnlab", {}):
            remembered["data"] = content["attnlab"]["data"]
        flags = [f"--config={json.dumps(remembered)}", *rest]
        run_folder = self.checkpoint.parent.parent
        if subcommand == "fit" and wanted == "last" and run_folder.name.startswith("version_"):
            # The resumed run goes on in its own folder, where its curves and its best checkpoint are.
            flags += [
                f"--trainer.logger.init_args.save_dir={run_folder.parent}",
                "--trainer.logger.init_args.name=",
                f"--trainer.logger.init_args.version={run_folder.name}",
            ]
        self.config = self._parse(parser, [subcommand, *flags])
        # Lightning would now let the checkpoint's options override the flags; it is shown no path until then.
        self.config[subcommand].ckpt_path = None

    def _print_help(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """The subcommand's options, and after them those of the data modules, which depend on the class."""
        print(_readable(self.flags.format_help()))
        for data in self.kind.data:
            page = io.StringIO()
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(page):
                parser.parse_args([subcommand, f"--data.help={data}"])
            print(f"\nOptions of --data={data}:\n\n{_readable(page.getvalue())}")
        raise SystemExit(0)

    def _parse(self, parser: LightningArgumentParser, argv: list[str]) -> Any:
        """Parse, with near matches for what is not known.

        The task's own data comes in by an argument: of a default, the parser would keep the options when
        another class is named.
        """
        if not data_is_named(argv):
            argv = [argv[0], f"--data=attnlab.data.{self.kind.data[0]}", *argv[1:]]
        try:
            return parser.parse_args(argv)
        except argparse.ArgumentError as error:
            raise AttnlabError(f"{error.message or error}{self._near_flags(str(error))}") from error

    def _near_flags(self, message: str) -> str:
        known = sorted(set(re.findall(r"--[\w.]+", self.flags.format_help())))
        near = [difflib.get_close_matches(flag, known, n=2) for flag in re.findall(r"--[\w.]+", message)]
        found = [match for matches in near for match in matches]
        return f". Did you mean {' or '.join(found)}?" if found else ""

    def before_instantiate_classes(self) -> None:
        """Put the checkpoint's path back, for the Trainer to load."""
        if self.checkpoint is not None:
            self.config[self.subcommand].ckpt_path = str(self.checkpoint)

    def after_instantiate_classes(self) -> None:
        """Spare a task that is restored its pretrained weights, which may not be at hand any more.

        For any other, look for the file now: fetching and checking the data can take hours.
        """
        self.model.restored = self.checkpoint is not None
        self.model.check_weights_file()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add to the user's callbacks those of every run."""
        config = self.config_init[self.subcommand]
        trainer = config["trainer"]
        callbacks = _as_list(trainer["callbacks"])
        if self.subcommand != "fit":
            kwargs["enable_checkpointing"] = False
        elif trainer["enable_checkpointing"] is not False:
            # Lightning's own save_last writes last.ckpt only in epochs that also improved the best.
            last = ModelCheckpoint(
                filename="last", save_on_train_epoch_end=True, enable_version_counter=False
            )
            callbacks += [config["checkpoint"], last]
        if trainer["enable_progress_bar"] is not False and not any(
            isinstance(c, ProgressBar) for c in callbacks
        ):
            callbacks.append(RichProgressBar())
        if trainer["logger"] and self.subcommand == "fit":
            callbacks.append(LearningRateMonitor("step"))
        plugins = [*_as_list(trainer["plugins"]), AtomicCheckpointIO()]
        built = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        if trainer["sync_batchnorm"] and built.strategy.root_device.type == "cpu":
            raise AttnlabError(
                "--trainer.sync_batchnorm needs GPUs: PyTorch's SyncBatchNorm takes no tensors of the CPU. "
                "Leave it away; each process then normalises over its own images."
            )
        return built


def _readable(page: str) -> str:
    """A help page without the lists of a hundred classes that fit an option, such as all of torch.nn."""

    def shortened(match: re.Match[str]) -> str:
        return match[0] if match[0].count(",") <= MANY_CLASSES else ")"

    return re.sub(r",\s+known\s+subclasses:[^)]*\)", shortened, page)


def _arguments_of(subcommand: str) -> dict[str, set[str]]:
    """The one subcommand that is run, so that only its parser is built, with the arguments left out of it."""
    skipped = LightningCLI.subcommands()[subcommand] | {"weights_only"}
    return {subcommand: skipped}


def _without(argv: list[str], prefixes: tuple[str, ...]) -> list[str]:
    """The arguments without those flags, and their values, that belong to one of the prefixes."""
    result: list[str] = []
    dropping = False
    for argument in argv:
        if argument.startswith("-"):
            name = argument.partition("=")[0]
            dropping = any(
                name == prefix or name.startswith((f"{prefix}.", f"{prefix}+")) for prefix in prefixes
            )
        if not dropping:
            result.append(argument)
    return result


def _log_folder(logger: Any) -> Path:
    """Where the configured logger keeps its runs."""
    options = logger.get("init_args", {}) if hasattr(logger, "get") else {}
    return Path(options.get("save_dir") or "lightning_logs") / (options.get("name") or "")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _plain(value: Any) -> Any:
    """Options as parsed, of nothing but dicts, lists and scalars."""
    if isinstance(value, Namespace):
        value = value.clone().as_dict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
