"""Object detection: the task that trains, scores and uses a detector."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.attention import attention_keys
from attnlab.errors import AttnlabError
from attnlab.metrics import DetectionResult, DetectionScores
from attnlab.models import build_detector, library_detector_weights, load_detector, read_state_dict
from attnlab.tasks.base import BaseTask, as_config, names_of
from attnlab.tasks.configs import AttentionConfig, OptimizerConfig, ScheduleConfig

LISTED_CLASSES = 40
WORST_CLASSES = 10


class DetectionTask(BaseTask):
    """Trains a detector of torchvision, YOLOX or YOLOF, with attention where you want it.

    The detector itself resizes what it is given, and gives boxes in the pixels of that picture, so AP is
    always taken at the size at which pictures are stored. COCO's twelve numbers and Pascal VOC's AP50 (area
    under the curve, and the 11-point form of 2007) are taken of the same detections. There is no validation
    loss: torchvision's detectors have losses in training alone.

    Args:
        network: faster_rcnn, retinanet, fcos, ssdlite (torchvision's), yolox_nano, yolox_tiny, yolox_s,
            yolox_m, yolox_l, yolox_x, or yolof.
        network_options: Further arguments of the network, e.g. ``{backbone: resnet50, min_size: 800}`` for
            faster_rcnn or ``{size: 416}`` for yolox_nano; an unknown one is refused with the list of them.
        weights: Where the network starts: none (random), imagenet (the backbone's published weights,
            downloaded) or the path of a state dict (torch or safetensors) of the whole detector or of its
            backbone. YOLOX files of other PyTorch ports are read too. Parts that depend on the number of
            classes start anew where that differs.
        attention: Which attention module goes where.
        optimizer: How parameters are updated.
        schedule: How the learning rate moves.
        bn_momentum: Momentum of the backbone's BatchNorm statistics, in 0..1; by default the network's own.
        freeze_backbone_bn: Keep the backbone's BatchNorm statistics as they are (for small batches on a
            pretrained backbone); scales, offsets and attention modules still train.
        num_classes: Number of classes, without a background. It comes from the data; given here, it is
            checked against the data.
        class_names: Names of the classes; they come from the data.

    Raises:
        AttnlabError: For anything unknown or contradictory.
    """

    kind = "detection"
    monitor = "val/AP"
    # The same network at another size, or with other thresholds, is the same network.
    free_options = frozenset(
        {"size", "train_sizes", "place", "fill", "interpolation", "min_size", "max_size", "l1_last"}
        | {"score_threshold", "nms_threshold", "max_detections", "centre_radius"}
        | {"trainable_layers", "proposals_trained"}
    )

    def __init__(
        self,
        network: str = "faster_rcnn",
        network_options: dict[str, Any] | None = None,
        weights: str = "none",
        attention: AttentionConfig = AttentionConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        schedule: ScheduleConfig = ScheduleConfig(),
        bn_momentum: float | None = None,
        freeze_backbone_bn: bool = False,
        num_classes: int | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.class_names = names_of(num_classes, class_names)
        self.remember(
            network=network,
            network_options=dict(network_options or {}),
            weights=weights,
            attention=as_config(AttentionConfig, attention),
            optimizer=as_config(OptimizerConfig, optimizer),
            schedule=as_config(ScheduleConfig, schedule),
            bn_momentum=bn_momentum,
            freeze_backbone_bn=freeze_backbone_bn,
            num_classes=len(self.class_names),
            class_names=self.class_names,
        )
        self.configure_network()
        self.configure_losses()
        self.configure_metrics()

    def configure_network(self) -> None:
        """Build the detector, attach attention, set the BatchNorm momentum."""
        options = self.hparams
        built = build_detector(options["network"], len(self.class_names), options["network_options"])
        self.network = built.network
        self.first_label = built.first_label
        self.trunk = built.trunk
        self.cost_size = built.example_size
        self.attach_attention()
        if options["bn_momentum"] is not None:
            for layer in self.batchnorms():
                layer.momentum = options["bn_momentum"]

    def configure_losses(self) -> None:
        """Nothing to set up: each detector has the losses of its paper."""

    def configure_metrics(self) -> None:
        """Build the scores of validation and test."""
        self.val_scores = DetectionScores(self.class_names)
        self.test_scores = DetectionScores(self.class_names)
        self.results: dict[str, DetectionResult] = {}

    @property
    def backbone(self) -> nn.Module:
        """The part of the detector that classification weights are for."""
        return self.network.get_submodule(self.trunk)

    def load_weights(self, weights: str) -> object:
        """Load the backbone's published weights (``imagenet``), or a file's."""
        if weights == "imagenet":
            name, options = self.hparams["network"], self.hparams["network_options"]
            state, source = library_detector_weights(name, options), "the backbone's ImageNet weights"
        else:
            state, source = read_state_dict(weights), weights
        return load_detector(self.network, state, source, self.trunk, new=attention_keys(self.network))

    def forward(self, image: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detections in images of values in 0..1.

        Args:
            image: (3, h, w) each, of any size.

        Returns:
            For each image ``boxes`` (M, 4) as x0, y0, x1, y1 in its pixels, ``scores`` (M,) in 0..1 from the
            highest down, and ``labels`` int64 (M,) in 0..K-1.
        """
        detections = self.network(image)
        return [{**found, "labels": found["labels"] - self.first_label} for found in detections]

    def on_train_epoch_start(self) -> None:
        """Tell the detector how far training is, if its losses or sizes depend on that."""
        super().on_train_epoch_start()
        set_progress: Any = getattr(self.network, "set_progress", None)
        if set_progress is not None:
            set_progress(self._progress())

    def _progress(self) -> float:
        epochs = self.trainer.max_epochs
        if epochs is not None and epochs > 0:
            return self.current_epoch / epochs
        steps = self.trainer.estimated_stepping_batches
        return self.global_step / steps if math.isfinite(steps) else 0.0

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Sum of the detector's losses on one batch."""
        targets = [
            {
                "boxes": torch.as_tensor(target["boxes"], device=self.device),
                "labels": torch.as_tensor(target["labels"], device=self.device) + self.first_label,
            }
            for target in batch["target"]
        ]
        losses: dict[str, Tensor] = self.network(batch["image"], targets)
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        if not torch.isfinite(loss):
            raise AttnlabError(self._not_finite(losses, batch))
        size = len(targets)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in losses.items()},
            batch_size=size,
        )
        return loss

    def _not_finite(self, losses: dict[str, Tensor], batch: dict[str, Any]) -> str:
        terms = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
        return (
            f"The loss is no number any more in epoch {self.current_epoch}, step {self.global_step}: "
            f"{terms}. Images of the batch: {', '.join(batch.get('name', []))}. Lower "
            "--model.optimizer.lr, lengthen --model.schedule.warmup_steps or set "
            "--trainer.gradient_clip_val; checkpoints of earlier epochs are kept, and --ckpt_path last "
            "goes on from the newest."
        )

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Score one batch, and return its ``detections``; None for an image that does not count."""
        return {"detections": self._score(batch, self.val_scores)}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Score one batch, and return its ``detections``; None for an image that does not count."""
        return {"detections": self._score(batch, self.test_scores)}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """The ``detections`` of one batch; None for an image that does not count."""
        return {"detections": self._detect(batch)}

    def _detect(self, batch: dict[str, Any]) -> list[dict[str, Tensor] | None]:
        counted = batch["counted"].tolist()
        if not any(counted):
            return [None] * len(counted)
        found = iter(self([image for image, counts in zip(batch["image"], counted, strict=True) if counts]))
        return [next(found) if counts else None for counts in counted]

    def _score(self, batch: dict[str, Any], scores: DetectionScores) -> list[dict[str, Tensor] | None]:
        detections = self._detect(batch)
        pairs = [
            (found, target)
            for found, target in zip(detections, batch["target"], strict=True)
            # A split without annotations, such as COCO's test-dev, has nothing to score with.
            if found is not None and "boxes" in target
        ]
        if pairs:
            scores.update([found for found, _ in pairs], [target for _, target in pairs])
        return detections

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation set."""
        self._log_scores("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test set, and the AP of every class."""
        result = self._log_scores("test", self.test_scores)
        per_class = {f"test_AP/{name}": scores.ap for name, scores in result.per_class.items()}
        self.log_dict(per_class, sync_dist=True, reduce_fx="max")

    def _log_scores(self, stage: str, scores: DetectionScores) -> DetectionResult:
        result = scores.result()
        scores.reset()
        if not self.trainer.sanity_checking:
            self.results[stage] = result
        if result.images == 0:
            return result
        values = {f"{stage}/{name}": value for name, value in result.coco.items()}
        values |= {f"{stage}/VOC_{name}": value for name, value in result.voc.items()}
        always = (f"{stage}/AP", f"{stage}/AP50", f"{stage}/VOC_AP50")
        # All processes hold the same number already; a maximum, unlike a mean, cannot round it.
        self.log_dict(
            {name: value for name, value in values.items() if name in always or math.isfinite(value)},
            sync_dist=True,
            reduce_fx="max",
        )
        return result

    def summary(self, stage: str, per_class: bool = True) -> list[tuple[str, str]]:
        """Label and figure of the last scores of a stage, for a table.

        Args:
            stage: ``val`` or ``test``.
            per_class: List the AP50 of every class, too; of the worst ten where there are more than 40.
        """
        result = self.results.get(stage)
        if result is None:
            return []
        if result.images == 0:
            return [(f"{stage} AP", "-, there are no annotations to score with")]
        coco, voc = result.coco, result.voc
        over = f"over {len(result.per_class)} of {len(self.class_names)} classes, {result.images} images"
        rows = [
            (f"{stage} AP", f"{coco['AP']:.4f} {over}"),
            (f"{stage} AP50, AP75", f"{coco['AP50']:.4f}, {coco['AP75']:.4f}"),
            (f"{stage} AP small, medium, large", _figures(coco, "APs", "APm", "APl")),
            (f"{stage} AR at 1, 10, 100", _figures(coco, "AR1", "AR10", "AR100")),
            (f"{stage} AR small, medium, large", _figures(coco, "ARs", "ARm", "ARl")),
            (f"{stage} VOC AP50", f"{voc['AP50']:.4f}; 11-point {voc['AP50_11point']:.4f}"),
        ]
        if result.absent:
            more = ", …" if len(result.absent) > LISTED_CLASSES else ""
            rows.append(("absent classes", ", ".join(result.absent[:LISTED_CLASSES]) + more))
        if per_class:
            listed = [(name, scores.ap50) for name, scores in result.per_class.items()]
            if len(listed) > LISTED_CLASSES:
                rows.append(("of the classes", f"the {WORST_CLASSES} worst of {len(listed)}:"))
                listed = sorted(listed, key=lambda item: item[1])[:WORST_CLASSES]
            rows += [(f"AP50 {name}", f"{value:.4f}") for name, value in listed]
        return rows


def _figures(values: dict[str, float], *names: str) -> str:
    return ", ".join("-" if math.isnan(values[name]) else f"{values[name]:.4f}" for name in names)
