"""The arguments as typed: options, recipes, checkpoint; read without importing any large library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from attnlab import checkpoints, launchers
from attnlab.cli.shorthand import with_proper_names
from attnlab.errors import AttnlabError
from attnlab.recipes import find, in_one_line, in_todays_form, read_yaml, task_named

BLOCKS = ("model", "data")
LOGS = "lightning_logs"
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass
class Arguments:
    """A subcommand's arguments: recipes come before flags, whatever the order typed.

    Attributes:
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        recipes: The contents of the YAMLs, in order and in the current format.
        sources: The name each was given by.
        flags: All other words, in order, under the parser's own names.
        words: All that was typed, in order.
        taken: Flags named as in another tool, and what each was taken to mean.
        checkpoint_asked_for: The value of ``--ckpt_path``: last, best or a file.
        checkpoint: The file it stands for.
    """

    subcommand: str
    recipes: list[dict[str, Any]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    checkpoint_asked_for: str | None = None
    checkpoint: Path | None = None

    @classmethod
    def read(cls, argv: Sequence[str]) -> Arguments:
        """Read the recipes and find the checkpoint.

        Args:
            argv: The subcommand and its options, as typed.

        Raises:
            AttnlabError: A YAML or checkpoint is missing or cannot be read.
        """
        subcommand, *words = argv
        words, taken = with_proper_names(words)
        self = cls(subcommand, taken=taken, words=list(argv))
        for flag, value, typed in _flags(words):
            written_out = value.lstrip().startswith("{")
            if flag in ("--config", "-c"):
                self._add_recipe(value, _written_out(value) if written_out else _from_file(value))
            elif flag in ("--model", "--data") and written_out:
                self._add_recipe(value, {flag[2:]: _written_out(value)})
            elif flag in ("--model", "--data") and value.endswith(SUFFIXES):
                self._add_recipe(value, {flag[2:]: read_yaml(value)})
            elif flag == "--task":
                self.flags.append(f"--model={task_named(value)}")
            else:
                self.flags += typed
        named = [recipe.get("ckpt_path") for recipe in self.recipes] + self.values("--ckpt_path")
        self.checkpoint_asked_for = next((name for name in reversed(named) if name), None)
        if requeued := self._of_requeued_job():
            self.checkpoint_asked_for, self.checkpoint = "last", requeued
        elif self.checkpoint_asked_for and not self.asks_for_help:
            self.checkpoint = checkpoints.resolve(self.checkpoint_asked_for, self.log_folder())
        return self

    def _of_requeued_job(self) -> Path | None:
        """The last checkpoint of this command's own run, in a SLURM job that was put back in the queue."""
        job = launchers.slurm_job()
        if job is None or self.subcommand != "fit" or self.asks_for_help:
            return None
        return launchers.of_job(self.log_folder(), job, self.words, requeued=launchers.is_requeued())

    def _add_recipe(self, source: str, content: dict[str, Any]) -> None:
        self.recipes.append(in_todays_form(content, source))
        self.sources.append(source)

    @property
    def asks_for_help(self) -> bool:
        """Whether help is asked for, in which case the other arguments need not be valid."""
        return any(flag in ("-h", "--help") or flag.endswith(".help") for flag, _, _ in _flags(self.flags))

    def values(self, *names: str) -> list[str]:
        """The values of a flag, in order."""
        return [value for flag, value, _ in _flags(self.flags) if flag in names]

    def names(self) -> list[str]:
        """The flags without their values, in order."""
        return [flag for flag, _, _ in _flags(self.flags)]

    def place_of(self, option: str) -> str:
        """`` in NAME`` for an option that is set by a recipe, the last one if several; empty for a flag."""
        if option in self.names():
            return ""
        keys = option.removeprefix("--").split(".")
        for source, recipe in reversed(list(zip(self.sources, self.recipes, strict=True))):
            block: Any = recipe
            for key in keys:
                block = block.get("init_args", block) if isinstance(block, dict) else None
                block = block.get(key) if isinstance(block, dict) else None
            if block is not None:
                return f" in {source}"
        return ""

    def class_named(self, block: str) -> str | None:
        """The class of ``model`` or ``data``, named by a flag or else by the last recipe that names one."""
        named = [recipe.get(block, {}).get("class_path") for recipe in self.recipes]
        named += self.values(f"--{block}", f"--{block}.class_path")
        return next((name for name in reversed(named) if name), None)

    def without_classes(self) -> list[str]:
        """The flags, except those that name the classes of ``model`` and ``data``."""
        drop = {f"--{block}{end}" for block in BLOCKS for end in ("", ".class_path")}
        return [word for flag, _, typed in _flags(self.flags) if flag not in drop for word in typed]

    def log_folder(self) -> Path:
        """The folder whose runs are searched for ``last`` and ``best``: the logger's folder and name."""
        found: dict[str, Any] = {}
        for recipe in self.recipes:
            logger = (recipe.get("trainer") or {}).get("logger")
            for each in logger if isinstance(logger, list) else [logger]:
                if isinstance(each, dict):
                    found |= each.get("init_args") or {}
                    break
        for key in ("save_dir", "name"):
            given = self.values(f"--trainer.logger.{key}", f"--trainer.logger.init_args.{key}")
            found |= {key: given[-1]} if given else {}
        return Path(found.get("save_dir") or LOGS) / (found.get("name") or "")


def _from_file(name: str) -> dict[str, Any]:
    """A recipe by path or name; a block given as a file name is replaced by that file's content."""
    if not name:
        raise AttnlabError("--config takes a YAML file or the name of a recipe shipped with attnlab.")
    path = find(name)
    content = read_yaml(path)
    for block in (*BLOCKS, "trainer"):
        named = content.get(block)
        if isinstance(named, str) and named.endswith(SUFFIXES):
            content[block] = read_yaml(path.parent / named)
    return content


def _written_out(text: str) -> dict[str, Any]:
    """A recipe, or a block of one, written as YAML on the command line."""
    try:
        content: dict[str, Any] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AttnlabError(f"{text} is not valid YAML: {in_one_line(error)}") from error
    return content


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Each flag with its value and the words that made it up; a word that belongs to no flag comes alone."""
    position = 0
    while position < len(words):
        flag, equals, value = words[position].partition("=")
        following = words[position + 1] if position + 1 < len(words) else "-"
        taken = 1
        if flag.startswith("-") and not equals and (not following.startswith("-") or _is_number(following)):
            value, taken = following, 2
        yield flag, value, list(words[position : position + taken])
        position += taken


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
