"""Detectors by name."""

import pytest
from torch import nn

from attnlab.errors import AttnlabError
from attnlab.models.detectors import build_detector, detector_options, list_detectors


def test_every_name_has_typed_options_with_defaults():
    assert {"faster_rcnn", "retinanet", "fcos", "ssdlite"} <= set(list_detectors())
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
