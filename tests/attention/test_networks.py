"""``attach`` on networks of torchvision, timm and segmentation_models_pytorch, without weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import BasicBlock

from attnlab.attention import attach, attention_keys, list_attentions
from attnlab.errors import AttnlabError

AUTO = {
    "torchvision/resnet18": ("layer1.0.bn2", "layer4.1.bn2", 8),
    "torchvision/resnet50": ("layer1.0.bn3", "layer4.2.bn3", 16),
    "timm/resnet18": ("layer1.0.bn2", "layer4.1.bn2", 8),
    "timm/resnet50": ("layer1.0.bn3", "layer4.2.bn3", 16),
    "torchvision/mobilenet_v2": ("features.2.conv.1", "features.17.conv.1", 16),
    "timm/mobilenetv2_100": ("blocks.1.0.bn2", "blocks.6.0.bn2", 16),
    "torchvision/mobilenet_v3_small": ("features.1", "features.11", 4),
    "timm/mobilenetv3_small_100": ("blocks.0", "blocks.4", 4),
    "torchvision/efficientnet_b0": ("features.2", "features.7", 4),
    "timm/efficientnetv2_rw_t": ("blocks.1", "blocks.5", 4),
    "torchvision/regnet_y_400mf": ("trunk_output.block1", "trunk_output.block4", 4),
    "timm/regnety_004": ("s1", "s4", 4),
    "torchvision/convnext_tiny": ("features.1", "features.7", 4),
    "timm/convnext_atto": ("stages.0", "stages.3", 4),
    "torchvision/vgg16_bn": ("features.22", "features.42", 3),
    "torchvision/densenet121": ("features.denseblock1", "features.denseblock4", 4),
    "timm/ghostnet_100": ("blocks.2", "blocks.8", 4),
    "timm/hrnet_w18_small": ("layer1.0.bn3", "incre_modules.3.0.bn3", 23),
    "torchvision.segmentation/deeplabv3_resnet50": ("backbone.layer1.0.bn3", "backbone.layer4.2.bn3", 16),
    "smp/DeepLabV3:resnet18": ("encoder.layer1.0.bn2", "encoder.layer4.1.bn2", 8),
    "smp/DeepLabV3Plus:mobilenet_v2": ("encoder.features.2.conv.1", "encoder.features.17.conv.1", 16),
    "smp/DeepLabV3Plus:tu-regnety_004": ("encoder.model.s1", "encoder.model.s4", 4),
    "smp/PSPNet:resnet18": ("encoder.layer1.0.bn2", "encoder.layer2.1.bn2", 4),
    "smp/FPN:tu-mobilenetv3_small_100": ("encoder.model.blocks.0", "encoder.model.blocks.4", 4),
    "smp/Unet:efficientnet-b0": ("encoder._blocks.2", "encoder._blocks.15", 4),
    "smp/UPerNet:tu-convnext_atto": ("encoder.model.stages_0", "encoder.model.stages_3", 4),
}
"""Network: the first and the last site of ``auto``, and how many there are."""
QUICK = {
    "torchvision/resnet18",
    "timm/resnet50",
    "torchvision/mobilenet_v2",
    "timm/mobilenetv3_small_100",
    "torchvision/regnet_y_400mf",
    "timm/convnext_atto",
    "smp/DeepLabV3Plus:mobilenet_v2",
    "smp/UPerNet:tu-convnext_atto",
}
"""One network of each way of finding the place; the others, in the slow part, repeat them."""


def of_networks(names: Iterable[str]) -> pytest.MarkDecorator:
    slow = pytest.mark.slow
    return pytest.mark.parametrize("name", [pytest.param(n, marks=[slow] * (n not in QUICK)) for n in names])


def build(name: str) -> nn.Module:
    library, _, network = name.partition("/")
    if library == "timm":
        return timm.create_model(network, num_classes=10)
    if library == "smp":
        decoder, _, encoder = network.partition(":")
        return getattr(smp, decoder)(encoder, encoder_weights=None, classes=5)
    if library == "torchvision.segmentation":
        builder = getattr(torchvision.models.segmentation, network)
        return builder(weights=None, weights_backbone=None, num_classes=5)
    return torchvision.models.get_model(network, num_classes=10)


def maps(output: object) -> torch.Tensor:
    return output["out"] if isinstance(output, dict) else output


@of_networks(AUTO)
def test_auto_finds_the_familys_place_and_leaves_outputs_and_keys(name: str) -> None:
    network = build(name).eval()
    keys, x = set(network.state_dict()), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = maps(network(x))
    sites = attach(network, "eca", mode="rezero")
    assert (sites[0].name, sites[-1].name, len(sites)) == AUTO[name]
    assert set(network.state_dict()) - attention_keys(network) == keys
    with torch.no_grad():
        assert torch.equal(maps(network(x)), expected)


@of_networks(name for name in AUTO if "vgg" not in name and "convnext_tiny" not in name)
def test_every_stage_trains(name: str) -> None:
    network = build(name)
    sites = attach(network, "eca", at="stage")
    assert 2 <= len(sites) <= 4
    maps(network(torch.randn(2, 3, 64, 64))).square().mean().backward()
    dead = [key for key, value in network.named_parameters() if ".attention." in key and value.grad is None]
    assert not dead


@pytest.mark.parametrize(
    ("name", "at", "sites"),
    [
        ("smp/DeepLabV3:resnet18", "aspp", [("decoder.aspp", 256)]),
        ("smp/DeepLabV3Plus:resnet18", "aspp", [("decoder.aspp.0", 256)]),
        ("torchvision.segmentation/deeplabv3_resnet50", "aspp", [("classifier.0", 256)]),
        ("smp/DeepLabV3Plus:resnet18", "decoder", [("decoder", 256)]),
        ("smp/Unet:resnet18", "decoder", [("decoder", 16)]),
        pytest.param("smp/PSPNet:resnet18", "decoder", [("decoder", 512)], marks=pytest.mark.slow),
        pytest.param("smp/FPN:resnet18", "decoder", [("decoder", 128)], marks=pytest.mark.slow),
        pytest.param("smp/UPerNet:resnet18", "decoder", [("decoder", 256)], marks=pytest.mark.slow),
        pytest.param("smp/UnetPlusPlus:resnet18", "decoder", [("decoder", 16)], marks=pytest.mark.slow),
        ("smp/PSPNet:resnet18", "stage", [("encoder.layer1", 64), ("encoder.layer2", 128)]),
    ],
)
def test_segmentation_placements(name: str, at: str, sites: list[tuple[str, int]]) -> None:
    network = build(name)
    keys = set(network.state_dict())
    assert [(site.name, site.channels) for site in attach(network, "ela_b", at=at)] == sites
    assert set(network.state_dict()) - attention_keys(network) == keys
    maps(network.eval()(torch.randn(1, 3, 64, 64)))


SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (
            lambda: torchvision.models.SwinTransformer([4, 4], *SWIN.values(), [7, 7], num_classes=10),
            [f"features.{n}" for n in (1, 3, 5, 7)],
        ),
        (
            lambda: timm.create_model("swin_tiny_patch4_window7_224", **SWIN),
            [f"layers.{n}" for n in range(4)],
        ),
        (
            lambda: timm.create_model("mambaout_femto", depths=(1, 1, 1, 1), dims=(24, 48, 96, 192)),
            [f"stages.{n}" for n in range(4)],
        ),
    ],
    ids=["torchvision's Swin", "timm's Swin", "MambaOut"],
)
def test_networks_with_channels_last(build: Callable[[], nn.Module], names: list[str]) -> None:
    """timm's Swin takes one size of image only."""
    network, x = build().eval(), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = network(x)
        sites = attach(network, "eca", mode="rezero")
        assert [(site.name, site.channels, site.axis) for site in sites] == list(
            zip(names, [24, 48, 96, 192], [3] * 4, strict=True)
        )
        assert torch.equal(network(x), expected)


def test_a_network_of_tokens_is_refused() -> None:
    network = timm.create_model("vit_tiny_patch16_224", depth=1)
    with pytest.raises(
        AttnlabError, match=r"works on tokens \(B, N, C\), which are no maps. Modules with maps: "
    ):
        attach(network, "eca")
    with pytest.raises(AttnlabError, match=r"as the tokens \(B, N, C\) of a transformer"):
        attach(network, "eca", at="blocks.0")


def test_layouts_within_a_block_are_told_apart() -> None:
    """torchvision's ConvNeXt goes to (B,H,W,C) and back in each block."""
    network = torchvision.models.convnext_tiny(num_classes=10)
    block = "features.1.0.block"
    sites = attach(network, "eca", at=[f"{block}.{n}" for n in range(6)])
    assert [(site.channels, site.axis) for site in sites] == [
        *((96, axis) for axis in (1, 3, 3)),
        *((384, 3), (384, 3), (96, 3)),
    ]


def test_a_dilated_encoder_keeps_its_four_stages() -> None:
    network = smp.DeepLabV3("resnet18", encoder_weights=None, encoder_output_stride=8)
    assert [s.name for s in attach(network, "eca", at="stage")] == [f"encoder.layer{n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(("at", "last"), [("stage", "0.encoder.layer4"), ("decoder", "0.decoder")])
def test_a_network_inside_a_wrapper_is_found(at: str, last: str) -> None:
    network = nn.Sequential(smp.Unet("resnet18", encoder_weights=None))
    assert attach(network, "eca", at=at)[-1].name == last


def test_detectors_are_seen_up_to_where_values_decide() -> None:
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3
    )
    sites = attach(detector, "eca", at="stage")
    assert [site.name.rpartition(".")[0] for site in sites] == ["backbone.body"] * len(sites)
    detector.eval()([torch.rand(3, 64, 64)])


@pytest.mark.parametrize("attention", list_attentions())
def test_torchvision_extracts_features_with_every_attention(attention: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), BasicBlock(16, 16), BasicBlock(16, 16))
    attach(network, attention, at=["1.bn2", "1"], mode="residual")
    extractor = create_feature_extractor(copy.deepcopy(network), ["1", "2"])
    for training in (True, False):
        for size in [(2, 3, 18, 27), (1, 3, 24, 9)]:
            x = torch.randn(size)
            maps = extractor.train(training)(x)
            torch.testing.assert_close(maps["2"], network.train(training)(x))
    torch.testing.assert_close(maps["1"], network[:2](x))


def test_attaching_to_a_copy_leaves_the_first_alone() -> None:
    network = build("timm/resnet18")
    twin = copy.deepcopy(network)
    attach(twin, "eca")
    assert not attention_keys(network)
