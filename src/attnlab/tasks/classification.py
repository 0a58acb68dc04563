"""Image classification: the task that trains, scores and uses a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from attnlab.attention import attention_keys
from attnlab.errors import AttnlabError
from attnlab.metrics import ClassificationResult, ClassificationScores
from attnlab.models import (
    WeightsReport,
    build_classifier,
    head_name,
    library_classifier_weights,
    load_classifier,
    read_state_dict,
)
from attnlab.tasks.base import BaseTask, names_of
from attnlab.tasks.mixing import BatchMixing, MixingConfig
from attnlab.tasks.network import as_config
from attnlab.views import ClassificationView


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
        label_smoothing: Share of each training target that is spread over all classes, in 0..1.
        mixing: Mixup and CutMix of training batches.
        num_classes: Number of classes. It comes from the data; given here, it is checked against the data.
        class_names: Names of the classes; they come from the data.
        **options: The other options of `NetworkModule`.

    Raises:
        AttnlabError: For anything unknown or contradictory.
    """

    kind = "classification"
    default_data = "ShapesClassificationDataModule"
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

    def configure_network(self) -> None:
        """Build the classifier, attach attention."""
        options, classes = self.hparams, len(self.class_names)
        self.network = build_classifier(
            options["network"], classes, options["network_options"], options["stem_stride"]
        )
        self.head = head_name(self.network, classes)
        self.attach_attention()

    def configure_losses(self) -> None:
        """Set up label smoothing and mixing."""
        smoothing = self.hparams["label_smoothing"]
        if not 0 <= smoothing < 1:
            raise AttnlabError(f"--model.label_smoothing is {smoothing}; it must be within 0..1, below 1.")
        self.mixing = BatchMixing(as_config(MixingConfig, self.hparams["mixing"]), len(self.class_names))

    def make_scores(self) -> ClassificationScores:
        """Top-1, top-5 and the confusion matrix."""
        return ClassificationScores(self.class_names)

    @property
    def backbone(self) -> nn.Module:
        """All but the classifier."""
        return nn.ModuleList(_around(self.network, self.head))

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

    def load_weights(self, weights: str) -> WeightsReport:
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
        return {"logits": logits}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Softmax probabilities (B, K)."""
        return self(batch["image"]).float().softmax(1)

    def figures(self, result: ClassificationResult) -> dict[str, float]:
        """``top1``, and ``top5`` where there are at least five classes."""
        return {"top1": result.top1} | ({} if result.top5 is None else {"top5": result.top5})

    def class_figures(self, result: ClassificationResult) -> dict[str, float]:
        """Accuracy of each class that has images."""
        return result.per_class

    def headline(self, stage: str, result: ClassificationResult) -> list[tuple[str, str]]:
        """Top-1 with what chance would give, and top-5."""
        top5 = "-, needs at least five classes" if result.top5 is None else f"{result.top5:.4f}"
        chance = f"chance {1 / len(self.class_names):.4f}"
        return [
            (f"{stage} top-1", f"{result.top1:.4f} of {result.images} images; {chance}"),
            (f"{stage} top-5", top5),
        ]


def _around(network: nn.Module, name: str) -> Iterator[nn.Module]:
    """The largest modules that do not hold a module of a name."""
    first, _, rest = name.partition(".")
    for child_name, child in network.named_children():
        if child_name != first:
            yield child
        elif rest:
            yield from _around(child, rest)
