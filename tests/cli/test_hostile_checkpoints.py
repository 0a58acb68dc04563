"""Checkpoints made by strangers: nothing that they name is imported, fetched or written.

Each of the gallery is given to every command and function that takes a checkpoint, under an audit hook.
"""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import attnlab
from attnlab.checkpoints import CLASS_PATH, INSTANTIATOR, OF_DATA
from attnlab.errors import AttnlabError
from attnlab.tasks import BaseTask, ClassificationTask, DetectionTask, SegmentationTask
from tests.cli.conftest import checkpoint

# On the path, as a user's own modules are. `this` is in the standard library and prints when imported.
STRANGER = """
from pathlib import Path
Path("it_ran").write_text("")
import torch
class Module(torch.nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()
    def forward(self, x):
        return x
run = Task = Data = Attention = VOCSegmentationDataModule = RandomHSV = Module
"""
V2 = "torchvision.transforms.v2"
# Audit events of a connection or another program.
ACTS = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.bind",
    "urllib.",
    "subprocess.",
    "os.system",
    "os.exec",
)


def transform(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": options}


class Runs:
    """Pickled, it runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch it_ran",)


def data(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[OF_DATA].update(options)


def model(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["hyper_parameters"].update(options)


def attention(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["hyper_parameters"]["attention"].update(options)


def older(**block: Any) -> Callable[[dict[str, Any]], None]:
    """As in checkpoints from before tasks were classes."""

    def change(content: dict[str, Any]) -> None:
        content.pop(OF_DATA)
        content["attnlab"]["data"] = block

    return change


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a callable": (data(eval_transforms=[transform(f"{V2}.Lambda", lambd="pickle.loads")]), "Lambda"),
    "a callable by its home": (
        data(eval_transforms=[transform(f"{V2}._misc.Lambda", lambd="stranger.run")]),
        "Lambda",
    ),
    "a transform of theirs": (data(eval_transforms=["stranger.Module"]), "stranger.Module"),
    "one with our name": (data(eval_transforms=["stranger.RandomHSV"]), "stranger.RandomHSV"),
    "a module of ours": (data(eval_transforms=["attnlab.cli.main"]), "attnlab.cli.main"),
    "inside another": (
        data(eval_transforms=[transform(f"{V2}.RandomApply", transforms=[transform("stranger.Module")])]),
        "stranger.Module",
    ),
    "functions inside another": (
        data(eval_transforms=[transform(f"{V2}.RandomChoice", transforms=["this.s"])]),
        "this.s",
    ),
    "a type as a key": (
        data(eval_transforms=[transform(f"{V2}.Pad", padding=1, fill={"stranger.Module": 0})]),
        "stranger.Module",
    ),
    "a path as a number": (data(eval_transforms=[transform(f"{V2}.Resize", size="this.s")]), "this.s"),
    "more than options": (
        data(eval_transforms=[{**transform(f"{V2}.Resize", size=8), "dict_kwargs": {"a": "this.s"}}]),
        "this.s",
    ),
    "a file as a list": (data(eval_transforms="theirs.yaml"), "theirs.yaml"),
    "training's transforms": (data(train_transforms=["stranger.Module"]), "stranger.Module"),
    "names from a file": (data(class_names="theirs.yaml"), "theirs.yaml"),
    "numbers from a file": (data(mean="theirs.yaml"), "theirs.yaml"),
    "a class as a value": (data(label_map={0: transform("stranger.Module")}), "stranger.Module"),
    "a class as a word": (data(year=transform("stranger.Module")), "stranger.Module"),
    "their data": (data(**{CLASS_PATH: "stranger.Data"}), "stranger.Data"),
    "their data by our name": (
        data(**{CLASS_PATH: "stranger.VOCSegmentationDataModule"}),
        "stranger.VOCSegmentationDataModule",
    ),
    "a class that is no data": (data(**{CLASS_PATH: "subprocess.Popen"}), "subprocess.Popen"),
    "their data, as it was saved once": (older(class_path="stranger.Data"), "stranger.Data"),
    "their transform, as it was saved once": (
        older(class_path="VOCSegmentationDataModule", init_args={"eval_transforms": ["this.s"]}),
        "this.s",
    ),
    "their task": (model(**{CLASS_PATH: "stranger.Task"}), "stranger.Task"),
    "their attention": (attention(name="stranger.Attention"), "stranger.Attention"),
    "a module's attention": (attention(name="this.s"), "this.s"),
    "attention's options": (attention(options={"kind": transform("stranger.Module")}), "stranger.Module"),
    "attention from a file": (model(attention="theirs.yaml"), "theirs.yaml"),
    "an optimizer from a file": (model(optimizer="theirs.yaml"), "theirs.yaml"),
    "options of the network": (
        model(architecture_options={"activation": [transform("stranger.Module")]}),
        "stranger.Module",
    ),
    "no options at all": (lambda content: content.update(hyper_parameters=["this.s"]), "this.s"),
    "no data at all": (lambda content: content.update({OF_DATA: "theirs.yaml"}), "theirs.yaml"),
    "a number as a class": (data(**{CLASS_PATH: 3}), "3"),
}
# Of the twins, too: their options differ.
TWINS: dict[str, tuple[type[BaseTask], str, dict[str, Any]]] = {
    "classification": (ClassificationTask, "ImageFolderDataModule", {"augment": ["stranger.Module"]}),
    "detection": (DetectionTask, "COCODetectionDataModule", {"augment": [transform("stranger.Module")]}),
}


@pytest.fixture(scope="session")
def seen() -> Iterator[list[tuple[str, str]]]:
    """What is imported, written, started or connected to, while the list's first entry says so."""
    events: list[tuple[str, str]] = []

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if not events or events[0] != ("look", ""):
            return
        if event == "import" or (
            event == "open"
            and isinstance(values[2], int)
            and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            events.append((event, str(values[0])))
        elif event == "exec":  # importlib.import_module has no event of its own
            events.append(("import", Path(values[0].co_filename).stem))
        elif event.startswith(ACTS):
            events.append((event, str(values)))

    sys.addaudithook(hook)
    yield events
    events.clear()


@pytest.fixture
def watched(seen: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """What has happened since, for `harm`."""
    seen[:] = [("look", "")]
    yield seen
    seen.clear()


def harm(seen: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of what was seen, what no refusal does: a stranger's import, a file, a socket, a process."""
    return [
        (event, name)
        for event, name in seen[1:]
        if not (event == "import" and name.partition(".")[0] not in ("stranger", "this", "subprocess"))
        and not (event == "open" and ("__pycache__" in name or name in ("/dev/null", "None")))
    ]


@pytest.fixture
def theirs(trained, tmp_path: Path, monkeypatch) -> Path:
    """A checkpoint that works, in a working folder with the stranger's module and files."""
    trained()
    path = tmp_path / "theirs.ckpt"
    shutil.copy(checkpoint(tmp_path), path)
    shutil.rmtree(tmp_path / "lightning_logs")
    (tmp_path / "stranger.py").write_text(STRANGER)
    (tmp_path / "theirs.yaml").write_text("[stranger.Module]")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("stranger", None)
    sys.modules.pop("this", None)
    return path


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture
def tried(run, tmp_path: Path, watched) -> Callable[[Path], list[str]]:
    """Give a checkpoint to everything that takes one; returns what each says, and fails if harm is done."""

    def call(path: Path) -> list[str]:
        before, said = files(tmp_path), []
        watched[1:] = []
        for words in (
            ("fit", "--trainer.max_epochs=2"),
            ("validate",),
            ("test",),
            ("predict", "--data.predict_images=photo.png"),
        ):
            outcome = run(*words, f"--ckpt_path={path}", "--trainer.accelerator=cpu")
            assert outcome.status == 2, outcome.out + outcome.err
            assert "Traceback" not in outcome.err
            said.append(outcome.err)
        for words in (("profile", "--config", path), ("attention", "sites", path)):
            outcome = run(*words)
            assert outcome.status == 2
            assert "Traceback" not in outcome.err
        with pytest.raises(AttnlabError) as error:
            attnlab.load(path)
        said.append(str(error.value))
        assert not harm(watched)
        assert files(tmp_path) == before
        return said

    return call


def test_nothing_of_the_gallery_is_run(theirs: Path, tried) -> None:
    good = torch.load(theirs, weights_only=True)
    for name, (change, asked) in REFUSED.items():
        content = copy.deepcopy(good)
        change(content)
        torch.save(content, theirs)
        for said in tried(theirs):
            assert asked in said, (name, said)


@pytest.mark.parametrize("task", TWINS)
def test_nor_of_the_other_tasks(theirs: Path, tried, task) -> None:
    cls, module, options = TWINS[task]
    network = {"network": "timm/test_resnet", "num_classes": 2}
    if task == "detection":
        network = {"network": "yolof", "num_classes": 2}
    content = torch.load(theirs, weights_only=True)
    content["hyper_parameters"] = {
        **network,
        CLASS_PATH: f"{cls.__module__}.{cls.__qualname__}",
        "attention": {"name": "none"},
    }
    content[OF_DATA] = {CLASS_PATH: f"attnlab.data.{module}", "root": "data", **options}
    torch.save(content, theirs)
    assert all("stranger.Module" in said for said in tried(theirs))


def test_a_pickle_is_not_unpickled(theirs: Path, tried) -> None:
    content = torch.load(theirs, weights_only=True)
    torch.save({**content, "more": Runs()}, theirs)
    assert all("Cannot read" in said for said in tried(theirs))
    theirs.write_bytes(pickle.dumps(Runs()))
    assert all("Cannot read" in said for said in tried(theirs))


def test_lightnings_own_loader(theirs: Path, tmp_path: Path, watched) -> None:
    good = torch.load(theirs, weights_only=True)
    assert isinstance(BaseTask.load_from_checkpoint(theirs), SegmentationTask)
    before = files(tmp_path)
    watched[1:] = []
    for change in (
        attention(name="stranger.Attention"),
        attention(options={"kind": transform("stranger.Module")}),
        model(**{CLASS_PATH: "stranger.Task"}),
        model(attention="theirs.yaml"),
    ):
        content = copy.deepcopy(good)
        change(content)
        torch.save(content, theirs)
        for cls in (BaseTask, SegmentationTask):
            with pytest.raises(AttnlabError, match=r"stranger|theirs"):
                cls.load_from_checkpoint(theirs)
    assert not harm(watched)
    assert files(tmp_path) == before


def test_what_is_ignored(theirs: Path, run, tmp_path: Path, voc: Path, watched) -> None:
    """Where data come from and go to, who builds the task, and the Trainer's options."""
    content = torch.load(theirs, weights_only=True)
    content["hyper_parameters"][INSTANTIATOR] = "stranger.run"
    content[OF_DATA] |= {"download": True, "mirror": "http://127.0.0.1:9/", "root": str(tmp_path / "new")}
    content["attnlab"]["length"] = {
        "max_epochs": 2,
        "callbacks": [transform("stranger.Module")],
        "logger": True,
    }
    torch.save(content, theirs)
    before = files(tmp_path)
    watched[1:] = []
    for command in ("fit", "validate", "test"):
        outcome = run(command, f"--ckpt_path={theirs}", "--trainer.accelerator=cpu")
        assert outcome.status == 2
        assert "--data.root FOLDER" in outcome.err
    assert not [each for each in harm(watched) if "open" not in each]
    assert not (tmp_path / "new").exists()
    assert files(tmp_path) == before
    # Given by the user it is used, and what was remembered is still not asked for anything.
    outcome = run("validate", f"--ckpt_path={theirs}", f"--data.root={voc}", "--trainer.accelerator=cpu")
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / "it_ran").exists()


def test_ones_own_code_is_named_or_trusted(run, small, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Gate(torch.nn.Module):\n"
        "    def __init__(self, channels: int):\n"
        "        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.ones(channels, 1, 1))\n"
        "    def forward(self, x):\n"
        "        return x * self.scale\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = "--model.attention=mine.Gate"
    assert run("fit", *small, own).status == 0
    last = f"--ckpt_path={checkpoint(tmp_path)}"
    refused = run("validate", last, "--trainer.accelerator=cpu")
    assert refused.status == 2
    assert "mine.Gate" in refused.err
    assert "--trust_checkpoint true" in refused.err
    for more in (own, "--trust_checkpoint=true"):
        outcome = run("validate", last, "--trainer.accelerator=cpu", more)
        assert outcome.status == 0, outcome.err
    assert attnlab.load(checkpoint(tmp_path), trust=True).task.attention.name == "mine.Gate"
    assert isinstance(BaseTask.load_from_checkpoint(checkpoint(tmp_path), trust=True), SegmentationTask)
    # A run of it is resumed by its YAML.
    yaml = checkpoint(tmp_path).parents[1] / "config.yaml"
    resumed = run("fit", f"--config={yaml}", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert resumed.status == 0, resumed.err
    assert "trust_checkpoint: false" in yaml.read_text()


def test_the_listed_transforms_come_back(run, small, tmp_path: Path) -> None:
    """By the command line and in Python, words for enumerations included."""
    flags = [word for word in small if not word.startswith("--data.crop_size")]
    chain = [
        transform(f"{V2}.AutoAugment", policy="CIFAR10"),
        transform(f"{V2}.Compose", transforms=[transform(f"{V2}.Grayscale", num_output_channels=3)]),
    ]
    outcome = run("fit", *flags, "--data.crop_size=64", f"--data.eval_transforms={chain}")
    assert outcome.status == 0, outcome.err
    last = checkpoint(tmp_path)
    outcome = run("validate", f"--ckpt_path={last}", "--trainer.accelerator=cpu")
    assert outcome.status == 0, outcome.err
    augment, compose = attnlab.load(last).data.eval_transforms
    assert augment.policy.name == "CIFAR10"
    assert type(compose.transforms[0]).__name__ == "Grayscale"
