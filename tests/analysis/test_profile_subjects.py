"""Networks and attention to measure, from words and from configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from attnlab.analysis.profile_subjects import Variant, config_subject, read_subjects
from attnlab.attention import attach, list_attentions
from attnlab.errors import AttnlabError


def test_all_is_every_module_and_none() -> None:
    (subject,) = read_subjects(["timm/test_resnet"], attentions=["all", "se:reduction=4"])
    assert {variant.label for variant in subject.variants} == {*list_attentions(), "se:reduction=4"}


SEGMENTATION = """
model:
  architecture: Unet
  encoder: tu-test_resnet
  architecture_options: {encoder_depth: 3, decoder_channels: [16, 8, 8]}
  attention: {name: se, at: stage, mode: residual, options: {reduction: 8}}
data: {class_path: Anything}
"""


def test_a_configuration_gives_network_attention_placement_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(SEGMENTATION)
    subject = config_subject(str(path))
    assert [variant.label for variant in subject.variants] == ["se:reduction=8"]
    assert (subject.at, subject.mode) == ("stage", "residual")
    assert subject.build("cpu").network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 21, 32, 32)
    other = config_subject(str(path), [Variant.parse("eca")], "decoder", "replace", 3)
    assert ([v.label for v in other.variants], other.at, other.mode) == (["eca"], "decoder", "replace")
    assert other.build("cpu").network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_a_classification_configuration(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("task: classification\nmodel:\n  network: resnet18\n  stem_stride: 1\n")
    subject = config_subject(str(path))
    assert [variant.name for variant in subject.variants] == ["none"]
    network = subject.build("meta").network
    assert network.get_submodule("fc").out_features == 1000
    assert network.get_submodule("conv1").stride == (1, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task: detecton\nmodel: {}", "Unknown task 'detecton'. Did you mean 'detection'"),
        (
            "model: {class_path: DetectonTask}",
            "Unknown task of .* 'DetectonTask'. Did you mean 'DetectionTask'",
        ),
        (
            "model: {architecure: Unet}",
            "Unknown key of model in .* 'architecure'. Did you mean 'architecture'",
        ),
        ("model: {network: resnet18}", "Unknown key of model in .* 'network'"),
        ("model: {encoder: 5}", "model.encoder in .* must be a name, got 5"),
        ("model: resnet18", "Unknown task of .* 'resnet18'"),
        ("model: {attention: [se]}", "model.attention in .* must be a block of keys"),
        ("model: {attention: {nam: se}}", "Did you mean 'name'"),
        ("model: {attention: {name: see}}", "Unknown attention 'see'"),
        ("- 1", "has no top-level keys such as model"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_configurations_that_cannot_work(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(content)
    with pytest.raises(AttnlabError, match=message):
        config_subject(str(path))


CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_read(path: Path) -> None:
    subject = config_subject(str(path))
    built = subject.build("meta")
    for variant in subject.variants:
        placement = {"options": variant.options, "shared": subject.shared}
        example = torch.zeros(1, 3, *(built.example_size or (64, 64)))
        sites = attach(built.network, variant.name, subject.at, subject.mode, example=example, **placement)
        assert bool(sites) == (variant.name != "none")


@pytest.mark.parametrize("path", ["SegmentationTask", "attnlab.tasks.SegmentationTask"])
def test_a_task_may_be_named_by_its_class(path: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(SEGMENTATION)
    model = yaml.safe_load(SEGMENTATION)["model"]
    new.write_text(yaml.safe_dump({"model": {"class_path": path, "init_args": model}}))
    first, second = config_subject(str(old)), config_subject(str(new))
    assert [str(subject.build("meta").network) for subject in (first, second)] == [
        str(first.build("cpu").network)
    ] * 2
    assert (second.variants, second.at, second.mode) == (first.variants, first.at, first.mode)
