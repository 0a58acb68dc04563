"""The tasks that the command line knows, and the data that suits each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnlab.errors import unknown
from attnlab.tasks import BaseTask, ClassificationTask, DetectionTask, SegmentationTask
from attnlab.yaml_files import read_yaml


@dataclass(frozen=True)
class TaskKind:
    """One task, as the command line puts it together.

    Attributes:
        task: The LightningModule, with its view.
        data: The data modules that suit it, by their names in `attnlab.data` or import paths; the first is
            the default.
        from_data: Arguments of the task that the data module's attributes of the same name fill.
    """

    task: type[BaseTask]
    data: tuple[str, ...]
    from_data: tuple[str, ...]

    @property
    def name(self) -> str:
        """What ``--task`` calls it."""
        return self.task.kind

    @property
    def default_data(self) -> str:
        """Import path of the data module that is taken where none is named."""
        first = self.data[0]
        return first if "." in first else f"attnlab.data.{first}"


TASK_KINDS = {
    kind.name: kind
    for kind in (
        TaskKind(
            SegmentationTask,
            ("ShapesSegmentationDataModule", "VOCSegmentationDataModule", "MaskFolderDataModule"),
            ("class_names", "ignore_index"),
        ),
        TaskKind(
            ClassificationTask,
            ("ShapesClassificationDataModule", "ImageFolderDataModule", "ImageNetDataModule"),
            ("class_names",),
        ),
        TaskKind(
            DetectionTask,
            (
                "ShapesDetectionDataModule",
                "COCODetectionDataModule",
                "VOCDetectionDataModule",
                "YOLODetectionDataModule",
            ),
            ("class_names",),
        ),
    )
}
DEFAULT_TASK = "segmentation"


def task_asked_for(argv: Sequence[str]) -> str | None:
    """The task that the arguments name, or that the data which they name is for; else None.

    ``--task`` beats the key in a YAML, of which the last counts, and that beats the data. The parser cannot
    be asked, since the task decides which options the parser has.

    Args:
        argv: Arguments as typed.

    Raises:
        AttnlabError: For an unknown task, or a YAML that cannot be read.
    """
    contents = map(_content, _values(argv, "--config", "-c"))
    named = [content["task"] for content in contents if "task" in content] + _values(argv, "--task")
    if not named:
        data = _class_name(data_named(argv) or "")
        return next((name for name, kind in TASK_KINDS.items() if data in map(_class_name, kind.data)), None)
    if not isinstance(named[-1], str) or named[-1] not in TASK_KINDS:
        raise unknown("task", str(named[-1]), TASK_KINDS)
    return named[-1]


def data_named(argv: Sequence[str]) -> str | None:
    """The data module that the arguments, or the last YAML among them that does, name; else None.

    Args:
        argv: Arguments as typed.
    """
    blocks = [content.get("data") for content in map(_content, _values(argv, "--config", "-c"))]
    named = [block.get("class_path") if isinstance(block, dict) else block for block in blocks]
    named += _values(argv, "--data", "--data.class_path")
    return next((name for name in reversed(named) if isinstance(name, str)), None)


def _class_name(path: str) -> str:
    return path.rpartition(".")[2]


def _values(argv: Sequence[str], *flags: str) -> list[str]:
    """The values of a flag, written ``--flag=value`` or ``--flag value``, in order."""
    values = []
    for position, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag in flags:
            if equals:
                values.append(value)
            elif position + 1 < len(argv):
                values.append(argv[position + 1])
    return values


def _content(config: str) -> dict[str, Any]:
    """A YAML's content; that of one written into the arguments themselves, too."""
    if config.lstrip().startswith("{"):
        return json.loads(config)
    return read_yaml(config)
