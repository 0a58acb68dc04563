"""The tasks that the command line knows, and what belongs to each: data, pictures, predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback

from attnlab.callbacks import (
    ClassAPTable,
    ClassificationPictures,
    ClassificationWriter,
    ClassTable,
    DetectionPictures,
    DetectionsFile,
    DetectionWriter,
    PrecisionCurves,
    SegmentationPictures,
    SegmentationWriter,
)
from attnlab.errors import unknown
from attnlab.tasks import BaseTask, ClassificationTask, DetectionTask, SegmentationTask
from attnlab.yaml_files import read_yaml


@dataclass(frozen=True)
class TaskKind:
    """One task, as the command line puts it together.

    Attributes:
        task: The LightningModule.
        data: Names of the data modules that suit it; the first is the default.
        pictures: The callback that draws.
        writer: The callback that writes predictions.
        from_data: Arguments of the task that the data module's attributes of the same name fill.
        more: Further callbacks, by what the command line calls their options.
    """

    task: type[BaseTask]
    data: tuple[str, ...]
    pictures: type[Callback]
    writer: type[Callback]
    from_data: tuple[str, ...]
    more: Mapping[str, type[Callback]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What ``--task`` calls it."""
        return self.task.kind


TASK_KINDS = {
    kind.name: kind
    for kind in (
        TaskKind(
            SegmentationTask,
            ("ShapesSegmentationDataModule", "VOCSegmentationDataModule", "MaskFolderDataModule"),
            SegmentationPictures,
            SegmentationWriter,
            ("class_names", "ignore_index"),
        ),
        TaskKind(
            ClassificationTask,
            ("ShapesClassificationDataModule", "ImageFolderDataModule", "ImageNetDataModule"),
            ClassificationPictures,
            ClassificationWriter,
            ("class_names",),
            {"class_table": ClassTable},
        ),
        TaskKind(
            DetectionTask,
            (
                "ShapesDetectionDataModule",
                "COCODetectionDataModule",
                "VOCDetectionDataModule",
                "YOLODetectionDataModule",
            ),
            DetectionPictures,
            DetectionWriter,
            ("class_names",),
            {"curves": PrecisionCurves, "class_table": ClassAPTable, "detections": DetectionsFile},
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
