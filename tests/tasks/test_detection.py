"""DetectionTask beside the definitions, with a detector whose detections are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attnlab.errors import AttnlabError
from attnlab.tasks import AttentionConfig, DetectionTask

TINY = {"network": "yolox_nano", "network_options": {"size": 64}, "num_classes": 3}


def batch(counted: list[bool]) -> dict[str, Any]:
    """Images of one object each, of class k modulo 3."""
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0]])
    return {
        "image": [torch.rand(3, 64, 64 - 8 * k) for k in range(len(counted))],
        "target": [
            {"boxes": boxes, "labels": torch.tensor([k % 3]), "image_id": torch.tensor(k)}
            for k in range(len(counted))
        ],
        "counted": torch.tensor(counted),
        "name": [f"photo{k}.jpg" for k in range(len(counted))],
    }


class Oracle(torch.nn.Module):
    """Finds each object where it is, and calls its class as a network with a background would."""

    def __init__(self, first_label: int) -> None:
        super().__init__()
        self.first_label = first_label
        self.seen: list[dict[str, Tensor]] = []
        self.losses = {"class": torch.tensor(1.5), "box": torch.tensor(0.25)}

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        if targets is not None:
            self.seen = targets
            return self.losses
        boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0]])
        # The width tells which image it is.
        labels = [torch.tensor([(64 - image.shape[-1]) // 8 % 3 + self.first_label]) for image in images]
        return [{"boxes": boxes, "scores": torch.tensor([0.9]), "labels": label} for label in labels]


def silent(task: DetectionTask) -> DetectionTask:
    task.log = task.log_dict = lambda *args, **kwargs: None
    return task


@pytest.fixture
def task() -> DetectionTask:
    """A task whose network keeps class 0 for a background."""
    made = silent(DetectionTask(**TINY))
    made.network, made.built = Oracle(1), replace(made.built, first_label=1)
    return made


def test_the_background_is_the_networks_own_business(task: DetectionTask) -> None:
    sample = batch([True, True, True, True])
    loss = task.training_step(sample, 0)
    assert float(loss) == 1.75
    assert [target["labels"].tolist() for target in task.network.seen] == [[1], [2], [3], [1]]
    assert [target["labels"].tolist() for target in sample["target"]] == [[0], [1], [2], [0]]
    outputs = task.validation_step(sample, 0)
    assert [found["labels"].tolist() for found in outputs["detections"]] == [[0], [1], [2], [0]]
    result = task.val_scores.result()
    assert result.coco["AP"] == pytest.approx(1)
    assert result.voc["AP50"] == pytest.approx(1)


def test_fillers_enter_no_score(task: DetectionTask) -> None:
    outputs = task.test_step(batch([True, False, True]), 0)
    assert [found is None for found in outputs["detections"]] == [False, True, False]
    assert task.test_step(batch([False]), 1)["detections"] == [None]
    result = task.test_scores.result()
    assert (result.images, result.truths, result.detections) == (2, 2, 2)


def test_a_split_without_annotations_has_detections_and_no_score(task: DetectionTask) -> None:
    sample = batch([True, True])
    sample["target"] = [{"image_id": target["image_id"]} for target in sample["target"]]
    assert len(task.test_step(sample, 0)["detections"]) == 2
    assert task.test_scores.result().images == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_names_the_images(task: DetectionTask, value: float) -> None:
    task.network.losses["box"] = torch.tensor(value)
    with pytest.raises(AttnlabError, match=r"box (nan|inf).*photo0\.jpg, photo1\.jpg"):
        task.training_step(batch([True, True]), 0)


def test_the_necks_attention_is_of_three_modules_and_trains_once_each() -> None:
    task = DetectionTask(**TINY, attention=AttentionConfig("ela_t", at="yolox.neck"))
    assert len(task.sites) == 7
    assert sorted(site.channels for site in task.sites if site.parameters) == [64, 128, 256]
    groups = task.configure_optimizers()["optimizer"].param_groups
    attention = next(group for group in groups if group["name"] == "attention")
    # A convolution, and scale and offset of a norm, in each.
    assert len(attention["params"]) == 9


def test_an_unknown_option_lists_what_there_is() -> None:
    with pytest.raises(AttnlabError, match="score_threshold"):
        DetectionTask("yolox_nano", {"score_treshold": 0.1}, num_classes=2)
