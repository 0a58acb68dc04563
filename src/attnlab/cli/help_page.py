"""The pages that ``fit --help`` and ``--model.help`` print."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence

from lightning.pytorch.cli import LightningArgumentParser

from attnlab.cli.arguments import Arguments
from attnlab.cli.classes import data_for, path_of
from attnlab.cli.explain import explained
from attnlab.data import DataModule
from attnlab.errors import unknown
from attnlab.run_length import DEFAULT_EPOCHS
from attnlab.tasks import BaseTask

# Longer lists of accepted classes are left out.
MANY_CLASSES = 20

_CHANGED_MOST: dict[str, tuple[tuple[str, str], ...]] = {
    "fit": (
        ("--config FILE", "a YAML with all of it, e.g. configs/quickstart_segmentation.yaml"),
        ("--model.attention NAME", "the module, see python main.py attention list; none is the baseline"),
        (
            "--model.attention.mode MODE",
            "replace, residual or rezero (starts as the network without attention)",
        ),
        ("--model.network NAME", "any CNN of torchvision or timm, or a detector"),
        ("--model.encoder NAME", "the backbone: a segmentation-models-pytorch name, or tu-NAME for timm"),
        ("--model.weights SOURCE", "initial weights: none (random), imagenet (downloaded) or a file"),
        ("--model.optimizer.lr RATE", "base learning rate"),
        ("--data.root FOLDER", "folder of the data set; --data CLASS selects another kind of data"),
        ("--data.batch_size N", "training images per process and step"),
        ("--trainer.max_epochs N", f"training length; {DEFAULT_EPOCHS} if no length is given"),
        ("--ckpt_path last|FILE", "resume: the newest run's last checkpoint, or a file"),
    ),
    "predict": (
        ("--ckpt_path best|last|FILE", "the trained network: from the newest run, or a file"),
        ("--data.predict_images PATHS", 'an image, a folder, a pattern, or a list: "[a.jpg, shots/]"'),
        ("--predictions.output_dir FOLDER", "where the results go"),
        ("--trainer.accelerator NAME", "auto, cpu or gpu"),
    ),
}
_CHANGED_MOST["test"] = _CHANGED_MOST["validate"] = (
    _CHANGED_MOST["predict"][0],
    ("--data.root FOLDER", "folder of the data set, if it has moved since training"),
    ("--data.eval_batch_size N", "images per process and step"),
    ("--trainer.accelerator NAME", "auto, cpu or gpu"),
)


def changed_most(subcommand: str, page: str) -> str:
    """The few options that most commands need, one per line.

    Args:
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        page: The page with all options; those it lacks are left out.
    """
    lines = [
        f"usage: python main.py {subcommand} [--config FILE] [--OPTION VALUE ...]",
        "",
        "what people change most:",
    ]
    for flag, meaning in _CHANGED_MOST[subcommand]:
        option = re.escape(flag.split()[0])
        entry = re.search(rf"{option}(\.name)?[ ,\n](.|\n(?!  -))*", page)
        if entry is None:
            continue
        default = re.search(r"default:\s+([^\s,)]+)", entry[0])
        known = default is not None and default[1] not in ("null", "<MISSING>", "last") and ";" not in meaning
        shown = f" (default: {default[1]})" if default is not None and known else ""
        lines.append(f"  {flag:<32}{meaning}{shown}")
    lines += [
        "",
        "--model.help, --data.help, --trainer.help, ... print a single block. All options:",
        "",
    ]
    return "\n".join(lines)


def readable(page: str) -> str:
    """A help page without its usage, which repeats all flags, and without long lists of classes."""

    def shortened(match: re.Match[str]) -> str:
        return match[0] if match[0].count(",") <= MANY_CLASSES else ")"

    # Lightning's sentence about its own default, which differs here.
    page = re.sub(r"(max_epochs\s+=\s+)1000", rf"\g<1>{DEFAULT_EPOCHS}", page)
    body = re.sub(r"\A(\s*usage:.*?\n)\s*\n", "", page, flags=re.DOTALL)
    return re.sub(r",\s+known\s+subclasses:[^)]*\)", shortened, body)


def block_asked_for(argv: Sequence[str]) -> str | None:
    """The block of a ``--BLOCK.help`` without a class, or None; ``--data.help CLASS`` is the parser's own."""
    for position, argument in enumerate(argv):
        named = re.fullmatch(r"--([\w.]+)\.help", argument)
        alone = position + 1 == len(argv) or argv[position + 1].startswith("-")
        if named and alone:
            return named[1]
    return None


def block(page: str, prefix: str) -> str:
    """The entries of a help page that belong to a block, each under its group's heading.

    Args:
        page: A help page.
        prefix: The block's name: ``model``, ``model.attention``, ``trainer``.

    Returns:
        The entries; empty if there are none.
    """
    found: list[str] = []
    heading = ""
    # Entries start with their flags, indented by two spaces; headings are not indented.
    for part in re.split(r"\n(?=  -|\S)", page):
        flag = re.match(r"  (?:-\w[^,]*, )?--([\w.]+)", part)
        if flag is None:
            first = part.partition("\n")[0]
            heading = f"\n{first}" if first.endswith(":") else heading
        elif flag[1] == prefix or flag[1].startswith(f"{prefix}."):
            found += [heading] if heading else []
            found += [line for line in part.splitlines() if line.strip()]
            heading = ""
    return "\n".join(found).strip("\n")


def blocks(page: str, name: str, of_data: Mapping[str, str]) -> list[str]:
    """The help of one block, such as ``model`` or ``model.attention``; for ``data``, of each class.

    Args:
        page: The subcommand's help page.
        name: The block's name.
        of_data: The help pages of data modules, by class.

    Raises:
        AttnlabError: There is no such block.
    """
    found = [block(page, name)]
    found += [f"Options of --data={key}:\n\n{text}" for key, text in of_data.items() if name == "data"]
    if not any(found):
        known = {flag.rpartition(".")[0] for flag in re.findall(r"^  --([\w.]+)", page, re.MULTILINE)}
        raise unknown("block of options", name, filter(None, known), "See --help for all options.")
    return [text for text in found if text]


class Pages:
    """The pages of one subcommand: the parser's own options and those of the task and data classes.

    Args:
        parser: The whole parser.
        flags: The subcommand's own.
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        task: The class of the task.
        data: The class of the data module.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        flags: LightningArgumentParser,
        subcommand: str,
        task: type[BaseTask],
        data: type[DataModule],
    ) -> None:
        self._parser, self._flags, self._subcommand = parser, flags, subcommand
        self._task, self._data = task, data

    def print(self, argv: Sequence[str]) -> bool:
        """Print the requested page; False if the parser itself has it, as for ``--trainer.logger.help X``."""
        if {"-h", "--help"} & set(argv):
            self._print_all()
            return True
        name = block_asked_for(argv)
        if name is None:
            return False
        found = blocks(self.own() + "\n" + self.of_task(), name, self.of_data())
        print("\n\n".join(found))
        return True

    def own(self) -> str:
        """The subcommand's options without those of task and data."""
        return readable(self._flags.format_help())

    def of_task(self) -> str:
        """The options of the task's class."""
        return self._of_class("model", path_of("model", self._task))

    def of_data(self) -> dict[str, str]:
        """The options of each data module for the task, and of the one named."""
        names = dict.fromkeys(
            [*data_for(self._task), path_of("data", self._data).removeprefix("attnlab.data.")]
        )
        return {name: self._of_class("data", name) for name in names}

    def _of_class(self, block: str, name: str) -> str:
        page = io.StringIO()
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(page):
            self._parser.parse_args([self._subcommand, f"--{block}.help={name}"])
        return re.sub(r"\A\s*Help for .*\n+", "", readable(page.getvalue()))

    def _print_all(self) -> None:
        own, of_task, of_data = self.own(), self.of_task(), self.of_data()
        print(changed_most(self._subcommand, "\n".join([own, of_task, *of_data.values()])))
        print(f"Options of --model={self._task.__name__}:\n\n{of_task}")
        for name, of_class in of_data.items():
            print(f"\nOptions of --data={name}:\n\n{of_class}")
        print(f"\n{own}")

    def explained(self, message: str, typed: Arguments) -> str:
        """A parser error in one line; see `attnlab.cli.explain`."""
        pages = [self.own(), self.of_task(), self._of_class("data", path_of("data", self._data))]
        return explained(message, re.findall(r"--[\w.]+", "\n".join(pages)), typed)
