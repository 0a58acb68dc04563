"""Which task and which data are the arguments for?"""

from __future__ import annotations

from pathlib import Path

import pytest

from attnlab import data
from attnlab.cli.arguments import Arguments
from attnlab.cli.classes import chosen, data_for, find_class, fitted
from attnlab.data import COCODetectionDataModule, MaskFolderDataModule, VOCSegmentationDataModule
from attnlab.errors import AttnlabError
from attnlab.tasks import ClassificationTask, DetectionTask, SegmentationTask


@pytest.fixture
def yaml_of(tmp_path: Path):
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def classes(*argv: str, remembered: dict | None = None) -> tuple[str, str]:
    task, module = chosen(Arguments.read(["fit", *argv]), remembered or {})
    return task.__name__.removesuffix("Task").lower(), module.__name__.removesuffix("DataModule")


def test_nobody_asks() -> None:
    assert classes("--model.encoder=resnet18") == ("segmentation", "ShapesSegmentation")


def test_the_flag_beats_the_yaml_and_the_last_yaml_beats_the_first(yaml_of) -> None:
    one, two = yaml_of("1.yaml", "model: ClassificationTask"), yaml_of("2.yaml", "model: SegmentationTask")
    other = yaml_of("3.yaml", "model: {init_args: {encoder: x}}")
    assert classes(f"--config={one}")[0] == "classification"
    assert classes("--config", one, "--config", two, "-c", other)[0] == "segmentation"
    assert classes("--model", "ClassificationTask", f"--config={two}")[0] == "classification"
    assert classes('--config={"model": "DetectionTask"}') == ("detection", "ShapesDetection")


def test_the_task_is_that_of_the_data(yaml_of) -> None:
    block = yaml_of("1.yaml", "data: {class_path: attnlab.data.imagefolder.ImageFolderDataModule}")
    name = yaml_of("2.yaml", "data: YOLODetectionDataModule")
    assert classes("--data=COCODetectionDataModule") == ("detection", "COCODetection")
    assert classes(f"--config={block}") == ("classification", "ImageFolder")
    assert classes(f"--config={block}", f"--config={name}") == ("detection", "YOLODetection")
    assert classes(f"--config={name}", "--data", "attnlab.data.MaskFolderDataModule")[0] == "segmentation"
    assert classes("--data=COCODetectionDataModule", "--model=SegmentationTask")[0] == "segmentation"


def test_what_a_recipe_said_before_tasks_were_classes(yaml_of) -> None:
    old = yaml_of("old.yaml", "task: classification\nmodel: {network: resnet18, attention: se}")
    read = Arguments.read(["fit", f"--config={old}"])
    options = {"network": "resnet18", "attention": {"options": {}, "name": "se"}}
    assert read.recipes == [{"model": {"class_path": "ClassificationTask", "init_args": options}}]
    assert classes("--task=detection")[0] == "detection"
    assert classes("--task", "Detection", f"--config={old}")[0] == "detection"


def test_a_checkpoint_says_what_nobody_else_says() -> None:
    remembered = {
        "model": {"class_path": "attnlab.tasks.detection.DetectionTask"},
        "data": {"class_path": "attnlab.data.COCODetectionDataModule"},
    }
    assert classes(remembered=remembered) == ("detection", "COCODetection")
    assert classes("--data=YOLODetectionDataModule", remembered=remembered) == ("detection", "YOLODetection")
    with pytest.raises(AttnlabError, match=r"saved by DetectionTask, but .* ask for SegmentationTask"):
        classes("--model=SegmentationTask", remembered=remembered)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task=clasification"], "Did you mean 'classification'"),
        (["--model=ClasificationTask"], "Did you mean 'ClassificationTask'"),
        (["--model=no_such_module.Task"], "cannot be imported"),
        (["--model=attnlab.data.MaskFolderDataModule"], "not a subclass of attnlab.tasks.base.BaseTask"),
        (["--data=MaskFoldersDataModule"], "Did you mean 'MaskFolderDataModule'"),
        (['--config={"task": ["segmentation"]}'], "Unknown task"),
        (["--config=nowhere/at_all.yaml"], "Cannot read the recipe 'nowhere/at_all.yaml'"),
        (["--config=quickstart_segmentatoin"], "Did you mean 'quickstart_segmentation'"),
        (["--config="], "--config takes a YAML file"),
        (["--ckpt_path=nowhere.ckpt"], "No checkpoint at nowhere.ckpt"),
    ],
)
def test_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        classes(*arguments)


@pytest.mark.parametrize("text", ["a: [1", "- a"])
def test_a_yaml_that_is_none(yaml_of, text) -> None:
    with pytest.raises(AttnlabError, match=r"not valid YAML|no top-level keys"):
        Arguments.read(["fit", f"--config={yaml_of('a.yaml', text)}"])


@pytest.mark.parametrize("task", [ClassificationTask, DetectionTask, SegmentationTask])
def test_the_data_of_a_task(task) -> None:
    names = data_for(task)
    assert names[0] == task.default_data
    assert all(issubclass(find_class("data", name), data.DataModule) for name in names)
    assert not {"DataModule", "ClassificationDataModule", "DetectionDataModule"} & set(names)


def test_options_of_another_class_stay_where_both_have_them() -> None:
    recipe = {
        "model": {"class_path": "SegmentationTask", "init_args": {"encoder": "x", "weights": "imagenet"}},
        "data": {
            "class_path": "VOCSegmentationDataModule",
            "init_args": {"root": "voc", "year": "2012", "crop_size": 64, "batch_size": 3},
        },
        "trainer": {"max_epochs": 1},
    }
    same, left_out = fitted(recipe, {"model": SegmentationTask, "data": VOCSegmentationDataModule}, "a.yaml")
    assert same["data"]["init_args"] == recipe["data"]["init_args"]
    assert left_out == []

    class Mine(VOCSegmentationDataModule):
        """Everything still fits."""

    assert fitted(recipe, {"model": SegmentationTask, "data": Mine}, "a.yaml")[1] == []
    other, left_out = fitted(recipe, {"model": SegmentationTask, "data": MaskFolderDataModule}, "a.yaml")
    assert other["data"] == {"init_args": {"crop_size": 64, "batch_size": 3}}
    assert left_out == ["root, year of VOCSegmentationDataModule"]
    other, left_out = fitted(recipe, {"model": DetectionTask, "data": COCODetectionDataModule}, "a.yaml")
    assert other["data"] == {"init_args": {"batch_size": 3}}
    assert other["model"] == {"init_args": {"weights": "imagenet"}}
    assert other["trainer"] == {"max_epochs": 1}
    assert len(left_out) == 2
