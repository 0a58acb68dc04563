"""Image classification: the task that trains, scores and uses a classifier."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from attnlab.attention import attention_keys
from attnlab.errors import AttnlabError
from attnlab.metrics import ClassificationResult, ClassificationScores
from attnlab.models import (
    ClassifierWeightsReport,
    build_classifier,
    head_name,
    library_classifier_weights,
    load_classifier,
    read_state_dict,
)
from attnlab.tasks.base import BaseTask, as_config, names_of
from attnlab.tasks.configs import AttentionConfig, OptimizerConfig, ScheduleConfig
from attnlab.tasks.mixing import BatchMixing, MixingConfig

# A closing table of a thousand lines is read by nobody.
LISTED_CLASSES = 40
WORST_CLASSES = 10


class ClassificationTask(BaseTask):
    """Trains a classifier of torchvision or timm, with attention where you want it.

    Each image counts once in the scores, whatever the number of processes. Validation and test loss are the
    plain cross-entropy, so that they compare between recipes with and without label smoothing and mixing.

    Args:
        network: Any CNN of torchvision or timm by its name: resnet50, mobilenet_v2, convnext_tiny, ...; where
            both have the name, torchvision's, or say timm/resnet50.
        network_options: Further arguments of the network, e.g. ``{width_mult: 0.5}`` for mobilenet_v2.
        stem_stride: Pixels per step of the stem's output: 1 or 2 suits images much smaller than 224 pixels (a
            3x3 convolution without pooling in ResNets). By default the network's own stem.
        weights: Where the network starts: none (random), imagenet (its library's published weights,
            downloaded) or the path of a state dict (torch or safetensors). A classifier for another number
            of classes starts anew.
        attention: Which attention module goes where.
        label_smoothing: Share of each training target that is spread over all classes, in 0..1.
        mixing: Mixup and CutMix of training batches.
        optimizer: How parameters are updated.
        schedule: How the learning rate moves.
        bn_momentum: Momentum of the BatchNorm statistics, in 0..1; by default the network's own.
        freeze_backbone_bn: Keep the BatchNorm statistics as they are (for small batches on a pretrained
            network); scales, offsets and attention modules still train.
        channels_last: Lay images and weights out with the channels innermost, which convolutions on GPUs in
            half precision, and some on CPUs, take faster. It changes no result beyond rounding.
        num_classes: Number of classes. It comes from the data; given here, it is checked against the data.
        class_names: Names of the classes; they come from the data.

    Raises:
        AttnlabError: For anything unknown or contradictory.
    """

    kind = "classification"
    monitor = "val/top1"

    def __init__(
        self,
        network: str = "resnet18",
        network_options: dict[str, Any] | None = None,
        stem_stride: int | None = None,
        weights: str = "none",
        attention: AttentionConfig = AttentionConfig(),
        label_smoothing: float = 0.0,
        mixing: MixingConfig = MixingConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        schedule: ScheduleConfig = ScheduleConfig(),
        bn_momentum: float | None = None,
        freeze_backbone_bn: bool = False,
        channels_last: bool = False,
        num_classes: int | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.class_names = names_of(num_classes, class_names)
        self.remember(
            network=network,
            network_options=dict(network_options or {}),
            stem_stride=stem_stride,
            weights=weights,
            attention=as_config(AttentionConfig, attention),
            label_smoothing=label_smoothing,
            mixing=as_config(MixingConfig, mixing),
            optimizer=as_config(OptimizerConfig, optimizer),
            schedule=as_config(ScheduleConfig, schedule),
            bn_momentum=bn_momentum,
            freeze_backbone_bn=freeze_backbone_bn,
            channels_last=channels_last,
            num_classes=len(self.class_names),
            class_names=self.class_names,
        )
        self.configure_network()
        self.configure_losses()
        self.configure_metrics()

    def configure_network(self) -> None:
        """Build the network, attach attention, set BatchNorm momentum and memory layout."""
        options = self.hparams
        classes = len(self.class_names)
        self.network = build_classifier(
            options["network"], classes, options["network_options"], options["stem_stride"]
        )
        self.head = head_name(self.network, classes)
        self.attach_attention()
        if options["bn_momentum"] is not None:
            for layer in self.batchnorms():
                layer.momentum = options["bn_momentum"]
        self.layout = torch.channels_last if options["channels_last"] else torch.contiguous_format
        self.network.to(memory_format=self.layout)

    def configure_losses(self) -> None:
        """Set up label smoothing and mixing."""
        smoothing = self.hparams["label_smoothing"]
        if not 0 <= smoothing < 1:
            raise AttnlabError(f"--model.label_smoothing is {smoothing}; it must be within 0..1, below 1.")
        self.mixing = BatchMixing(as_config(MixingConfig, self.hparams["mixing"]), len(self.class_names))

    def configure_metrics(self) -> None:
        """Build scores and mean loss for validation and test."""
        self.val_scores = ClassificationScores(self.class_names)
        self.val_loss = MeanMetric()
        self.test_scores = ClassificationScores(self.class_names)
        self.test_loss = MeanMetric()
        self.results: dict[str, ClassificationResult] = {}

    @property
    def backbone(self) -> nn.Module:
        """The whole network: pretrained weights are for its classifier, too, where that fits."""
        return self.network

    def backbone_parameters(self) -> list[nn.Parameter]:
        """All parameters but the classifier's."""
        head = {id(parameter) for parameter in self.network.get_submodule(self.head).parameters()}
        return [parameter for parameter in self.network.parameters() if id(parameter) not in head]

    def setup(self, stage: str) -> None:
        """Refuse a top-5 that there cannot be, then load weights."""
        monitored = [
            callback.monitor
            for callback in self.trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint)
        ]
        if stage == "fit" and "val/top5" in monitored and len(self.class_names) < 5:
            raise AttnlabError(
                f"--checkpoint.monitor val/top5 needs at least five classes; the data has "
                f"{len(self.class_names)}. Use val/top1."
            )
        super().setup(stage)

    def load_weights(self, weights: str) -> ClassifierWeightsReport:
        """Load the library's published weights (``imagenet``), or a file's."""
        if weights == "imagenet":
            name = self.hparams["network"]
            state, source = library_classifier_weights(name), f"the ImageNet weights of '{name}'"
        else:
            state, source = read_state_dict(weights), weights
        return load_classifier(self.network, state, source, self.head, new=attention_keys(self.network))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""
        return self.network(image.contiguous(memory_format=self.layout))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch: ``image`` (B, 3, H, W) and ``label`` int64 (B,)."""
        image, target = self.mixing(batch["image"], batch["label"])
        loss = F.cross_entropy(self(image).float(), target, label_smoothing=self.hparams["label_smoothing"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(image))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Score one batch, and return its ``logits`` (B, K)."""
        return {"logits": self._score(batch, self.val_scores, self.val_loss)}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Score one batch, and return its ``logits`` (B, K)."""
        return {"logits": self._score(batch, self.test_scores, self.test_loss)}

    def _score(self, batch: dict[str, Any], scores: ClassificationScores, mean_loss: MeanMetric) -> Tensor:
        logits = self(batch["image"]).float()
        counted = batch["counted"]
        if counted.any():
            label = batch["label"][counted]
            scores.update(logits[counted], label)
            mean_loss.update(F.cross_entropy(logits[counted], label), len(label))
        return logits

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Softmax probabilities (B, K)."""
        return self(batch["image"]).float().softmax(1)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation set."""
        self._log_scores("val", self.val_scores, self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test set, and the accuracy of every class."""
        result = self._log_scores("test", self.test_scores, self.test_loss)
        per_class = {f"test_accuracy/{name}": value for name, value in result.per_class.items()}
        self.log_dict(per_class, sync_dist=True, reduce_fx="max")

    def _log_scores(self, stage: str, scores: ClassificationScores, loss: MeanMetric) -> ClassificationResult:
        result = scores.result()
        if not self.trainer.sanity_checking:
            self.results[stage] = result
        values = {f"{stage}/loss": float(loss.compute()), f"{stage}/top1": result.top1}
        if result.top5 is not None:
            values[f"{stage}/top5"] = result.top5
        # All processes hold the same number already; a maximum, unlike a mean, cannot round it.
        self.log_dict(values, sync_dist=True, reduce_fx="max")
        scores.reset()
        loss.reset()
        return result

    def summary(self, stage: str, per_class: bool = True) -> list[tuple[str, str]]:
        """Label and figure of the last scores of a stage, for a table.

        Args:
            stage: ``val`` or ``test``.
            per_class: List the accuracy of every class, too; of the worst ten where there are more than 40.
        """
        result = self.results.get(stage)
        if result is None:
            return []
        top5 = "-, needs at least five classes" if result.top5 is None else f"{result.top5:.4f}"
        rows = [
            (
                f"{stage} top-1",
                f"{result.top1:.4f} of {result.images} images; chance {1 / len(self.class_names):.4f}",
            ),
            (f"{stage} top-5", top5),
        ]
        if result.absent:
            rows.append(("absent classes", ", ".join(result.absent[:LISTED_CLASSES])))
        if per_class:
            listed = list(result.per_class.items())
            if len(listed) > LISTED_CLASSES:
                rows.append(("of the classes", f"the {WORST_CLASSES} worst of {len(listed)}:"))
                listed = sorted(listed, key=lambda item: item[1])[:WORST_CLASSES]
            rows += [(f"accuracy {name}", f"{value:.4f}") for name, value in listed]
        return rows
