"""Names as people write them are understood, or answered with the near ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attnlab.analysis.sites import build_network
from attnlab.attention import attach, get_attention
from attnlab.cli.shorthand import with_proper_names
from attnlab.errors import AttnlabError, known_name
from attnlab.models import build_detector, build_segmenter
from attnlab.models.published import find_network
from attnlab.tasks import AttentionConfig, ClassificationTask


@pytest.mark.parametrize("written", ["ELA-B", "ela-b", "Ela_B", "ela b", "elab"])
def test_attention(written):
    assert get_attention(written).name == "ela_b"


def test_what_could_be_two_stays_as_it_is():
    assert known_name("a-b", ["ab", "a_b"]) == "a-b"
    assert known_name("ab", ["ab", "a_b"]) == "ab"
    with pytest.raises(AttnlabError, match="Did you mean 'cbam'"):
        get_attention("CBMA")


def test_a_module_of_ones_own_keeps_its_letters():
    assert get_attention("torch.nn.Identity").module is nn.Identity


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ResNet50", ("torchvision", "resnet50")),
        ("resnet-50", ("torchvision", "resnet50")),
        ("MobileNetV2", ("torchvision", "mobilenet_v2")),
        ("timm/resnet18", ("timm", "resnet18")),
        ("RegNetY-004", ("timm", "regnety_004")),
    ],
)
def test_classifiers(written, meant):
    assert find_network(written) == meant


def test_sites_and_profile_need_no_library():
    assert type(build_network("resnet18").network).__module__.startswith("torchvision")


@pytest.mark.parametrize("written", ["deeplabv3+", "DeepLabV3+", "deeplabv3plus"])
def test_segmenters(written):
    network = build_segmenter(written, "ResNet18", 3).network
    assert type(network.model).__name__ == "DeepLabV3Plus"


@pytest.mark.parametrize("written", ["YOLOX-nano", "yolox nano"])
def test_detectors(written):
    assert type(build_detector(written, 2).network).__name__ == "YOLOX"


def test_modes_and_places():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    (site,) = attach(network, "ELA-T", at="1", mode="ReZero", example=torch.zeros(1, 3, 9, 9))  # type: ignore[arg-type]
    assert site.name == "1"
    with pytest.raises(AttnlabError, match="Did you mean 'rezero'"):
        attach(network, "ela_t", mode="rezo")  # type: ignore[arg-type]


def test_the_parsers_own_words():
    typed = ["--model.attention.mode=ReZero", "--model.schedule", "Cosine", "--data.root=/Mine"]
    assert with_proper_names(typed)[0] == [
        "--model.attention.mode=rezero",
        "--model.schedule",
        "cosine",
        "--data.root=/Mine",
    ]
    blocks = ["--model.schedule=Mine.yaml", "--model.schedule={name: poly, A: 1}"]
    assert with_proper_names(blocks)[0] == blocks


def test_a_checkpoint_holds_one_name():
    """So that a run that was started as ELA-T is resumed as ela_t."""
    task = ClassificationTask("resnet18", attention=AttentionConfig("ELA-T"), num_classes=2)
    assert task.hparams["attention"]["name"] == task.attention.name == "ela_t"
