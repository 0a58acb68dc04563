"""Image classification."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from attnlab.errors import AttnlabError
from attnlab.metrics import ClassificationResult, ClassificationScores
from attnlab.metrics.classification import without_prediction
from attnlab.models import build_classifier
from attnlab.tasks.base import BaseTask, names_of
from attnlab.tasks.mixing import BatchMixing, MixingConfig
from attnlab.tasks.network import as_config
from attnlab.views import ClassificationView


class ClassificationTask(BaseTask):
    """Trains a classifier from torchvision or timm, with attention where you want it.

    Each image counts once in the scores, whatever the number of processes. Validation and test loss are the
    cross-entropy without label smoothing and mixing, so they are comparable between recipes.

    Args:
        network: Any CNN of torchvision or timm by name: resnet50, mobilenet_v2, convnext_tiny, ... If both
            have the name, torchvision's is used; write timm/resnet50 for timm's.
        network_options: Further arguments of the network, e.g. ``{width_mult: 0.5}`` for mobilenet_v2.
        stem_stride: Stride of the stem. 1 or 2 suits images much smaller than 224 pixels (in ResNets: a 3x3
            convolution without pooling). Default: the network's own stem.
        label_smoothing: Share of each training target that is spread over all classes, in 0..1.
        mixing: Mixup and CutMix of training batches.
        num_classes: Number of classes. Comes from the data; if given, it is checked against the data.
        class_names: Names of the classes; come from the data.
        **options: The other options of `NetworkModule`.

    Raises:
        AttnlabError: An option is unknown, invalid or contradicts another.
    """

    kind = "classification"
    default_data = "ShapesClassificationDataModule"
    builder = staticmethod(build_classifier)
    view = ClassificationView()
    monitor = "val/top1"
    class_metric = ("accuracy", ("test",))
    class_label = "accuracy"

    def __init__(
        self,
        network: str = "resnet18",
        network_options: dict[str, Any] | None = None,
        stem_stride: int | None = None,
        label_smoothing: float = 0.0,
        mixing: MixingConfig = MixingConfig(),
        num_classes: int | None = None,
        class_names: list[str] | None = None,
        **options: Any,
    ) -> None:
        names = names_of(num_classes, class_names)
        own = {
            "network": network,
            "network_options": dict(network_options or {}),
            "stem_stride": stem_stride,
            "label_smoothing": label_smoothing,
            "mixing": mixing,
            "num_classes": len(names),
            "class_names": names,
        }
        super().__init__(own, **options)

    def configure_losses(self) -> None:
        """Set up label smoothing and mixing."""
        smoothing = self.hparams["label_smoothing"]
        if not 0 <= smoothing < 1:
            raise AttnlabError(f"--model.label_smoothing is {smoothing}; it must be within 0..1, below 1.")
        self.mixing = BatchMixing(as_config(MixingConfig, self.hparams["mixing"]), len(self.class_names))

    def make_scores(self) -> ClassificationScores:
        """Top-1, top-5 and the confusion matrix."""
        return ClassificationScores(self.class_names)

    def setup(self, stage: str) -> None:
        """Reject a top-5 monitor with fewer than five classes, then load weights."""
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

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""
        return self.network(image.contiguous(memory_format=self.layout))

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy of one batch: ``image`` (B, 3, H, W) and ``label`` int64 (B,)."""
        image, target = self.mixing(batch["image"], batch["label"])
        smoothing = self.hparams["label_smoothing"]
        return {"loss": F.cross_entropy(self(image).float(), target, label_smoothing=smoothing)}

    def evaluate(
        self, batch: dict[str, Any], scores: ClassificationScores, loss: MeanMetric
    ) -> dict[str, Tensor]:
        """Score one batch, and return its ``logits`` (B, K)."""
        logits = self(batch["image"]).float()
        counted = batch["counted"]
        if counted.any():
            label = batch["label"][counted]
            scores.update(logits[counted], label)
            loss.update(F.cross_entropy(logits[counted], label), len(label))
        self.note_outputs(without_prediction(logits), batch)
        return {"logits": logits}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Softmax probabilities (B, K); NaN for an image whose logits are not finite."""
        probabilities = self(batch["image"]).float().softmax(1)
        self.note_outputs(without_prediction(probabilities), batch)
        return probabilities

    def figures(self, result: ClassificationResult) -> dict[str, float]:
        """``top1``, and ``top5`` where there are at least five classes."""
        return {"top1": result.top1} | ({} if result.top5 is None else {"top5": result.top5})

    def class_figures(self, result: ClassificationResult) -> dict[str, float]:
        """Accuracy of each class that has images."""
        return result.per_class

    def headline(self, stage: str, result: ClassificationResult) -> list[tuple[str, str]]:
        """Top-1 with the chance level, and top-5."""
        top5 = "-, needs at least five classes" if result.top5 is None else f"{result.top5:.4f}"
        chance = f"chance {1 / len(self.class_names):.4f}"
        return [
            (f"{stage} top-1", f"{result.top1:.4f} of {result.images} images; {chance}"),
            (f"{stage} top-5", top5),
        ]
