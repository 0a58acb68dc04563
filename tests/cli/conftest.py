"""The real command line, run in this process: importing torch for each call would take most of the time."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# Here and not in the first test: Lightning's log handler keeps the stream it finds when it is imported.
import attnlab.cli.trainer  # noqa: F401
from attnlab.checkpoints import OF_DATA
from attnlab.cli import main
from tests.data.conftest import shared_data, write_voc_folder  # noqa: F401


@dataclass
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``main.py`` with these arguments, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: object) -> Outcome:
        status = 0
        state = torch.get_rng_state()
        seed = os.environ.pop("PL_GLOBAL_SEED", None)
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        finally:
            torch.set_rng_state(state)
            os.environ.pop("PL_GLOBAL_SEED", None)
            if seed is not None:
                os.environ["PL_GLOBAL_SEED"] = seed
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def forking() -> Iterator[subprocess.Popen[str]]:
    """The process that forks; see its file."""
    command = [sys.executable, str(Path(__file__).with_name("forking.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield process


Launch = Callable[..., list[str]]


@pytest.fixture
def launch(forking: subprocess.Popen[str], tmp_path: Path) -> Launch:
    """Run ``main.py`` with these arguments in processes of their own; returns what each has said.

    A signal is a number, and a pattern of files: it is sent when there is one; with "group" as a third, to
    the loaders' workers, too.
    """

    def call(
        processes: int,
        *words: object,
        signal: tuple[int, str] | tuple[int, str, str] | None = None,
        status: int = 0,
        environment: dict[str, str] | None = None,
    ) -> list[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        spread = [f"--trainer.devices={processes}", "--trainer.strategy=ddp"] if processes > 1 else []
        order = {
            "processes": processes,
            "port": port,
            "folder": str(tmp_path),
            "log": str(tmp_path / "said_by_process_"),
            "signal": signal,
            "environment": environment or {},
            "words": [*map(str, words), *spread],
        }
        assert forking.stdin is not None
        assert forking.stdout is not None
        forking.stdin.write(json.dumps(order) + "\n")
        forking.stdin.flush()
        statuses = json.loads(forking.stdout.readline())
        paths = [Path(f"{order['log']}{rank}") for rank in range(processes)]
        said = [path.read_text() for path in paths]
        for path in paths:
            path.unlink()
        assert statuses == [status] * processes, "\n".join(text[-2000:] for text in said)
        return said

    return call


def scalars(folder: Path) -> dict[str, float]:
    """The last value of each column that a CSVLogger wrote."""
    (path,) = folder.rglob("metrics.csv")
    values: dict[str, float] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            values.update({key: float(value) for key, value in row.items() if value})
    return values


def csv_logger(name: str) -> list[str]:
    return ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", f"--trainer.logger.name={name}"]


def write_class_folders(root: Path, classes: int, train: int, val: int) -> Path:
    """Noise of a colour of its own a class, in folders train/classK and val/classK."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for k in range(classes):
            (root / split / f"class{k}").mkdir(parents=True)
            for n in range(count):
                colour = np.array([40 * k, 250 - 40 * k, 128])
                pixels = colour + rng.normal(0, 20, (40 + n, 52 - n, 3))
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(root / split / f"class{k}" / f"{n:02}.jpg")
    return root


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Path]:
    """Where `trained` keeps what a command has trained."""
    root, known = tmp_path_factory.mktemp("trained"), dict[tuple[str, ...], Path]()
    return lambda words: known.setdefault(words, root / str(len(known)))


@pytest.fixture
def trained(
    run: Command, small: list[str], tmp_path: Path, trainings: Callable[[tuple[str, ...]], Path]
) -> Callable[..., None]:
    """Leaves in the working folder what ``fit`` does, with the options of `small` and further ones.

    Each training is done once. The others get a copy, whose checkpoints name the data of their own folder.
    """

    def call(*more: str) -> None:
        here, name = tmp_path / "lightning_logs", "--data.root="
        kept = trainings(tuple(word.replace(str(tmp_path), "") for word in (*small, *more)))
        if not kept.exists():
            outcome = run("fit", *small, *more)
            assert outcome.status == 0, outcome.err
            shutil.copytree(here, kept)
            return
        shutil.copytree(kept, here)
        for path in here.rglob("*.ckpt"):
            content = torch.load(path, weights_only=True)
            content[OF_DATA]["root"] = next(w.removeprefix(name) for w in small if w.startswith(name))
            torch.save(content, path)

    return call


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A root that holds a small VOCdevkit/VOC2012: seven training and five validation images."""
    sizes = {f"t{k}": (70 + k, 90 - k) for k in range(7)} | {
        f"v{k}": (50 + 9 * k, 80 - 8 * k) for k in range(5)
    }
    splits = {"train": [f"t{k}" for k in range(7)], "val": [f"v{k}" for k in range(5)]}
    splits["trainval"] = splits["train"] + splits["val"]
    write_voc_folder(tmp_path / "voc" / "VOCdevkit" / "VOC2012", sizes, splits)
    return tmp_path / "voc"


@pytest.fixture
def small(voc: Path) -> list[str]:
    """Options of a run that takes seconds."""
    return [
        "--model.architecture=DeepLabV3Plus",
        "--model.encoder=tu-test_resnet",
        "--model.architecture_options.decoder_channels=16",
        "--model.attention=ela_t",
        "--model.attention.at=stage",
        "--data=VOCSegmentationDataModule",
        f"--data.root={voc}",
        "--data.class_names=[ground,leaf]",
        "--data.crop_size=64",
        "--data.batch_size=3",
        "--data.num_workers=0",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.log_every_n_steps=1",
        "--trainer.max_epochs=1",
        "--pictures.count=2",
    ]


def checkpoint(folder: Path, name: str = "last", version: int = 0) -> Path:
    return folder / "lightning_logs" / f"version_{version}" / "checkpoints" / f"{name}.ckpt"


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return content
