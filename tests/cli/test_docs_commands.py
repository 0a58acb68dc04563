"""Every command of README, the pages and the recipes' heads: run on small made data, or at least parsed."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.cli import main
from attnlab.cli.commands import _parser
from tests.cli.conftest import Command

ROOT = Path(__file__).parents[2]
Words = Callable[[str], list[str]]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

NEITHER = {
    "pip install uv": "installs",
    "uv venv": "installs",
    "uv pip install --torch-backend=cpu -e .": "installs",
    "uv run pytest": "is this",
    "tensorboard --logdir lightning_logs": "serves until it is stopped",
    "mkdir -p data/weights": "is the shell's",
    "curl -L -o data/weights/yolox_nano_coco.pth https://github.com/bubbliiiing/yolox-pytorch/releases/download/"
    "v1.0/yolox_nano.pth": "downloads",
}
"""Commands of other programs, and why they are not run."""
PLACEHOLDERS = {"SEED": "1", "MODE": "residual", "FILE.ckpt": "lightning_logs/last.ckpt"}
SLOW = ("--attention all", "torchvision/resnet101", "smp/Unet:resnet18")
"""In commands that take more than a few seconds even when they only count."""


def of_blocks(page: Path) -> Iterator[str]:
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        yield from block.replace("\\\n", " ").splitlines()


def of_heads(recipe: Path) -> Iterator[str]:
    """The whole commands in a recipe's comments; what begins with ... is only the end of one."""
    text = re.sub(r"\\\n# *", "", recipe.read_text(encoding="utf-8"))
    yield from re.findall(r"^#\s+(python main\.py .*)$", text, re.M)


def collected() -> list[str]:
    """Every command once, without comments, environment and how Python is started."""
    lines = [line for page in PAGES for line in of_blocks(page)]
    lines += [line for recipe in CONFIGS for line in of_heads(recipe)]
    found = []
    for line in lines:
        for command in re.sub(r"\s+#.*$", "", line).split(" && "):
            command = re.sub(
                r"^(\w+=\S+ )*((uv run (--no-sync )?|python )main\.py|attnlab) ", "main ", command
            )
            found.append(" ".join(command.split()))
    return sorted({command for command in found if command})


COMMANDS = collected()
OURS = [command for command in COMMANDS if command.startswith("main ")]
OF_THE_TRAINER = [command for command in OURS if command.split()[1] in ("fit", "validate", "test", "predict")]
OWN = [command for command in OURS if command not in OF_THE_TRAINER]
BENCHMARKS = [command for command in COMMANDS if command.startswith("python benchmarks/")]


RUN = [
    command
    for command in OF_THE_TRAINER
    if not re.search(r"ddp|/other/place|test_annotations|PICTURES", command)
    and (
        ("config" in command and "quickstart_" in command)
        or re.match(r"main (test|predict) --ckpt_path", command)
    )
]
PARSED = [command for command in OF_THE_TRAINER if command not in RUN]


def test_every_command_is_run_or_parsed_or_excused() -> None:
    left = set(COMMANDS) - set(OURS) - set(BENCHMARKS)
    assert left == set(NEITHER)
    assert len(RUN) >= 12
    assert len(PARSED) >= 20


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first command of the quickstart was run, shortened."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        state = torch.get_rng_state()
        main(["fit", f"--config={ROOT / 'configs/quickstart_segmentation.yaml'}", *shortened("fit")])
        torch.set_rng_state(state)
    last = next(folder.rglob("last.ckpt"))
    shutil.copy(last, folder / "lightning_logs")
    return folder


def shortened(subcommand: str, epochs: int = 1) -> list[str]:
    options = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    if subcommand != "fit":
        return options
    options += [f"--trainer.max_epochs={epochs}", "--trainer.check_val_every_n_epoch=1"]
    options += [f"--trainer.limit_{split}_batches=1" for split in ("train", "val")]
    return [*options, "--data.num_train=8", "--data.num_val=6", "--data.batch_size=4"]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Words]:
    """The words of a command, its placeholders filled in, in a folder that has what the pages speak of."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photos/a.png")
    (tmp_path / "my_pkg").mkdir()
    page = (ROOT / "docs/add-an-attention.md").read_text(encoding="utf-8")
    (tmp_path / "my_pkg/my_module.py").write_text(
        re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0], encoding="utf-8"
    )
    (tmp_path / "my_pkg/counting.py").write_text(
        "from tests.cli.test_a_fourth_task import CountDataModule, CountTask\n", encoding="utf-8"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield lambda command: [PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]]
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]


@pytest.mark.parametrize("command", RUN)
def test_it_runs(command: str, run: Command, words: Words, trained: Path, tmp_path: Path) -> None:
    for name in ("lightning_logs", "data"):
        shutil.copytree(trained / name, tmp_path / name)
    subcommand, *options = words(command)
    more = shortened(subcommand, epochs=2 if "--ckpt_path" in options else 1)
    outcome = run(subcommand, *options, *more)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("command", PARSED)
def test_it_is_parsed(command: str, run: Command, words: Words, tmp_path: Path) -> None:
    if "--ckpt_path" in command:
        kind = (
            ("Detection", "COCODetection")
            if "annotations" in command
            else ("Segmentation", "VOCSegmentation")
        )
        checkpoint = tmp_path / "lightning_logs/version_0/checkpoints/best.ckpt"
        checkpoint.parent.mkdir(parents=True)
        content = {
            "state_dict": {},
            "hyper_parameters": {"_class_path": f"attnlab.tasks.{kind[0]}Task"},
            "datamodule_hyper_parameters": {"_class_path": f"attnlab.data.{kind[1]}DataModule"},
        }
        torch.save(content, checkpoint)
    outcome = run(*words(command), "--print_config")
    assert outcome.status == 0, outcome.err
    assert "class_path: " in outcome.out


def counting_only(command: str) -> list[str]:
    """What makes one of attnlab's own commands short: no times, or those of small maps."""
    if "list" in command:
        return ["--channels=16", "--size=8", "--rounds=1"]
    return ["--no-time", "--size=64"] if "profile" in command and "--help" not in command else []


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=[pytest.mark.nightly] * any(word in c for word in SLOW)) for c in OWN],
)
def test_an_own_command_runs(command: str, run: Command, words: Words) -> None:
    outcome = run(*words(command), *counting_only(command))
    assert outcome.status == 0, outcome.err
    assert outcome.out


@pytest.mark.parametrize("command", [c for c in OWN if any(word in c for word in SLOW)])
def test_an_own_command_that_is_slow_is_parsed(command: str, words: Words) -> None:
    _parser().parse_args(words(command))


@pytest.mark.parametrize("command", BENCHMARKS)
def test_a_benchmark_has_the_options(command: str, run: Command, words: Words) -> None:
    mine, _, of_fit = command.partition(" -- ")
    script, *options = shlex.split(mine)[1:]
    source = (ROOT / script).read_text(encoding="utf-8")
    for option in options:
        if option.startswith("--"):
            assert re.search(rf'"{option}"', source), option
    if of_fit:
        config = options[options.index("--config") + 1]
        outcome = run("fit", "--config", ROOT / config, *words(f"fit {of_fit}"), "--print_config")
        assert outcome.status == 0, outcome.err


BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_yaml_can_be_laid_over_a_recipe(
    block: str, run: Command, words: Words, tmp_path: Path
) -> None:
    (tmp_path / "block.yaml").write_text(block, encoding="utf-8")
    outcome = run("fit", "--config=quickstart_segmentation", "--config=block.yaml", "--print_config")
    assert outcome.status == 0, outcome.err
