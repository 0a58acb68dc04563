"""Object detection."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from attnlab.metrics import DetectionResult, DetectionScores
from attnlab.models import build_detector
from attnlab.tasks.base import BaseTask, names_of
from attnlab.views import DetectionView

# The parts of the detectors that make classes and boxes of features; each detector has one or two.
HEADS = ("head", "decoder", "rpn.head", "roi_heads.box_predictor")


class DetectionTask(BaseTask):
    """Trains a torchvision detector, YOLOX or YOLOF, with attention where you want it.

    The detector resizes its input and returns boxes in the input's pixels, so AP is always computed at the
    images' stored size. COCO's twelve metrics and Pascal VOC's AP50 (area under the curve, and the 11-point
    form of 2007) come from the same detections. There is no validation loss: torchvision's detectors compute
    losses only in training.

    Weights may be for the whole detector or its backbone; YOLOX files of other PyTorch ports work, too.
    Layers that depend on the number of classes are reinitialised if it differs.

    Args:
        network: faster_rcnn, retinanet, fcos, ssdlite (torchvision's), yolox_nano, yolox_tiny, yolox_s,
            yolox_m, yolox_l, yolox_x, or yolof.
        network_options: Further arguments of the network, e.g. ``{backbone: resnet50, min_size: 800}`` for
            faster_rcnn or ``{size: 416}`` for yolox_nano; an unknown one is rejected with a list of those
            available.
        num_classes: Number of classes, without background. Comes from the data; if given, it is checked
            against the data.
        class_names: Names of the classes; come from the data.
        **options: The other options of `NetworkModule`.

    Raises:
        AttnlabError: An option is unknown, invalid or contradicts another.
    """

    kind = "detection"
    default_data = "ShapesDetectionDataModule"
    builder = staticmethod(build_detector)
    view = DetectionView()
    monitor = "val/AP"
    has_eval_loss = False
    class_metric = ("AP", ("test",))
    class_label = "AP50"

    def __init__(
        self,
        network: str = "faster_rcnn",
        network_options: dict[str, Any] | None = None,
        num_classes: int | None = None,
        class_names: list[str] | None = None,
        **options: Any,
    ) -> None:
        names = names_of(num_classes, class_names)
        own = {
            "network": network,
            "network_options": dict(network_options or {}),
            "num_classes": len(names),
            "class_names": names,
        }
        super().__init__(own, **options)

    def make_scores(self) -> DetectionScores:
        """COCO's twelve metrics and Pascal VOC's AP50."""
        return DetectionScores(self.class_names)

    @property
    def compiled_part(self) -> nn.Module:
        """The backbone: the shapes after it depend on the number of boxes, which varies between images."""
        return self.backbone

    @property
    def first_label(self) -> int:
        """The network's label of class 0."""
        return self.built.first_label or 0

    def forward(self, image: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detections in images with values in 0..1.

        Args:
            image: (3, h, w) each, of any size.

        Returns:
            For each image ``boxes`` (M, 4) as x0, y0, x1, y1 in its pixels, ``scores`` (M,) in 0..1 from the
            highest down, and ``labels`` int64 (M,) in 0..K-1.
        """
        detections = self.network(image)
        return [{**found, "labels": found["labels"] - self.first_label} for found in detections]

    def on_train_epoch_start(self) -> None:
        """Tell the detector how far training has come, if its losses or sizes depend on that."""
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

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The detector's losses on one batch, and their sum."""
        targets = [
            {
                "boxes": torch.as_tensor(target["boxes"], device=self.device),
                "labels": torch.as_tensor(target["labels"], device=self.device) + self.first_label,
            }
            for target in batch["target"]
        ]
        terms: dict[str, Tensor] = self.network(batch["image"], targets)
        return {**terms, "loss": torch.stack([term.float() for term in terms.values()]).sum()}

    def evaluate(
        self, batch: dict[str, Any], scores: DetectionScores, loss: MeanMetric
    ) -> dict[str, list[dict[str, Tensor] | None]]:
        """Score one batch, and return its ``detections``; None for an image that is not counted."""
        detections = self.predict_step(batch, 0)
        pairs = [
            (found, target)
            for found, target in zip(detections, batch["target"], strict=True)
            # A split without annotations, such as COCO's test-dev, cannot be scored.
            if found is not None and "boxes" in target
        ]
        if pairs:
            scores.update([found for found, _ in pairs], [target for _, target in pairs])
        return {"detections": detections}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Tensor] | None]:
        """Detections in each image of one batch, as from `forward`; None for an image that is not counted."""
        counted = batch["counted"].tolist()
        if not any(counted):
            return [None] * len(counted)
        images = [image for image, counts in zip(batch["image"], counted, strict=True) if counts]
        with self._heads_watched(len(images)) as flags:
            found = [_finite_only(one) for one in self(images)]
        # Detectors drop what is NaN, so that a broken output would look like an empty image.
        broken = torch.stack([*flags, torch.stack([lost for _, lost in found])]).any(0)
        found_or_not, broken_or_not = iter([one for one, _ in found]), iter(broken)
        no = broken.new_zeros(())
        self.note_outputs(torch.stack([next(broken_or_not) if counts else no for counts in counted]), batch)
        return [next(found_or_not) if counts else None for counts in counted]

    @contextmanager
    def _heads_watched(self, images: int) -> Iterator[list[Tensor]]:
        """A list that gets, for every output of a head, the images in which it is not finite: bool (B,)."""
        flags: list[Tensor] = []

        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if tensor.is_floating_point():
                    by_image = tensor.dim() > 2 and len(tensor) == images
                    rows = tensor.flatten(1) if by_image else tensor.reshape(1, -1)
                    # A head of the proposals of all images does not say whose an output is.
                    flags.append((~rows.isfinite()).any(1).expand(images))

        modules = dict(self.network.named_modules())
        hooks = [modules[name].register_forward_hook(look) for name in HEADS if name in modules]
        try:
            yield flags
        finally:
            for hook in hooks:
                hook.remove()

    def figures(self, result: DetectionResult) -> dict[str, float]:
        """COCO's metrics by name, Pascal VOC's as ``VOC_AP50`` and ``VOC_AP50_11point``.

        Undefined ones are left out, except AP, AP50 and VOC_AP50; without annotations, all are.
        """
        values = result.coco | {f"VOC_{name}": value for name, value in result.voc.items()}
        always = ("AP", "AP50", "VOC_AP50")
        kept = {name: value for name, value in values.items() if name in always or math.isfinite(value)}
        return kept if result.images else {}

    def class_figures(self, result: DetectionResult) -> dict[str, float]:
        """COCO's AP of each class that has ground truth."""
        return {name: scores.ap for name, scores in result.per_class.items()}

    def listed_figures(self, result: DetectionResult) -> dict[str, float]:
        """AP50 of each class that has ground truth."""
        return {name: scores.ap50 for name, scores in result.per_class.items()}

    def headline(self, stage: str, result: DetectionResult) -> list[tuple[str, str]]:
        """COCO's twelve metrics and Pascal VOC's two."""
        if result.images == 0:
            return [(f"{stage} AP", "- (no annotations to score with)")]
        coco, voc = result.coco, result.voc
        over = f"over {len(result.per_class)} of {len(self.class_names)} classes, {result.images} images"
        return [
            (f"{stage} AP", f"{coco['AP']:.4f} {over}"),
            (f"{stage} AP50, AP75", f"{coco['AP50']:.4f}, {coco['AP75']:.4f}"),
            (f"{stage} AP small, medium, large", _figures(coco, "APs", "APm", "APl")),
            (f"{stage} AR at 1, 10, 100", _figures(coco, "AR1", "AR10", "AR100")),
            (f"{stage} AR small, medium, large", _figures(coco, "ARs", "ARm", "ARl")),
            (f"{stage} VOC AP50", f"{voc['AP50']:.4f}; 11-point {voc['AP50_11point']:.4f}"),
        ]


def _finite_only(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """An image's detections with finite box and score, and whether there were others, a bool tensor."""
    finite = found["boxes"].isfinite().all(1) & found["scores"].isfinite()
    return {name: values[finite] for name, values in found.items()}, ~finite.all()


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in nested dicts, lists, tuples and dataclasses."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        output = list(output.values())
    elif is_dataclass(output):
        output = list(vars(output).values())
    if isinstance(output, list | tuple):
        for each in output:
            yield from _tensors(each)


def _figures(values: dict[str, float], *names: str) -> str:
    return ", ".join("-" if math.isnan(values[name]) else f"{values[name]:.4f}" for name in names)
