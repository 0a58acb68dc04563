"""Views of segmentation: class maps over images, and mask files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from attnlab.drawing.masks import palette_image, segmentation_panel
from attnlab.drawing.pixels import Pixels, denormalise
from attnlab.views.base import PanelGallery, View, Writer
from attnlab.views.predictions import Prediction, SegmentationPrediction


class SegmentationGallery(PanelGallery):
    """Draws the first images of the validation or test set: image, truth, prediction, mistakes.

    Pictures go to the loggers (TensorBoard's Images tab), and the latest to ``pictures/`` in the run's
    folder: one PNG per image and ``val.png`` or ``test.png`` with all of them. The options are those of
    `PanelGallery`.
    """

    found = "predictions"

    def panel(self, found: Any, batch: dict[str, Any], position: int, data: Any) -> Pixels:
        """One image of a batch, without its padding."""
        height, width = batch["mask_size"][position].tolist()
        h, w = batch["size"][position].tolist()
        return segmentation_panel(
            denormalise(batch["image"][position, :, :h, :w].float(), data.mean, data.std),
            batch["mask"][position, :height, :width],
            found,
            batch["name"][position],
            data.class_names,
            data.palette,
            self.max_side,
            data.ignore_index,
        )


class SegmentationWriter(Writer):
    """Writes each prediction as a palette mask, and as an overlay with a legend.

    ``NAME.png`` has class indices in VOC's palette at the image's own size; ``NAME_overlay.png`` shows the
    classes over the image. Images with the same name in different folders are numbered.

    Args:
        output_dir: Folder to write to; created if missing.
        pictures: Also write overlays.
        overlays: Former name of ``pictures``; false turns them off, too.
    """

    def __init__(
        self, output_dir: str = "predictions", pictures: bool = True, overlays: bool | None = None
    ) -> None:
        super().__init__(output_dir, pictures and overlays is not False)

    def planned(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A mask and an overlay per image."""
        return (".png", "_overlay.png") if self.pictures else (".png",), ()

    def add(self, prediction: Prediction, index: int, name: str, data: Any) -> None:
        """Write mask and overlay."""
        assert isinstance(prediction, SegmentationPrediction)
        mask = palette_image(prediction.mask.numpy(), prediction.palette)
        mask.save(self.output_dir / f"{name}.png")
        if self.pictures:
            Image.fromarray(prediction.drawn()).save(self.output_dir / f"{name}_overlay.png")
        self.kept[index] = None

    def finish(self, data: Any, first: bool) -> str:
        """Say where the files are."""
        what = "masks and overlays" if self.pictures else "masks"
        return f"{len(self.all_kept())} images predicted; {what} are in {self.output_dir}/"


class SegmentationView(View):
    """The view of segmentation."""

    gallery = SegmentationGallery
    writer = SegmentationWriter

    def prediction(self, found: Any, image: Tensor, path: Path | None, data: Any) -> SegmentationPrediction:
        """The class map, uint8 (H, W)."""
        return SegmentationPrediction(image, path, list(data.class_names), found.cpu(), data.palette)

    def image(self, batch: dict[str, Any], position: int, data: Any) -> Tensor:
        """The image as it was read."""
        return batch["original"][position]
