"""Detections in any pictures, as COCO's JSON and as drawings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image

from attnlab.callbacks.boxes import bright, detected, draw_boxes, picture_of, scaled
from attnlab.callbacks.detections_file import ImageDetections, json_text, listed, summed_up, write_beside
from attnlab.callbacks.gather import gathered
from attnlab.callbacks.outputs import plan_outputs
from attnlab.errors import AttnlabError

FILE = "predictions.json"
# Longest side of a drawing in pixels: smaller pictures are enlarged, larger ones shrunk.
SMALLEST, LARGEST = 480, 1600


@dataclass
class _Predicted:
    """An image and what was found in it."""

    path: str
    width: int
    height: int
    found: ImageDetections


class DetectionWriter(BasePredictionWriter):
    """Writes what is found in each predicted image to ``predictions.json``, and draws it.

    The file is in COCO's format with ``images``, ``categories`` and ``annotations``, which have a ``score``
    besides; ``file_name`` is the image's path as it was given, and its id its place in the input, from 1.
    ``NAME.jpg`` shows the image with its boxes. Images of one name in different folders get a number each.

    Args:
        output_dir: Folder to write to; made when missing.
        drawings: Draw each image with its boxes, besides writing the file.
        min_score: Detections of a lower score, in 0..1, are not drawn; the file has all.

    Raises:
        AttnlabError: ``min_score`` is out of range.
    """

    def __init__(
        self, output_dir: str = "predictions", drawings: bool = True, min_score: float = 0.3
    ) -> None:
        super().__init__(write_interval="batch")
        if not 0 <= min_score <= 1:
            raise AttnlabError(f"predictions.min_score is {min_score}; it must lie in 0..1.")
        self.output_dir = Path(output_dir)
        self.drawings = drawings
        self.min_score = min_score
        self._names: dict[str, str] = {}
        self._kept: list[_Predicted] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder, and name the drawings, the same on every process.

        Raises:
            AttnlabError: A file would take the place of one that is not attnlab's.
        """
        loader = trainer.predict_dataloaders
        assert loader is not None
        self._kept = []
        suffixes = (".jpg",) if self.drawings else ()
        self._names = plan_outputs(trainer, self.output_dir, loader.dataset.paths, suffixes, (FILE,))

    def drawing(self, name: str) -> Path:
        """Where an image's drawing lies."""
        return self.output_dir / f"{name}.jpg"

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Sequence[Any],
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Draw the images of one batch, and keep their detections."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        indices = batch["index"].tolist()
        for i, detections in enumerate(prediction):
            if detections is None:
                continue
            path, image = str(batch["path"][i]), batch["image"][i]
            height, width = image.shape[-2:]
            found = ImageDetections.of(indices[i], detections)
            self._kept.append(_Predicted(path, width, height, found))
            if self.drawings:
                pixels, factors = picture_of(image, SMALLEST, LARGEST)
                boxes = scaled(detected(detections, self.min_score), factors)
                drawn = draw_boxes(pixels, boxes, data.class_names, bright(data.palette))
                Image.fromarray(drawn).save(self.drawing(self._names[path]), quality=92, subsampling=0)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather from all processes, write the file, and say where all lies."""
        kept, self._kept = self._kept, []
        images = [image for part in gathered(kept) for image in part]
        if not trainer.is_global_zero:
            return
        images.sort(key=lambda image: image.found.index)
        data = trainer.datamodule  # type: ignore[attr-defined]
        path = self.output_dir / FILE
        write_beside(path, coco_text(images, data.class_names, data.category_ids))
        drawn = f"; the drawings lie in {self.output_dir}/" if self.drawings and images else ""
        print(f"{summed_up([image.found for image in images])} are in {path}{drawn}")


def coco_text(
    images: Sequence[_Predicted], class_names: Sequence[str], category_ids: Sequence[int]
) -> Iterator[str]:
    """Pieces of COCO's JSON of the images with their detections as annotations.

    Args:
        images: In the order of the input.
        class_names: K names.
        category_ids: The category id of each class.
    """
    heads = (
        json_text(
            {
                "id": image.found.index + 1,
                "file_name": image.path,
                "width": image.width,
                "height": image.height,
            }
        )
        for image in images
    )
    categories = (
        json_text({"id": category_id, "name": name})
        for category_id, name in zip(category_ids, class_names, strict=True)
    )
    yield '{"info":{"description":"Detections by attnlab"},\n"images":'
    yield from listed(heads)
    yield ',\n"categories":'
    yield from listed(categories)
    yield ',\n"annotations":'
    yield from listed(_annotations(images, category_ids))
    yield "}\n"


def _annotations(images: Sequence[_Predicted], category_ids: Sequence[int]) -> Iterator[str]:
    """Each detection as an annotation with an id, counted from 1."""
    number = 0
    for image in images:
        entries = image.found.entries(image.found.index + 1, category_ids)
        for entry, (x0, y0, x1, y1) in zip(entries, image.found.boxes.tolist(), strict=True):
            number += 1
            area = round((x1 - x0) * (y1 - y0), 3)
            yield f'{{"id":{number},{entry[1:-1]},"area":{area!r},"iscrowd":0}}'
