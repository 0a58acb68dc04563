"""Detections of a whole data set, kept compactly and written as COCO writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor

from attnlab.callbacks.gather import gathered
from attnlab.callbacks.report import shown
from attnlab.errors import AttnlabError


@dataclass
class ImageDetections:
    """What was found in one image.

    Attributes:
        index: Position in the data set.
        boxes: float32 (M, 4), x0, y0, x1, y1 in pixels.
        scores: float32 (M,), in 0..1.
        labels: int32 (M,), classes from 0.
        broken: Detections that were left out since their box or score is not a finite number.
    """

    index: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    broken: int = 0

    @classmethod
    def of(cls, index: int, detections: Mapping[str, Tensor]) -> ImageDetections:
        """Copy an image's ``boxes`` (M, 4), ``scores`` (M,) and ``labels`` (M,) from the device."""
        boxes, scores, labels = (detections[key].detach().cpu() for key in ("boxes", "scores", "labels"))
        boxes, scores = boxes.float().reshape(-1, 4), scores.float()
        finite = boxes.isfinite().all(1) & scores.isfinite()
        return cls(
            index,
            boxes[finite].numpy(),
            scores[finite].numpy(),
            labels[finite].int().numpy(),
            int((~finite).sum()),
        )

    def entries(self, image_id: int, category_ids: Sequence[int]) -> Iterator[str]:
        """COCO's JSON of each detection: ``image_id``, ``category_id``, ``bbox`` (x, y, w, h), ``score``.

        Boxes are rounded to a thousandth of a pixel, scores to a millionth.

        Args:
            image_id: The image's id.
            category_ids: The category id of each class.
        """
        for (x0, y0, x1, y1), score, label in zip(
            self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
        ):
            box = f"[{_number(x0, 3)},{_number(y0, 3)},{_number(x1 - x0, 3)},{_number(y1 - y0, 3)}]"
            yield (
                f'{{"image_id":{image_id},"category_id":{category_ids[label]},"bbox":{box},'
                f'"score":{_number(score, 6)}}}'
            )


def _number(value: float, decimals: int) -> str:
    """The shortest text of a rounded number that JSON reads."""
    return repr(round(value, decimals))


def write_beside(path: Path, pieces: Iterator[str]) -> None:
    """Write a text file from its pieces; it appears when it is complete, by renaming.

    Args:
        path: The file; its folder is made.
        pieces: Its text.

    Raises:
        AttnlabError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise AttnlabError(f"'{path}' cannot be written: {error}.") from error


def listed(entries: Iterator[str]) -> Iterator[str]:
    """The text of a JSON list of the given entries, one a line."""
    before = "[\n"
    for entry in entries:
        yield before + entry
        before = ",\n"
    yield "\n]" if before == ",\n" else "[]"


@dataclass
class _Kept:
    """One process's share of an evaluated set."""

    image_ids: list[int] = field(default_factory=list)
    images: list[ImageDetections] = field(default_factory=list)


class DetectionsFile(Callback):
    """Writes the detections of a test or validation run to ``detections_test.json`` in the run's folder.

    The file is in COCO's results format, a list of ``image_id``, ``category_id``, ``bbox`` (x, y, width,
    height in pixels) and ``score``. It can be scored by COCO's own tools, and is what its server takes for
    a split whose annotations are not public. Every image counts once, also on several processes. A run
    without a folder writes nothing.

    Args:
        write: Write the file after ``test`` (``detections_test.json``) and ``validate``
            (``detections_val.json``).
    """

    def __init__(self, write: bool = True) -> None:
        self.write = write
        self._kept = _Kept()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an interrupted run has left."""
        self._kept = _Kept()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an interrupted run has left."""
        self._kept = _Kept()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's detections, where validation was what was asked for."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._keep(outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's detections."""
        self._keep(outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, where validation was what was asked for."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        self._write(trainer, "test")

    def _keep(self, outputs: Any, batch: dict[str, Any]) -> None:
        if not self.write:
            return
        indices = batch["index"].tolist()
        for index, target, detections in zip(indices, batch["target"], outputs["detections"], strict=True):
            if detections is not None:
                self._kept.image_ids.append(int(target["image_id"]))
                self._kept.images.append(ImageDetections.of(index, detections))

    def _write(self, trainer: Trainer, stage: str) -> None:
        """Gather from all processes; the first one writes, in the order of the data set."""
        if not self.write:
            return
        kept, self._kept = self._kept, _Kept()
        parts = gathered(kept)
        folder = getattr(trainer.logger, "log_dir", None) if trainer.is_global_zero else None
        if folder is None:
            return
        pairs = [pair for part in parts for pair in zip(part.image_ids, part.images, strict=True)]
        pairs.sort(key=lambda pair: pair[1].index)
        category_ids = trainer.datamodule.category_ids  # type: ignore[attr-defined]
        path = Path(folder) / f"detections_{stage}.json"
        entries = (entry for image_id, image in pairs for entry in image.entries(image_id, category_ids))
        write_beside(path, listed(entries))
        images = [image for _, image in pairs]
        print(f"{summed_up(images)} are in {shown(path)}, in COCO's results format")


def summed_up(images: Sequence[ImageDetections]) -> str:
    """How many detections in how many images, and how many were left out."""
    count, broken = sum(len(image.scores) for image in images), sum(image.broken for image in images)
    left_out = f" ({broken} more with infinite or undefined numbers left out)" if broken else ""
    return f"{count} detections in {len(images)} images{left_out}"


def json_text(value: Any) -> str:
    """A value as compact JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
