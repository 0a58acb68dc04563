"""Which task do the arguments ask for?"""

from __future__ import annotations

from pathlib import Path

import pytest

from attnlab.errors import AttnlabError
from attnlab.task_kinds import TASK_KINDS, task_asked_for


@pytest.fixture
def yaml_of(tmp_path: Path):
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_nobody_asks() -> None:
    assert task_asked_for(["fit", "--model.encoder=resnet18"]) is None


def test_the_flag_beats_the_yaml_and_the_last_yaml_beats_the_first(yaml_of) -> None:
    one, two = yaml_of("1.yaml", "task: classification"), yaml_of("2.yaml", "task: segmentation")
    other = yaml_of("3.yaml", "model: {lr: 1}")
    assert task_asked_for(["fit", f"--config={one}"]) == "classification"
    assert task_asked_for(["fit", "--config", one, "--config", two, "-c", other]) == "segmentation"
    assert task_asked_for(["fit", "--task", "classification", f"--config={two}"]) == "classification"
    assert task_asked_for(["fit", '--config={"task": "classification"}']) == "classification"


def test_data_is_for_one_task_unless_another_is_asked_for(yaml_of) -> None:
    block = yaml_of("1.yaml", "data: {class_path: attnlab.data.imagefolder.ImageFolderDataModule}")
    name = yaml_of("2.yaml", "data: YOLODetectionDataModule")
    assert task_asked_for(["fit", "--data=COCODetectionDataModule"]) == "detection"
    assert task_asked_for(["fit", f"--config={block}"]) == "classification"
    assert task_asked_for(["fit", f"--config={block}", f"--config={name}"]) == "detection"
    assert task_asked_for(["fit", f"--config={name}", "--data", "attnlab.data.MaskFolderDataModule"]) == (
        "segmentation"
    )
    assert task_asked_for(["fit", "--data=my.OwnData"]) is None
    assert task_asked_for(["fit", "--data=COCODetectionDataModule", "--task=segmentation"]) == "segmentation"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task=clasification"], "Did you mean 'classification'"),
        (['--config={"task": ["segmentation"]}'], "Unknown task"),
        (["--config=nowhere.yaml"], "Cannot read the configuration 'nowhere.yaml'"),
    ],
)
def test_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        task_asked_for(["fit", *arguments])


def test_a_yaml_that_is_none(yaml_of) -> None:
    with pytest.raises(AttnlabError, match="is no YAML"):
        task_asked_for(["fit", f"--config={yaml_of('a.yaml', 'a: [1')}"])


@pytest.mark.parametrize("kind", TASK_KINDS.values(), ids=lambda kind: kind.name)
def test_the_data_modules_are_there(kind) -> None:
    import attnlab.data

    assert all(hasattr(attnlab.data, name) for name in kind.data)
