"""What segmentation shows and writes: class maps over pictures, and as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from attnlab.drawing.layout import grid
from attnlab.drawing.masks import palette_image, segmentation_panel
from attnlab.drawing.pixels import Pixels, denormalise
from attnlab.views.base import Gallery, Picture, View, Writer, at_least, file_stem
from attnlab.views.gather import gathered
from attnlab.views.predictions import Prediction, SegmentationPrediction


class SegmentationGallery(Gallery):
    """Draws the first images of the validation or test set: picture, truth, prediction, mistakes.

    They go to the loggers (TensorBoard's tab Images), and the newest ones to ``pictures/`` in the run's
    folder: one PNG an image and ``val.png`` or ``test.png`` with all of them.

    Args:
        count: How many images are drawn (the first ones of the set, always the same); 0 draws none.
        every_n_epochs: Draw after every so many validation epochs, and after the last.
        max_side: Longest side of a drawn image in pixels. Larger ones are shrunk, small ones enlarged by a
            whole factor.
    """

    def __init__(self, count: int = 6, every_n_epochs: int = 1, max_side: int = 320) -> None:
        super().__init__(every_n_epochs)
        self.count = at_least(count, 0, "pictures.count")
        self.max_side = at_least(max_side, 1, "pictures.max_side")
        self.wanted = count > 0
        self._panels: dict[str, Pixels] = {}

    def begin(self, images: int) -> None:
        """Forget what was kept."""
        self._panels = {}

    def collect(self, outputs: Any, batch: dict[str, Any], data: Any) -> None:
        """Keep the panels of the first images."""
        for i, prediction in enumerate(outputs["predictions"]):
            if len(self._panels) >= self.count:
                return
            if prediction is None:
                continue
            height, width = batch["mask_size"][i].tolist()
            h, w = batch["size"][i].tolist()
            name = batch["name"][i]
            self._panels[name] = segmentation_panel(
                denormalise(batch["image"][i, :, :h, :w].float(), data.mean, data.std),
                batch["mask"][i, :height, :width],
                prediction,
                name,
                data.class_names,
                data.palette,
                self.max_side,
                data.ignore_index,
            )

    def pictures(self, stage: str, result: Any, data: Any) -> Iterator[Picture]:
        """The panels, and all of them on one sheet."""
        return panels_and_sheet(stage, self._panels)


def panels_and_sheet(stage: str, panels: dict[str, Pixels]) -> Iterator[Picture]:
    """Each image's panel, and a sheet of all, which is no picture of its own for loggers."""
    for name, pixels in panels.items():
        yield Picture(f"{stage}_{file_stem(name)}", pixels, f"{stage}/{name}")
    if panels:
        yield Picture(stage, grid(list(panels.values())))


class SegmentationWriter(Writer):
    """Writes each predicted image as a palette mask, and as an overlay with a legend.

    ``NAME.png`` holds class indices in VOC's palette and has the image's own size; ``NAME_overlay.png`` shows
    the classes over the image. Images of one name in different folders get a number each.

    Args:
        output_dir: Folder to write to; made when missing.
        pictures: Write overlays as well as masks.
        overlays: The former name of ``pictures``; false leaves them out, too.
    """

    def __init__(
        self, output_dir: str = "predictions", pictures: bool = True, overlays: bool | None = None
    ) -> None:
        super().__init__(output_dir, pictures and overlays is not False)
        self.written = 0

    def planned(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A mask, and an overlay, for each picture."""
        return (".png", "_overlay.png") if self.pictures else (".png",), ()

    def begin(self) -> None:
        """Start counting."""
        self.written = 0

    def add(self, prediction: Prediction, index: int, name: str, data: Any) -> None:
        """Write mask and overlay."""
        assert isinstance(prediction, SegmentationPrediction)
        mask = palette_image(prediction.mask.numpy(), prediction.palette)
        mask.save(self.output_dir / f"{name}.png")
        if self.pictures:
            Image.fromarray(prediction.drawn()).save(self.output_dir / f"{name}_overlay.png")
        self.written += 1

    def finish(self, data: Any, first: bool) -> str:
        """Say where the files are."""
        what = "masks and overlays" if self.pictures else "masks"
        return f"{sum(gathered(self.written))} images predicted; {what} lie in {self.output_dir}/"


class SegmentationView(View):
    """Class maps."""

    gallery = SegmentationGallery
    writer = SegmentationWriter

    def prediction(self, found: Any, image: Tensor, path: Path | None, data: Any) -> SegmentationPrediction:
        """The class map, uint8 (H, W)."""
        return SegmentationPrediction(image, path, list(data.class_names), found.cpu(), data.palette)

    def image(self, batch: dict[str, Any], position: int, data: Any) -> Tensor:
        """The picture as it was read."""
        return batch["original"][position]
