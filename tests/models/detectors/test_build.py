"""Detectors by name."""

import pytest
import torch
from torch import nn

from attnlab.attention import attach, attention_keys
from attnlab.errors import AttnlabError
from attnlab.models.built import BuiltNetwork
from attnlab.models.detectors import build_detector, detector_options, list_detectors
from tests.models.detectors.tester import DetectorTester


class TestYOLOX(DetectorTester):
    placements = ("yolox.neck", "stage")

    def build(self) -> BuiltNetwork:
        return build_detector("yolox_nano", self.classes, {"size": 96, "score_threshold": 0.0})


def test_every_name_has_typed_options_with_defaults():
    yolox = {f"yolox_{size}" for size in ("nano", "tiny", "s", "m", "l", "x")}
    assert set(list_detectors()) == {"faster_rcnn", "retinanet", "fcos", "ssdlite", "yolof", *yolox}
    for name in list_detectors():
        options = detector_options(name)
        assert not any(option.required for option in options)
        assert {"score_threshold", "nms_threshold", "max_detections"} <= {option.name for option in options}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("retinanett", {}, "Unknown detector 'retinanett'. Did you mean 'retinanet'"),
        ("fcos", {"bakbone": "resnet18"}, r"'bakbone'. Did you mean 'backbone'.*backbone: str = 'resnet50'"),
        ("fcos", {"smallest_anchor": 8}, "Unknown option of detector 'fcos' 'smallest_anchor'"),
        ("fcos", {"score_threshold": "high"}, "takes float, got 'high'"),
        ("fcos", {"frozen_bn": 1}, "takes bool, got 1"),
        ("fcos", {"num_classes": 3}, "Unknown option of detector 'fcos' 'num_classes'"),
        ("fcos", {"max_detections": True}, "takes int, got True"),
    ],
)
def test_names_and_options_that_are_not_there(name, options, message):
    with pytest.raises(AttnlabError, match=message):
        build_detector(name, 3, options)


@pytest.mark.parametrize("classes", [0, -1])
def test_no_classes(classes):
    with pytest.raises(AttnlabError, match="at least one class"):
        build_detector("ssdlite", classes)


def test_without_options():
    assert isinstance(build_detector("ssdlite", 1).network, nn.Module)


def test_lists_of_yaml():
    built = build_detector("yolox_nano", 3, {"size": 320, "train_sizes": [256, 384]})
    assert built.network.resizing.train_sizes == (256, 384)
    assert (built.first_label, built.backbone, built.example_size) == (0, "backbone", (320, 320))
    assert build_detector("yolof", 3, {"backbone": "resnet18", "dilations": [2]}).network.neck.blocks[0]


@pytest.mark.parametrize("name", ["fcos", "yolof", "yolox_nano"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("score_threshold", 1.5, "must be in 0..1, got 1.5"),
        ("nms_threshold", -0.1, "must be in 0..1, got -0.1"),
        ("max_detections", 0, "must be at least 1, got 0"),
    ],
)
def test_ranges(name, option, value, message):
    with pytest.raises(AttnlabError, match=f"{option} of {name} {message}"):
        build_detector(name, 3, {option: value})


SMALL = {"backbone": "resnet18", "min_size": 96, "max_size": 128}


@pytest.mark.parametrize(
    ("name", "options", "at", "sites"),
    [
        ("faster_rcnn", SMALL, "fpn", 4),
        ("retinanet", SMALL, "fpn", 3),
        ("fcos", SMALL, "auto", 8),
        ("yolof", SMALL, "auto", 8),
        ("yolof", SMALL, "yolof.projector", 2),
        ("yolox_nano", {"size": 96}, "fpn", 3),
        ("yolox_nano", {"size": 96}, "auto", 7),
        ("ssdlite", {"size": 96}, "stage", 5),
    ],
)
def test_attention_finds_its_places(name, options, at, sites):
    network = build_detector(name, 3, options).network
    before = set(network.state_dict())
    found = attach(network, "ela_t", at=at, mode="residual")
    assert len(found) == sites
    assert before | attention_keys(network) == set(network.state_dict())
    assert all(f"{site.name}.attention.conv.weight" in network.state_dict() for site in found)
    network.eval()
    with torch.no_grad():
        assert set(network([torch.rand(3, 80, 100)])[0]) == {"boxes", "scores", "labels"}
