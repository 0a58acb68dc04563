"""Weights of whole classifiers: what loads, what starts anew, and that a refusal changes nothing."""

import copy
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from torch import nn

from attnlab.attention import attach, attention_keys
from attnlab.errors import AttnlabError
from attnlab.models import (
    BuiltNetwork,
    build_classifier,
    load_weights,
    read_state_dict,
)
from attnlab.models.published import library_classifier_weights

REAL = Path(__file__).parents[2].parent / "shared" / "weights" / "mobilenet_v2_imagenet_dequantized.pth"
SLIM = {"channels": [8, 16, 16, 32]}


def slim(classes: int, **arguments) -> BuiltNetwork:
    return build_classifier("timm/resnet18", classes, SLIM, **arguments)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Weights of a network of 10 classes, every number drawn anew."""
    torch.manual_seed(1)
    return {
        key: torch.randn(value.shape).to(value.dtype) if value.is_floating_point() else value + 3
        for key, value in slim(10).network.state_dict().items()
    }


def equal(network: nn.Module, weights: dict[str, torch.Tensor], but: tuple[str, ...] = ()) -> bool:
    state = network.state_dict()
    return all(torch.equal(state[key], value) for key, value in weights.items() if not key.startswith(but))


@pytest.mark.parametrize("prefix", ["", "module.", "network.", "backbone."])
def test_loads_whole_under_any_prefix(published, prefix):
    built = slim(10)
    network = built.network
    report = load_weights(built, {prefix + key: v for key, v in published.items()})
    assert equal(network, published)
    assert (report.loaded, report.new, report.unused, report.restarted) == (len(published), [], [], [])


def test_a_classifier_of_other_classes_starts_anew(published):
    built = slim(20)
    network = built.network
    start = copy.deepcopy(network.fc.state_dict())
    report = load_weights(built, published)
    assert equal(network, published, but=("fc.",))
    assert equal(network.fc, start)
    assert report.reason == "20 classes here, 10 in the file"
    assert report.loaded == len(published) - 2
    assert report.unused == report.restarted == ["fc.weight", "fc.bias"]
    assert f"{report.reason}, so these are newly initialised: fc.weight, fc.bias" in str(report)
    assert "\n" not in str(report)


def test_a_file_without_a_classifier(published):
    built = slim(10)
    network = built.network
    backbone = {f"backbone.{key}": value for key, value in published.items() if not key.startswith("fc.")}
    report = load_weights(built, {**backbone, "loss.weight": torch.ones(3)})
    assert equal(network, {key.removeprefix("backbone."): value for key, value in backbone.items()})
    assert report.reason == "the class layers are not in the file"
    assert report.restarted == ["fc.weight", "fc.bias"]
    assert report.unused == []


@pytest.mark.parametrize("classes", [10, 20])
@pytest.mark.parametrize("before", [True, False])
def test_attention_may_be_there_before_or_come_after(published, classes, before):
    built = slim(classes)
    network = built.network
    new: set[str] = set()
    if before:
        attach(network, "ela_t")
        new = set(attention_keys(network))
        assert new
    report = load_weights(built, published)
    if not before:
        attach(network, "ela_t")
    assert set(report.new) == new
    assert equal(network, published, but=() if classes == 10 else ("fc.",))


def test_attention_in_the_file_is_loaded(published):
    built, source = slim(10), slim(10).network
    network = built.network
    for each in (network, source):
        attach(each, "ela_b")
    for value in source.state_dict().values():
        if value.is_floating_point():
            value.normal_()
    report = load_weights(built, source.state_dict())
    assert report.new == []
    assert equal(network, source.state_dict())


def test_auxiliary_classifiers_may_be_left_over(published):
    built = slim(10)
    extra = {"aux1.fc.weight": torch.ones(3), "AuxLogits.conv.weight": torch.ones(3)}
    report = load_weights(built, {**published, **extra})
    assert report.unused == list(extra)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layer1.0.conv1.weight"), "missing in the file: layer1.0.conv1.weight"),
        (lambda w: w.pop("fc.bias"), "missing in the file: fc.bias"),
        (lambda w: w.update({"layer9.weight": torch.ones(1)}), "not in the network: layer9.weight"),
        (lambda w: w.update({"fc.weight": torch.ones(10, 4)}), r"fc.weight: \(10, 4\) in the file"),
        (
            lambda w: w.update({"layer1.0.conv1.weight": torch.ones(8, 1, 3, 3)}),
            r"layer1.0.conv1.weight: \(8, 1, 3, 3\) in the file, \(8, 64, 3, 3\) in the network",
        ),
        (
            lambda w: w.update({"conv1.weight": torch.ones(64, 3, 3, 3)}),
            r"do not fit the stem of ResNet: conv1.weight is \(64, 3, 3, 3\) in the file and \(64, 3, 7, 7\)",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(published, change, message):
    built = slim(10)
    network = built.network
    before = copy.deepcopy(network.state_dict())
    weights = dict(published)
    change(weights)
    with pytest.raises(AttnlabError, match=message):
        load_weights(built, weights)
    assert equal(network, before)


@pytest.mark.parametrize("attention", [False, True])
def test_a_stem_for_small_images_says_what_to_do(published, attention):
    built = slim(20, stem_stride=1)
    network = built.network
    if attention:
        attach(network, "cbam", at="conv1")
    with pytest.raises(AttnlabError, match=r"the stem.*--model.stem_stride out.*--model.weights none"):
        load_weights(built, published)


def test_another_width_is_no_matter_of_the_stem():
    source = build_classifier("mobilenet_v2", 10, {"width_mult": 0.5}).network.state_dict()
    with pytest.raises(AttnlabError, match="do not fit the network MobileNetV2: of another shape") as caught:
        load_weights(build_classifier("mobilenet_v2", 10), source)
    assert "stem" not in str(caught.value)


class TestLibrary:
    def test_offline_is_one_clear_error(self, monkeypatch):
        def fail(*args, **kwargs):
            raise URLError("no route to host")

        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
        monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
        with pytest.raises(AttnlabError, match=r"Could not download .*'resnet18'.*no route.*FILE.*none"):
            library_classifier_weights("resnet18")

    def test_offline_timm(self, monkeypatch):
        def fail(*args, **kwargs):
            raise OSError("no route to host")

        monkeypatch.setattr(timm, "create_model", fail)
        with pytest.raises(AttnlabError, match=r"Could not download .*timm.*'resnet10t'.*no route"):
            library_classifier_weights("resnet10t")

    def test_none_published(self):
        name = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
        with pytest.raises(AttnlabError, match="publishes no ImageNet weights"):
            library_classifier_weights(f"timm/{name}")

    def test_downloaded(self, monkeypatch, published):
        asked = []

        def download(url, **kwargs):
            asked.append(url)
            return published

        monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
        assert library_classifier_weights("mobilenet_v2").keys() == published.keys()
        assert "mobilenet_v2" in asked[0]


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_file(), reason=f"no real weights at {REAL}")
class TestRealMobileNet:
    @pytest.fixture
    def state(self):
        return read_state_dict(REAL)

    def test_whole(self, state):
        built = build_classifier("mobilenet_v2", 1000)
        network = built.network
        report = load_weights(built, state)
        assert report.loaded == len(network.state_dict()) == len(state)
        assert report.restarted == []
        assert equal(network, state)

    def test_twenty_classes(self, state):
        built = build_classifier("mobilenet_v2", 20)
        report = load_weights(built, state)
        assert report.restarted == ["classifier.1.weight", "classifier.1.bias"]
        assert report.loaded == len(state) - 2

    def test_attention_at_zero_changes_no_logit(self, state):
        both = [build_classifier("mobilenet_v2", 1000) for _ in range(2)]
        plain, attended = (built.network.eval() for built in both)
        attach(attended, "ela_b", mode="rezero")
        load_weights(both[0], state)
        report = load_weights(both[1], state)
        assert set(report.new) == set(attention_keys(attended))
        images = torch.randn(2, 3, 96, 96)
        with torch.no_grad():
            assert torch.equal(plain(images), attended(images))
