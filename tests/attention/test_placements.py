"""The named placements, on networks of torchvision and small ones; ``test_networks.py`` has more families."""

from __future__ import annotations

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
