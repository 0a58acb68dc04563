"""Semantic segmentation: the task that trains, scores and uses a segmentation network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from attnlab.attention import attention_keys
from attnlab.errors import AttnlabError
from attnlab.metrics import SegmentationResult, SegmentationScores
from attnlab.models import (
    Segmenter,
    WeightsReport,
    build_segmenter,
    library_encoder_weights,
    load_backbone,
    read_state_dict,
)
from attnlab.tasks.base import BaseTask, as_config, names_of
from attnlab.tasks.configs import AttentionConfig, OptimizerConfig, ScheduleConfig
from attnlab.tasks.losses import SegmentationLoss, SegmentationLossConfig


class SegmentationTask(BaseTask):
    """Trains a network of segmentation-models-pytorch, with attention where you want it.

    Every image is scored by itself and at its own full size: logits are resized to the size of the stored
    mask before they are compared, so mIoU depends neither on the batch size, nor on padding, nor on how many
    processes share the images.

    Args:
        architecture: Class name in segmentation-models-pytorch: DeepLabV3, DeepLabV3Plus, PSPNet, FPN, Unet,
            UPerNet, ...
        encoder: The backbone: a name of that library, or ``tu-NAME`` for any network of timm.
        architecture_options: Further arguments of the architecture, e.g. ``{encoder_output_stride: 16}``.
        weights: Where the backbone starts: none (random), imagenet (the encoder's published weights,
            downloaded) or the path of a state dict (torch or safetensors).
        attention: Which attention module goes where.
        loss: Which losses are summed, with their weights.
        optimizer: How parameters are updated.
        schedule: How the learning rate moves.
        bn_momentum: Momentum of the backbone's BatchNorm statistics, in 0..1; by default the network's own.
        freeze_backbone_bn: Keep the backbone's BatchNorm statistics as they are (for small batches on a
            pretrained backbone); scales, offsets and attention modules still train.
        num_classes: Number of classes, background included. It comes from the data; given here, it is checked
            against the data.
        class_names: Names of the classes; they come from the data.
        ignore_index: Mask value of pixels that do not count; it comes from the data.

    Raises:
        AttnlabError: For anything unknown or contradictory.
    """

    kind = "segmentation"
    monitor = "val/mIoU"
    weights_reach_head = False

    def __init__(
        self,
        architecture: str = "DeepLabV3Plus",
        encoder: str = "resnet18",
        architecture_options: dict[str, Any] | None = None,
        weights: str = "none",
        attention: AttentionConfig = AttentionConfig(),
        loss: SegmentationLossConfig = SegmentationLossConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        schedule: ScheduleConfig = ScheduleConfig(),
        bn_momentum: float | None = None,
        freeze_backbone_bn: bool = False,
        num_classes: int | None = None,
        class_names: list[str] | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        self.class_names = names_of(num_classes, class_names)
        self.remember(
            architecture=architecture,
            encoder=encoder,
            architecture_options=dict(architecture_options or {}),
            weights=weights,
            attention=as_config(AttentionConfig, attention),
            loss=as_config(SegmentationLossConfig, loss),
            optimizer=as_config(OptimizerConfig, optimizer),
            schedule=as_config(ScheduleConfig, schedule),
            bn_momentum=bn_momentum,
            freeze_backbone_bn=freeze_backbone_bn,
            num_classes=len(self.class_names),
            class_names=self.class_names,
            ignore_index=ignore_index,
        )
        self.configure_network()
        self.configure_losses()
        self.configure_metrics()

    def configure_network(self) -> None:
        """Build the network, attach attention, set the BatchNorm momentum."""
        options = self.hparams
        self.network: Segmenter = build_segmenter(
            options["architecture"],
            options["encoder"],
            len(self.class_names),
            options["architecture_options"],
        )
        self.attach_attention()
        if options["bn_momentum"] is not None:
            for layer in self.batchnorms():
                layer.momentum = options["bn_momentum"]

    def configure_losses(self) -> None:
        """Build the sum of losses."""
        loss = as_config(SegmentationLossConfig, self.hparams["loss"])
        self.criterion = SegmentationLoss(loss, self.hparams["ignore_index"])

    def configure_metrics(self) -> None:
        """Build scores and mean loss for validation and test."""
        names, ignore_index = self.class_names, self.hparams["ignore_index"]
        self.val_scores = SegmentationScores(names, ignore_index)
        self.val_loss = MeanMetric()
        self.test_scores = SegmentationScores(names, ignore_index)
        self.test_loss = MeanMetric()
        self.results: dict[str, SegmentationResult] = {}

    @property
    def backbone(self) -> nn.Module:
        """The encoder."""
        return self.network.encoder

    def setup(self, stage: str) -> None:
        """Check that the crop suits the network, then load weights."""
        crop = getattr(getattr(self.trainer, "datamodule", None), "crop_size", None)
        if stage == "fit" and isinstance(crop, int) and crop < self.network.stride:
            raise AttnlabError(
                f"--data.crop_size {crop} is smaller than the stride {self.network.stride} of "
                f"{self.hparams['architecture']} on '{self.hparams['encoder']}': not one feature would be "
                f"left. Use at least {self.network.stride}, better several times that."
            )
        super().setup(stage)

    def load_weights(self, weights: str) -> WeightsReport:
        """Load the encoder's published weights (``imagenet``), or a file's."""
        if weights == "imagenet":
            encoder = self.hparams["encoder"]
            state = library_encoder_weights(encoder, depth=len(self.network.encoder.out_channels) - 1)  # type: ignore[arg-type]
            source = f"the ImageNet weights of '{encoder}'"
        else:
            state, source = read_state_dict(weights), weights
        new = attention_keys(self.backbone)
        return load_backbone(self.backbone, state, source, new=new, dropped=self.network.dropped)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of normalised images (B, 3, H, W)."""
        return self.network(image)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch: ``image`` (B, 3, H, W) and ``mask`` (B, H, W)."""
        terms = self.criterion(self(batch["image"]), batch["mask"])
        size = len(batch["image"])
        self.log("train/loss", terms["loss"], prog_bar=True, on_step=True, on_epoch=True, batch_size=size)
        if len(terms) > 2:
            self.log_dict(
                {f"train/{name}": value.detach() for name, value in terms.items() if name != "loss"},
                batch_size=size,
            )
        return terms["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Score one batch; the class maps are returned as ``predictions``, see `_score`."""
        return {"predictions": self._score(batch, self.val_scores, self.val_loss)}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Score one batch; the class maps are returned as ``predictions``, see `_score`."""
        return {"predictions": self._score(batch, self.test_scores, self.test_loss)}

    def _score(
        self, batch: dict[str, Any], scores: SegmentationScores, mean_loss: MeanMetric
    ) -> list[Tensor | None]:
        """Score each image of a batch by itself.

        Run together, images would share the padding of the largest, which normalisation, pooling and strip
        pooling see; and kernels chosen by batch size may differ in the last bit.

        Returns:
            Class maps, uint8 (H, W) at each mask's size; None for an image that is there only to keep the
            processes in step.
        """
        predictions: list[Tensor | None] = []
        for index, counted in enumerate(batch["counted"].tolist()):
            if not counted:
                predictions.append(None)
                continue
            height, width = batch["mask_size"][index].tolist()
            mask = batch["mask"][index : index + 1, :height, :width]
            logits = self._logits(batch, index, (height, width))
            loss = self.criterion(logits, mask)["loss"]
            scored = (mask != self.hparams["ignore_index"]).sum()
            prediction = class_map(logits)
            scores.update(prediction, mask)
            mean_loss.update(loss, scored)
            predictions.append(prediction[0].to(torch.uint8))
        return predictions

    def _logits(self, batch: dict[str, Any], index: int, size: tuple[int, int]) -> Tensor:
        """Logits (1, K, *size) of one image of a batch, cut free of the batch's padding."""
        height, width = batch["size"][index].tolist()
        logits = self(batch["image"][index : index + 1, :, :height, :width])
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor | None]:
        """Class maps, uint8 (H, W) at each image's own size; None for an image that does not count."""
        return [
            class_map(self._logits(batch, i, tuple(batch["original_size"][i].tolist())))[0].to(torch.uint8)
            if counted
            else None
            for i, counted in enumerate(batch["counted"].tolist())
        ]

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation set."""
        self._log_scores("val", self.val_scores, self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test set."""
        self._log_scores("test", self.test_scores, self.test_loss)

    def _log_scores(self, stage: str, scores: SegmentationScores, loss: MeanMetric) -> None:
        result = scores.result()
        if not self.trainer.sanity_checking:
            self.results[stage] = result
        values = {
            f"{stage}/loss": float(loss.compute()),
            f"{stage}/mIoU": result.miou,
            f"{stage}/pixel_accuracy": result.pixel_accuracy,
            f"{stage}/classes_present": float(len(result.iou)),
        }
        # All processes hold the same number already; a maximum, unlike a mean, cannot round it.
        self.log_dict(values, sync_dist=True, reduce_fx="max")
        per_class = {f"{stage}_iou/{name}": value for name, value in result.iou.items()}
        self.log_dict(per_class, sync_dist=True, reduce_fx="max")
        scores.reset()
        loss.reset()

    def summary(self, stage: str, per_class: bool = True) -> list[tuple[str, str]]:
        """Label and figure of the last scores of a stage, for a table.

        Args:
            stage: ``val`` or ``test``.
            per_class: List every class's IoU, too.
        """
        result = self.results.get(stage)
        if result is None:
            return []
        rows = [
            (f"{stage} mIoU", f"{result.miou:.4f} over {len(result.iou)} of {len(self.class_names)} classes"),
            (f"{stage} pixel accuracy", f"{result.pixel_accuracy:.4f}"),
        ]
        if result.absent:
            rows.append(("absent classes", ", ".join(result.absent)))
        if per_class:
            rows += [(f"IoU {name}", f"{value:.4f}") for name, value in result.iou.items()]
        return rows


def class_map(logits: Tensor) -> Tensor:
    """The most likely class of each pixel: (B, K, H, W) -> int64 (B, H, W).

    The same as ``argmax(1)``, whose CPU kernel takes eight times as long along this dimension.
    """
    return logits.max(1).indices
