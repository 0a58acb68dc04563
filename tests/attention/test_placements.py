"""The named placements, on networks of torchvision and small ones; ``test_networks.py`` has more families."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from attnlab.attention import Site, attach, list_placements


def test_resnet_block_is_after_the_last_norm() -> None:
    assert [s.name for s in attach(resnet18(), "eca", at="resnet.block")][::7] == [
        "layer1.0.bn2",
        "layer4.1.bn2",
    ]
    sites = attach(resnet50(), "eca", at="resnet.block")
    assert [(s.name, s.channels) for s in (sites[0], sites[-1])] == [
        ("layer1.0.bn3", 256),
        ("layer4.2.bn3", 2048),
    ]
    assert len(sites) == 16


def test_resnet_conv2_is_the_input_of_conv3() -> None:
    network = resnet50().eval()
    sites = attach(network, "se", at="resnet.conv2")
    assert len(sites) == 16
    assert sites[0] == Site("layer1.0.conv3", 64, sites[0].parameters, before=True)
    seen = []
    network.layer1[0].conv3.attention.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    block, x = network.layer1[0], torch.randn(1, 64, 8, 8)
    block(x)
    expected = block.relu(block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x))))))
    torch.testing.assert_close(seen[0], expected)


class Neck(nn.Module):
    """Two maps in, one merged: the shape of YOLOX's neck."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict({"c3": nn.Identity(), "c4": nn.Identity()})
        self.merge = nn.ModuleDict({"p3": nn.Identity()})
        self.outputs = nn.ModuleDict({"p3": nn.Conv2d(16, 8, 1)})

    def forward(self, c3: Tensor, c4: Tensor) -> Tensor:
        c3, c4 = self.inputs["c3"](c3), self.inputs["c4"](c4)
        return self.outputs["p3"](self.merge["p3"](torch.cat([c3, c4[..., :8, :8]], 1)))


def test_yolox_neck_shares_by_itself_and_on_request_does_not() -> None:
    example = (torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 8, 8))
    network = Neck()
    sites = attach(network, "se", at=["yolox.neck", "fpn"], example=example)
    assert [site.name for site in sites] == ["inputs.c3", "inputs.c4", "merge.p3", "outputs.p3"]
    assert network.inputs["c3"].attention is network.inputs["c4"].attention
    # The pyramid's output has as many channels, but is no site of the sharing placement.
    assert network.outputs["p3"].attention is not network.inputs["c3"].attention
    assert [site.parameters > 0 for site in sites] == [True, False, True, True]
    network = Neck()
    sites = attach(network, "se", at="yolox.neck", shared=False, example=example)
    assert all(site.parameters for site in sites)


def block(channels: int, made: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, made, 3, stride, 1), nn.BatchNorm2d(made), nn.SiLU())


class Detect(nn.Module):
    """A head as Ultralytics builds it: boxes and classes of each map, and all of them decoded."""

    def __init__(self, classes: int, widths: list[int]) -> None:
        super().__init__()
        self.cv2 = nn.ModuleList(nn.Sequential(block(width, 16), nn.Conv2d(16, 64, 1)) for width in widths)
        self.cv3 = nn.ModuleList(
            nn.Sequential(block(width, classes), nn.Conv2d(classes, classes, 1)) for width in widths
        )

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        made = [torch.cat([b(x), c(x)], 1) for b, c, x in zip(self.cv2, self.cv3, maps, strict=True)]
        boxes, scores = torch.cat([x.flatten(2) for x in made], dim=2).split(
            [64, len(made[0][0]) - 64], dim=1
        )
        return torch.cat([boxes.softmax(dim=1), scores.sigmoid()], dim=1), made


class Concat(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, dim=1)


class Yolo(nn.Module):
    """A list of modules, each with its sources: down to stride 16, up to 8, and the head on both."""

    def __init__(self, neck: bool = True) -> None:
        super().__init__()
        down = [block(3, 8, 2), block(8, 16, 2), block(16, 16), block(16, 32, 2), block(32, 64, 2)]
        up = [nn.Upsample(scale_factor=2), Concat(), block(96, 32)] if neck else []
        self.model = nn.ModuleList([*down, *up, Detect(5, [32, 64])])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = []
        for module in self.model[:-1]:
            x = module([x, maps[3]] if isinstance(module, Concat) else x)
            maps.append(x)
        return self.model[-1]([maps[-1] if len(maps) > 5 else maps[3], maps[4]])


@pytest.mark.parametrize("neck", [True, False])
def test_auto_is_in_a_detectors_backbone_and_not_in_its_neck_or_head(neck: bool) -> None:
    sites = attach(Yolo(neck), "eca")
    assert [(site.name, site.channels) for site in sites] == [
        ("model.2", 16),
        ("model.3", 32),
        ("model.4", 64),
    ]


def test_scores_are_no_stage() -> None:
    def stages(*rest: nn.Module) -> list[str]:
        network = nn.Sequential(nn.Sequential(block(3, 16, 4), block(16, 32, 2)), block(32, 32), *rest)
        return [site.name for site in attach(network, "eca", at="stage")]

    scores = nn.Conv2d(32, 5, 3, padding=1)
    assert stages() == stages(scores) == stages(scores, nn.Identity()) == ["0.0", "1"]
    # With a classifier behind it, it is a convolution like another.
    assert stages(scores, nn.Flatten(), nn.Linear(5 * 28 * 28, 2)) == ["0.0", "2"]


def test_attention_on_scores_is_what_one_asked_for_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    (site,) = attach(Yolo(), "eca", at="model.8.cv3.1")
    assert site.channels == 5
    assert "'model.8.cv3.1' (Sequential) gives what the network puts out" in caplog.text
    caplog.clear()
    attach(Yolo(), "eca", at="model.8.cv3.1.0")
    assert "puts out" not in caplog.text


def test_yolo_of_ultralytics() -> None:
    ultralytics = pytest.importorskip("ultralytics", reason="Ultralytics is not installed")
    names = [site.name for site in attach(ultralytics.YOLO("yolo11n.yaml").model, "ela_b")]
    assert names == ["model.2", "model.4", "model.6", "model.10"]


def test_every_placement_is_described() -> None:
    assert {
        "auto",
        "resnet.block",
        "resnet.conv2",
        "mobilenetv2.depthwise",
        "stage",
        "aspp",
        "decoder",
    } <= set(list_placements())
    assert all(text.endswith(".") for text in list_placements().values())
