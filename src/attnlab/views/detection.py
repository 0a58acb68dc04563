"""Views of detection: boxes on images, precision-recall curves, tables, COCO files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from attnlab.drawing.boxes import detection_panel, truths
from attnlab.drawing.curves import precision_picture
from attnlab.drawing.pixels import Pixels
from attnlab.metrics import ClassAP
from attnlab.views import base
from attnlab.views.coco_json import ImageDetections, coco_text, json_list, summed_up
from attnlab.views.predictions import DetectionPrediction, Prediction

FILE = "predictions.json"
COLUMNS = ("index", "category_id", "class", "truths", "AP", "AP50", "VOC_AP50")


class DetectionGallery(base.PanelGallery):
    """Draws the first images of the validation or test set, ground truth next to detections.

    Found objects are green, missed ones and false detections red. Pictures go to the loggers (TensorBoard's
    Images tab), and the latest to ``pictures/`` in the run's folder: one PNG per image and ``val.png`` or
    ``test.png`` with all of them. Crowd and difficult objects are dashed.

    Args:
        count: Number of images drawn (always the first of the set); 0 draws none.
        every_n_epochs: Draw every this many validation epochs, and after the last.
        max_side: Longest side of a drawn image in pixels, at least 32; images are shrunk or enlarged to it.
        min_score: Detections with a lower score, in 0..1, are not drawn.

    Raises:
        AttnlabError: A number is out of range.
    """

    found = "detections"
    least_side = 32

    def __init__(
        self, count: int = 6, every_n_epochs: int = 1, max_side: int = 480, min_score: float = 0.3
    ) -> None:
        super().__init__(count, every_n_epochs, max_side)
        self.min_score = base.share(min_score, "pictures.min_score")

    def panel(self, found: Any, batch: dict[str, Any], position: int, data: Any) -> Pixels:
        """One image of a batch; without annotations, only its detections."""
        target = batch["target"][position]
        return detection_panel(
            batch["image"][position],
            truths(target) if "boxes" in target else None,
            found,
            batch["name"][position],
            data.class_names,
            data.palette,
            self.max_side,
            self.min_score,
        )


class PrecisionCurves(base.Gallery):
    """Draws precision against recall after validation and test: means over classes, and single classes.

    The picture goes to the loggers (TensorBoard's Images tab), and the latest to ``pictures/`` in the run's
    folder: ``val_precision_recall.png`` or ``test_precision_recall.png``. A set without objects has none.

    Args:
        write: Draw the curves.
        every_n_epochs: Draw every this many validation epochs, and after the last.

    Raises:
        AttnlabError: ``every_n_epochs`` is below 1.
    """

    option = "curves"

    def __init__(self, write: bool = True, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self.wanted = write

    def pictures(self, stage: str, result: Any, data: Any) -> Iterator[base.Picture]:
        """The stage's curves."""
        if result is None:
            return
        title = f"{stage}: {result.images} images, {result.truths} objects"
        drawn = precision_picture(result.precision, data.class_names, title)
        if drawn is not None:
            yield base.Picture(f"{stage}_precision_recall", drawn, f"{stage}/precision_recall")


class ClassAPTable(base.Record):
    """Writes ``classes_test.csv`` to the run's folder: category id, name, objects and APs per class.

    ``AP`` is COCO's mean over IoUs of 0.50 to 0.95, ``AP50`` COCO's at 0.50, ``VOC_AP50`` Pascal VOC's.

    Args:
        write: Write the table after ``test`` (``classes_test.csv``) and ``validate`` (``classes_val.csv``).
    """

    def file(self, stage: str, result: Any, data: Any) -> base.TextFile | None:
        """A row for each class."""
        if result is None or not result.images:
            return None
        rows = ap_rows(result.per_class, data.class_names, data.category_ids)
        return base.TextFile(f"classes_{stage}.csv", base.csv_text([COLUMNS, *rows]))


def ap_rows(
    per_class: Mapping[str, ClassAP], names: Sequence[str], category_ids: Sequence[int]
) -> list[tuple[object, ...]]:
    """A row for each of K classes, with the columns `COLUMNS`; undefined APs are empty."""
    rows: list[tuple[object, ...]] = []
    for index, (name, category_id) in enumerate(zip(names, category_ids, strict=True)):
        one = per_class.get(name)
        figures = (one.ap, one.ap50, one.voc_ap50) if one else ()
        cells = ["" if math.isnan(value) else value for value in figures] or [""] * 3
        rows.append((index, category_id, name, one.truths if one else 0, *cells))
    return rows


class DetectionsFile(base.Record):
    """Writes the detections of a test or validation run to ``detections_test.json`` in the run's folder.

    The file is in COCO's results format, a list of ``image_id``, ``category_id``, ``bbox`` (x, y, width,
    height in pixels) and ``score``. COCO's tools can score it, and its server accepts it for splits without
    public annotations. Every image counts once, on any number of processes. A run without a folder writes
    nothing.

    Args:
        write: Write the file after ``test`` (``detections_test.json``) and ``validate``
            (``detections_val.json``).
    """

    def collect(self, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep a batch's detections."""
        indices = batch["index"].tolist()
        for index, target, detections in zip(indices, batch["target"], outputs["detections"], strict=True):
            if detections is not None:
                self.kept[index] = int(target["image_id"]), ImageDetections.of(detections)

    def file(self, stage: str, result: Any, data: Any) -> base.TextFile | None:
        """The detections of all processes, in data-set order."""
        images = self.all_kept()
        entries = (e for image_id, found in images for e in found.entries(image_id, data.category_ids))
        said = f"{summed_up([found for _, found in images])} are in {{path}}, in COCO's results format"
        return base.TextFile(f"detections_{stage}.json", json_list(entries), said)


class DetectionWriter(base.Writer):
    """Writes the detections in each image to ``predictions.json``, and draws them.

    The file is in COCO's format with ``images``, ``categories`` and ``annotations``, which also have a
    ``score``; ``file_name`` is the image's path as given, its id the position in the input, from 1.
    ``NAME.jpg`` shows the image with its boxes. Images with the same name in different folders are numbered.

    Args:
        output_dir: Folder to write to; created if missing.
        pictures: Also draw each image with its boxes.
        min_score: Detections with a lower score, in 0..1, are not drawn; the file has all detections.
        drawings: Former name of ``pictures``; false turns them off, too.

    Raises:
        AttnlabError: ``min_score`` is out of range.
    """

    def __init__(
        self,
        output_dir: str = "predictions",
        pictures: bool = True,
        min_score: float = 0.3,
        drawings: bool | None = None,
    ) -> None:
        super().__init__(output_dir, pictures and drawings is not False)
        self.min_score = base.share(min_score, "predictions.min_score")

    def planned(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A drawing per image, and the file."""
        return ((".jpg",) if self.pictures else ()), (FILE,)

    def add(self, prediction: Prediction, index: int, name: str, data: Any) -> None:
        """Keep the detections, and draw them."""
        assert isinstance(prediction, DetectionPrediction)
        height, width = prediction.image.shape[-2:]
        image = {"id": index + 1, "file_name": str(prediction.path), "width": width, "height": height}
        self.kept[index] = image, ImageDetections.of(prediction.found)
        if self.pictures:
            drawn = Image.fromarray(prediction.drawn(self.min_score))
            drawn.save(self.output_dir / f"{name}.jpg", quality=92, subsampling=0)

    def finish(self, data: Any, first: bool) -> str:
        """Write the file."""
        images = self.all_kept()
        if not first:
            return ""
        path = self.output_dir / FILE
        base.beside(path, coco_text(images, data.class_names, data.category_ids))
        drawn = f"; the drawings are in {self.output_dir}/" if self.pictures and images else ""
        return f"{summed_up([found for _, found in images])} are in {path}{drawn}"


class DetectionView(base.View):
    """The view of detection."""

    gallery = DetectionGallery
    writer = DetectionWriter
    more: ClassVar = {"curves": PrecisionCurves, "class_table": ClassAPTable, "detections": DetectionsFile}

    def prediction(self, found: Any, image: Tensor, path: Path | None, data: Any) -> DetectionPrediction:
        """``boxes`` (M, 4), ``scores`` (M,) and ``labels`` (M,)."""
        boxes, scores, labels = (found[key].cpu() for key in ("boxes", "scores", "labels"))
        return DetectionPrediction(image, path, list(data.class_names), boxes, scores, labels, data.palette)

    def image(self, batch: dict[str, Any], position: int, data: Any) -> Tensor:
        """The image as uint8."""
        return (batch["image"][position].detach().float() * 255).round().clamp(0, 255).byte().cpu()
