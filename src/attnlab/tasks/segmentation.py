"""Semantic segmentation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from attnlab.errors import AttnlabError
from attnlab.metrics import NO_CLASS, SegmentationResult, SegmentationScores
from attnlab.models import Segmenter, build_segmenter
from attnlab.tasks.base import BaseTask, names_of
from attnlab.tasks.losses import SegmentationLoss, SegmentationLossConfig
from attnlab.tasks.network import as_config
from attnlab.views import SegmentationView


class SegmentationTask(BaseTask):
    """Trains a segmentation-models-pytorch network, with attention where you want it.

    Every image is scored individually at full size: logits are resized to the stored mask, so mIoU depends
    neither on batch size nor on padding nor on the number of processes.

    Args:
        architecture: Class name in segmentation-models-pytorch: DeepLabV3, DeepLabV3Plus, PSPNet, FPN, Unet,
            UPerNet, ...
        encoder: The backbone: a name of that library, or ``tu-NAME`` for any timm network.
        architecture_options: Further arguments of the architecture, e.g. ``{encoder_output_stride: 16}``.
        loss: The weights of the summed losses.
        num_classes: Number of classes, including the background. Comes from the data; if given, it is checked
            against the data.
        class_names: Names of the classes; come from the data.
        ignore_index: Mask value of ignored pixels; comes from the data.
        **options: The other options of `NetworkModule`.

    Raises:
        AttnlabError: An option is unknown, invalid or contradicts another.
    """

    kind = "segmentation"
    default_data = "ShapesSegmentationDataModule"
    builder = staticmethod(build_segmenter)
    view = SegmentationView()
    monitor = "val/mIoU"
    weights_reach_head = False
    class_metric = ("iou", ("val", "test"))
    class_label = "IoU"

    def __init__(
        self,
        architecture: str = "DeepLabV3Plus",
        encoder: str = "resnet18",
        architecture_options: dict[str, Any] | None = None,
        loss: SegmentationLossConfig = SegmentationLossConfig(),
        num_classes: int | None = None,
        class_names: list[str] | None = None,
        ignore_index: int = 255,
        **options: Any,
    ) -> None:
        names = names_of(num_classes, class_names)
        own = {
            "architecture": architecture,
            "encoder": encoder,
            "architecture_options": dict(architecture_options or {}),
            "loss": loss,
            "num_classes": len(names),
            "class_names": names,
            "ignore_index": ignore_index,
        }
        super().__init__(own, **options)

    def configure_losses(self) -> None:
        """Build the sum of losses."""
        loss = as_config(SegmentationLossConfig, self.hparams["loss"])
        self.criterion = SegmentationLoss(loss, self.hparams["ignore_index"])

    def make_scores(self) -> SegmentationScores:
        """mIoU, pixel accuracy and each class's IoU."""
        return SegmentationScores(self.class_names, self.hparams["ignore_index"])

    def setup(self, stage: str) -> None:
        """Check that the crop suits the network, then load weights."""
        crop = getattr(getattr(self.trainer, "datamodule", None), "crop_size", None)
        assert isinstance(self.network, Segmenter)
        stride = self.network.stride
        if stage == "fit" and isinstance(crop, int) and crop < stride:
            raise AttnlabError(
                f"--data.crop_size {crop} is smaller than the stride {stride} of "
                f"{self.hparams['architecture']} on '{self.hparams['encoder']}': no feature map would be "
                f"left. Use at least {stride}, preferably several times that."
            )
        super().setup(stage)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of normalised images (B, 3, H, W)."""
        return self.network(image.contiguous(memory_format=self.layout))

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The sum of losses and its terms for one batch: ``image`` (B, 3, H, W), ``mask`` (B, H, W)."""
        return self.criterion(self(batch["image"]), batch["mask"])

    def evaluate(
        self, batch: dict[str, Any], scores: SegmentationScores, loss: MeanMetric
    ) -> dict[str, list[Tensor | None]]:
        """Score each image of a batch individually.

        In a batch, images would be padded to the largest, which affects normalisation and pooling; and
        kernels chosen by batch size may differ in the last bit.

        Returns:
            ``predictions``: class maps, uint8 (H, W) at each mask's size, 255 where the logits are not
            finite; None for an image that is not counted.
        """
        predictions: list[Tensor | None] = []
        for index, counted in enumerate(batch["counted"].tolist()):
            if not counted:
                predictions.append(None)
                continue
            height, width = batch["mask_size"][index].tolist()
            mask = batch["mask"][index : index + 1, :height, :width]
            logits = self._logits(batch, index, (height, width))
            scored = (mask != self.hparams["ignore_index"]).sum()
            prediction = class_map(logits)
            scores.update(prediction, mask)
            loss.update(self.criterion(logits, mask)["loss"], scored)
            predictions.append(prediction[0].to(torch.uint8))
        self._note_maps(predictions, batch)
        return {"predictions": predictions}

    def _logits(self, batch: dict[str, Any], index: int, size: tuple[int, int]) -> Tensor:
        """Logits (1, K, *size) of one image of a batch, without the batch's padding."""
        height, width = batch["size"][index].tolist()
        logits = self(batch["image"][index : index + 1, :, :height, :width])
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor | None]:
        """Class maps, uint8 (H, W) at each image's own size, 255 where the logits are not finite.

        None for an image that is not counted.
        """
        maps = [
            class_map(self._logits(batch, i, tuple(batch["original_size"][i].tolist())))[0].to(torch.uint8)
            if counted
            else None
            for i, counted in enumerate(batch["counted"].tolist())
        ]
        self._note_maps(maps, batch)
        return maps

    def _note_maps(self, maps: list[Tensor | None], batch: dict[str, Any]) -> None:
        no = torch.tensor(False, device=self.device)
        broken = [no if one is None else (one == NO_CLASS).any() for one in maps]
        self.note_outputs(torch.stack(broken), batch)

    def figures(self, result: SegmentationResult) -> dict[str, float]:
        """``mIoU``, ``pixel_accuracy``, and ``classes_present``, the number of classes in the mean."""
        return {
            "mIoU": result.miou,
            "pixel_accuracy": result.pixel_accuracy,
            "classes_present": float(len(result.iou)),
        }

    def class_figures(self, result: SegmentationResult) -> dict[str, float]:
        """IoU of each class that is present."""
        return result.iou

    def headline(self, stage: str, result: SegmentationResult) -> list[tuple[str, str]]:
        """MIoU with the number of its classes, and pixel accuracy."""
        over = f"over {len(result.iou)} of {len(self.class_names)} classes"
        return [
            (f"{stage} mIoU", f"{result.miou:.4f} {over}"),
            (f"{stage} pixel accuracy", f"{result.pixel_accuracy:.4f}"),
        ]


def class_map(logits: Tensor) -> Tensor:
    """The most likely class of each pixel: (B, K, H, W) -> int64 (B, H, W).

    `NO_CLASS`, 255, where the highest logit is not finite: with a NaN or plus infinity, no class is likelier.
    Elsewhere the same as ``argmax(1)``, whose CPU kernel takes eight times as long along this dimension.
    """
    highest, classes = logits.max(1)
    return classes.masked_fill_(~highest.isfinite(), NO_CLASS)
