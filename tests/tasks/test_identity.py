"""Which checkpoints are of the same network, in every task."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attnlab.errors import AttnlabError
from attnlab.tasks import AttentionConfig, BaseTask, ClassificationTask, DetectionTask, SegmentationTask
from attnlab.tasks.identity import refuse_another_network

TASKS: dict[str, tuple[type[BaseTask], dict[str, Any]]] = {
    "classification": (ClassificationTask, {"network": "resnet18"}),
    "timm": (ClassificationTask, {"network": "timm/resnet18", "network_options": {"channels": [8, 8, 8, 8]}}),
    "segmentation": (SegmentationTask, {"architecture": "DeepLabV3Plus", "encoder": "tu-test_resnet"}),
    "detection": (DetectionTask, {"network": "yolox_nano", "network_options": {"size": 64}}),
    "two stages": (
        DetectionTask,
        {"network": "faster_rcnn", "network_options": {"backbone": "resnet18", "min_size": 64}},
    ),
}
SE = AttentionConfig("se", at="stage")
SAME: list[tuple[str, dict[str, Any]]] = [
    ("classification", {"network": "torchvision/ResNet-18"}),
    ("classification", {"network_options": {"zero_init_residual": False, "width_per_group": 64}}),
    ("classification", {"stem_stride": 4}),
    ("timm", {"network_options": {"channels": (8, 8, 8, 8), "avg_down": False, "drop_rate": 0.3}}),
    (
        "segmentation",
        {
            "architecture": "DeepLabV3+",
            "architecture_options": {"encoder_output_stride": 16, "decoder_atrous_rates": [12, 24, 36]},
        },
    ),
    ("segmentation", {"architecture_options": {"decoder_aspp_dropout": 0.1}}),
    ("detection", {"network": "YOLOX-nano", "network_options": {"pixels": "imagenet"}}),
    ("detection", {"network_options": {"size": 96, "score_threshold": 0.1}}),
    ("two stages", {"network_options": {"backbone": "resnet18", "smallest_anchor": 32}}),
]
OTHER: list[tuple[str, dict[str, Any], str]] = [
    (
        "classification",
        {"network": "timm/resnet18"},
        "network: 'timm/resnet18' here, 'resnet18' in the check",
    ),
    ("classification", {"stem_stride": 2}, "stem_stride: 2 here, None in the checkpoint"),
    ("timm", {"network_options": {"channels": [8, 8, 8, 8], "act_layer": "silu"}}, "network_options"),
    ("segmentation", {"architecture_options": {"decoder_atrous_rates": [6, 12, 18]}}, "architecture_options"),
    ("segmentation", {"ignore_index": 0}, "ignore_index: 0 here, 255 in the checkpoint"),
    ("detection", {"network_options": {"pixels": "bgr255"}}, "network_options"),
    ("detection", {"network": "yolox_tiny"}, "network: 'yolox_tiny' here, 'yolox_nano' in the checkpoint"),
    ("two stages", {"network_options": {"backbone": "resnet18", "smallest_anchor": 8}}, "network_options"),
]


def task_of(kind: str, **options: Any) -> BaseTask:
    cls, own = TASKS[kind]
    return cls(**{"class_names": ["a", "b", "c"], **own, **options})


def compare(here: BaseTask, there: BaseTask) -> None:
    random = torch.get_rng_state()
    refuse_another_network(here, {"hyper_parameters": dict(there.hparams), "state_dict": there.state_dict()})
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(("kind", "options"), SAME)
def test_another_way_to_write_it_is_the_same_network(kind: str, options: dict[str, Any]) -> None:
    compare(task_of(kind, **options), task_of(kind))
    compare(task_of(kind), task_of(kind, **options))


@pytest.mark.parametrize(("kind", "options", "message"), OTHER)
def test_another_function_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        compare(task_of(kind, **options), task_of(kind))


ALIKE = [
    (SE, AttentionConfig("se", at=["stage"], options={"reduction": 16})),
    (AttentionConfig("ela_b", at="stage"), AttentionConfig("ELA-B", at="stage", shared=False)),
    (
        AttentionConfig("ela_b", at="stage"),
        AttentionConfig("ela", at="stage", options={"kernel_size": 7, "implementation": "formula"}),
    ),
    (AttentionConfig("none"), AttentionConfig("none", at="stage", mode="residual")),
]
UNLIKE = [
    (SE, AttentionConfig("se", at="stage", mode="residual")),
    (
        AttentionConfig("ela_b", at="stage"),
        AttentionConfig("ela_b", at="stage", options={"norm_groups": 32}),
    ),
]


# One rule for all tasks: all cases in one, and a pair of each kind in the others.
@pytest.mark.parametrize(
    ("kind", "here", "there", "same"),
    [
        *(("classification", *pair, True) for pair in ALIKE),
        *(("classification", *pair, False) for pair in UNLIKE),
        *((kind, *ALIKE[2], True) for kind in ("segmentation", "detection")),
        *((kind, *UNLIKE[1], False) for kind in ("segmentation", "detection")),
    ],
)
def test_of_attention_it_is_the_function_that_counts(
    kind: str, here: AttentionConfig, there: AttentionConfig, same: bool
) -> None:
    first, second = task_of(kind, attention=here), task_of(kind, attention=there)
    if same:
        compare(first, second)
    else:
        with pytest.raises(AttnlabError, match="attention"):
            compare(first, second)


def test_modules_that_sites_share_are_not_one_for_each() -> None:
    """The keys and shapes are the same."""
    here, there = (
        task_of("detection", attention=AttentionConfig("ela_t", at="yolox.neck", shared=shared))
        for shared in (None, False)
    )
    with pytest.raises(AttnlabError, match=r"attention\.shared: None here, False in the checkpoint"):
        compare(here, there)


def test_classes_mean_what_their_order_says() -> None:
    here = task_of("classification", class_names=["b", "a", "c"])
    with pytest.raises(AttnlabError, match="class_names"):
        compare(here, task_of("classification"))
