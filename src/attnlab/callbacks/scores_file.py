"""Saves a checkpoint's scores in its run's folder."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from attnlab.callbacks.evaluation import EvaluationCallback, shown
from attnlab.errors import AttnlabError
from attnlab.views.base import beside

FILE = "scores.json"
VERSIONS = ("attnlab", "torch", "torchvision", "lightning")


class ScoresFile(EvaluationCallback):
    """Appends the scores of ``test`` and ``validate`` to ``scores.json``.

    The file is a list with one entry per metric: ``split`` (``val`` or ``test``), ``metric``, ``value``,
    ``checkpoint`` (its path in the folder), ``date`` (UTC) and ``versions``. Existing entries are kept.

    Args:
        folder: The run's folder.
        checkpoint: The checkpoint.
    """

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder = folder
        self.checkpoint = checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise an AttnlabError early if the file cannot be appended to."""
        read_scores(self.folder / FILE)

    def ends(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Append."""
        if not trainer.is_global_zero or not self.asked_for(trainer):
            return
        common = {
            "checkpoint": shown(self.checkpoint, self.folder),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
        }
        entries = []
        for name, tensor in sorted(trainer.callback_metrics.items()):
            if name.startswith((f"{stage}/", f"{stage}_")):
                # JSON has no NaN or infinity.
                value = float(tensor) if tensor.isfinite() else None
                entries.append(
                    {"split": stage, "metric": name.removeprefix(f"{stage}/"), "value": value, **common}
                )
        path = self.folder / FILE
        text = ",\n".join(json.dumps(entry) for entry in [*read_scores(path), *entries])
        beside(path, [f"[\n{text}\n]\n"])
        print(f"{len(entries)} scores appended to {shown(path)}")


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The entries of a file of scores, empty without a file; an AttnlabError for anything else."""
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        content = error
    if not isinstance(content, list):
        raise AttnlabError(
            f"'{path}' is not a list of scores, so nothing can be appended to it. Move or rename it."
        )
    return content
