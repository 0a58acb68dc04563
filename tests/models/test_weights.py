"""Pretrained weights: what loads, what is refused, and that a refusal changes nothing."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attnlab.attention import attach, attention_keys
from attnlab.errors import AttnlabError
from attnlab.models import build_segmenter, load_weights, read_state_dict

REAL = Path(__file__).parents[2].parent / "shared" / "weights" / "mobilenet_v2_imagenet_dequantized.pth"


@pytest.fixture(scope="module")
def first():
    """Two segmenters with weights of their own, built once and changed by nobody."""
    return [build_segmenter("DeepLabV3Plus", "mobilenet_v2", 3) for _ in range(2)]


@pytest.fixture
def built(first):
    return replace(first[0], network=copy.deepcopy(first[0].network))


@pytest.fixture
def encoder(built):
    return built.network.encoder


@pytest.fixture
def weights(first):
    state = first[1].network.encoder.state_dict()
    return {**state, "classifier.1.weight": torch.zeros(1000, 1280), "classifier.1.bias": torch.zeros(1000)}


def same(encoder, weights):
    return all(
        torch.equal(value, encoder.state_dict()[key])
        for key, value in weights.items()
        if "classifier" not in key
    )


@pytest.mark.parametrize("prefix", ["", "module.", "network.model.encoder."])
def test_loads_under_any_prefix(built, encoder, weights, prefix):
    report = load_weights(built, {prefix + key: value for key, value in weights.items()})
    assert same(encoder, weights)
    assert report.loaded == len(weights) - 2
    assert len(report.unused) == 2


def test_attention_may_be_there_before(built, encoder, weights):
    sites = attach(encoder, "ela_t", at="mobilenetv2.depthwise")
    report = load_weights(built, weights)
    assert set(report.new) == attention_keys(built.network)
    assert len(sites) == 16
    assert same(encoder, weights)


def test_attention_may_come_after(built, encoder, weights):
    load_weights(built, weights)
    attach(encoder, "ela_t", at="mobilenetv2.depthwise")
    assert same(encoder, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("features.3.conv.0.0.weight"), "missing in the file: features.3.conv.0.0.weight"),
        (lambda w: w.update({"features.99.weight": torch.ones(1)}), "not in the network: features.99.weight"),
        (
            lambda w: w.update({"features.0.0.weight": torch.ones(32, 1, 3, 3)}),
            r"\(32, 1, 3, 3\) in the file",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(built, encoder, weights, change, message):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    change(weights)
    with pytest.raises(AttnlabError, match=message):
        load_weights(built, weights)
    assert same(encoder, before)


@pytest.mark.parametrize("prefix", ["", "network."])
@pytest.mark.parametrize("classes", [3, 5])
def test_a_whole_segmenter(built, first, prefix, classes):
    other = first[1] if classes == 3 else build_segmenter("DeepLabV3Plus", "mobilenet_v2", classes)
    source = other.network.state_dict()
    before = {key: value.clone() for key, value in built.network.state_dict().items()}
    report = load_weights(built, {prefix + key: value for key, value in source.items()})
    anew = {f"model.segmentation_head.0.{kind}" for kind in ("weight", "bias")} if classes != 3 else set()
    assert (report.part, set(report.restarted), report.loaded) == ("network", anew, len(source) - len(anew))
    after = built.network.state_dict()
    assert all(torch.equal(after[key], (before if key in anew else source)[key]) for key in source)


class TestReading:
    def test_torch_and_safetensors(self, tmp_path):
        state = {"a.weight": torch.randn(3)}
        torch.save({"state_dict": state}, tmp_path / "a.pth")
        save_file(state, tmp_path / "a.safetensors")
        for name in ("a.pth", "a.safetensors"):
            assert torch.equal(read_state_dict(tmp_path / name)["a.weight"], state["a.weight"])

    def test_missing(self, tmp_path):
        with pytest.raises(AttnlabError, match="not found") as error:
            read_state_dict(tmp_path / "nothing.pth")
        assert "http" not in str(error.value)
        with pytest.raises(AttnlabError, match=r"github\.com/bubbliiiing/yolox-pytorch/releases/tag/v1\.0"):
            read_state_dict(tmp_path / "yolox_s.pth")

    @pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
    def test_truncated(self, tmp_path, name):
        state = {"a.weight": torch.randn(3000)}
        torch.save(state, tmp_path / "a.pth")
        save_file(state, tmp_path / "a.safetensors")
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(AttnlabError, match=f"Cannot read weights from .*{name}"):
            read_state_dict(path)

    def test_no_tensors(self, tmp_path):
        torch.save({"epoch": 3}, tmp_path / "a.pth")
        with pytest.raises(AttnlabError, match="contains no named tensors"):
            read_state_dict(tmp_path / "a.pth")

    def test_code_in_a_file_is_not_run(self, tmp_path):
        torch.save({"weight": Path("x")}, tmp_path / "a.pth")
        with pytest.raises(AttnlabError, match="Cannot read weights"):
            read_state_dict(tmp_path / "a.pth")


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_file(), reason=f"no real weights at {REAL}")
@pytest.mark.parametrize("architecture", ["DeepLabV3Plus", "PSPNet"])
def test_real_mobilenet_weights(architecture):
    built = build_segmenter(architecture, "mobilenet_v2", 21)
    assert load_weights(built, REAL).loaded == len(built.network.encoder.state_dict())
