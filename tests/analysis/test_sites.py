from __future__ import annotations

import pytest

from attnlab.analysis.sites import SiteReport, build_network, report_sites, summary_markdown
from attnlab.attention import Site
from attnlab.attention.macs import count_macs
from attnlab.cli.commands import run
from attnlab.errors import AttnlabError


def test_report_counts_what_attention_adds() -> None:
    report = report_sites("torchvision/resnet18", "ela_b", at="stage", size=64)
    assert [site.name for site in report.sites] == ["layer1", "layer2", "layer3", "layer4"]
    assert report.parameters == 11_689_512
    assert report.parameters_with - report.parameters == sum(9 * c for c in (64, 128, 256, 512))
    sides = {64: 16, 128: 8, 256: 4, 512: 2}
    assert report.macs_with - report.macs == sum(2 * side * 7 * channels for channels, side in sides.items())


@pytest.mark.parametrize(
    "name",
    ["torchvision/deeplabv3_resnet50", "timm/mobilenetv3_small_100", "smp/Unet:tu-resnet18", "smp/FPN"],
)
def test_networks_are_built_by_name_without_weights(name: str) -> None:
    assert next(build_network(name).network.parameters()).is_meta


@pytest.mark.parametrize("name", ["detection/yolox_nano", "detection/yolof"])
def test_detectors_are_measured_at_their_own_size(name: str) -> None:
    report = report_sites(name, "ela_b", at="stage")
    built = build_network(name)
    assert report.macs == count_macs(built.network, 1, 3, *built.example_size)
    assert report.macs_with > report.macs
    assert report.sites
    with pytest.raises(AttnlabError, match="--size is for classifiers and segmenters"):
        report_sites(name, "ela_b", at="stage", size=32)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet1", "Unknown network 'resnet1'"),
        ("hub/resnet18", "Write LIBRARY/NETWORK"),
        ("tim/resnet18", "Did you mean 'timm'"),
        ("torchvision/resnet1", "Did you mean 'resnet18'"),
        ("timm/regnety_04", "Did you mean 'regnety_0"),
        ("smp/DeepLabV3Pluss:resnet18", "Unknown architecture"),
        ("smp/Unet:resnet1", "Unknown encoder"),
        ("detection/yolox_nan", "Did you mean 'yolox_nano'"),
    ],
)
def test_unknown_networks_list_the_near_ones(name: str, message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        build_network(name)


def test_one_network_prints_its_sites(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--at layer3 --at layer4 --attention se --option reduction=32 --mode residual --size 64"
    run(["attention", "sites", "torchvision/resnet18", *words.split()])
    text = capsys.readouterr().out
    assert "se in torchvision/resnet18" in text
    assert "layer3" in text
    assert "layer1" not in text
    assert f"{2 * 512 * 16 + 16 + 512:,d}" in text
    assert "2 sites. Parameters 11.690 M -> 11.7" in text


def test_several_networks_print_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    run(["attention", "sites", "torchvision/resnet18", "timm/ghostnet_100", "--size", "64", "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| torchvision/resnet18 | layer1.0.bn2 … layer4.1.bn2 | 8 | 11.690 | 17.3 |")


def test_a_summary_says_too_what_is_on_an_input() -> None:
    report = SiteReport("net", [Site("a", 8, 4, before=True), Site("b", 8, 4)], 100, 1000, 1008)
    assert "| net | a (input) … b | 2 |" in summary_markdown([report])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--option reduction", "KEY=VALUE"),
        ("--option kernel=3", "Did you mean 'kernel_size'"),
        ("--option kernel_size=x", "takes int, got 'x'"),
        ("--at aspp", "finds nothing in ResNet"),
        ("--mode rezro", "Did you mean 'rezero'"),
        ("--size 0", "--size must be at least 1, got 0"),
    ],
)
def test_words_that_cannot_work_are_errors(words: str, message: str) -> None:
    with pytest.raises(AttnlabError, match=message):
        run(["attention", "sites", "torchvision/resnet18", *words.split()])
