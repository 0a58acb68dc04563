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
    """The task that the arguments name: by ``--task``, else in the last YAML that has the key; else None.

    The parser cannot be asked, since the task decides which options the parser has.

    Args:
        argv: Arguments as typed.

    Raises:
        AttnlabError: For an unknown task, or a YAML that cannot be read.
    """
    contents = map(_content, _values(argv, "--config", "-c"))
    named = [content["task"] for content in contents if "task" in content] + _values(argv, "--task")
    asked = named[-1] if named else None
    if asked is not None and (not isinstance(asked, str) or asked not in TASK_KINDS):
        raise unknown("task", str(asked), TASK_KINDS)
    return asked


def data_is_named(argv: Sequence[str]) -> bool:
    """Whether the arguments, or a YAML among them, say which data module it is.

    Args:
        argv: Arguments as typed.
    """
    if _values(argv, "--data", "--data.class_path"):
        return True
    blocks = [content.get("data") for content in map(_content, _values(argv, "--config", "-c"))]
    return any(
        isinstance(block, str) or (isinstance(block, dict) and "class_path" in block) for block in blocks
    )


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
