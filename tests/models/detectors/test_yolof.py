"""YOLOF: the published size, its formulas, and what every detector must stand."""

import math

import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from attnlab.attention import attach
from attnlab.errors import AttnlabError
from attnlab.models.built import BuiltNetwork
from attnlab.models.detectors import build_detector
from attnlab.models.detectors.resizing import ShortSide
from attnlab.models.detectors.yolof import (
    YOLOF,
    Decoder,
    DilatedEncoder,
    decode,
    square_anchors,
    with_objectness,
)
from tests.models.detectors.tester import DetectorTester, least_shares, target

SMALL = {"backbone": "resnet18", "min_size": 96, "max_size": 128, "score_threshold": 0.0}


class TestYOLOF(DetectorTester):
    placements = ("resnet.block", "neck.projector.output_norm")

    def build(self) -> BuiltNetwork:
        return build_detector("yolof", self.classes, SMALL)


class TestDilated(DetectorTester):
    """On a dilated ResNet-50, a part of it frozen."""

    def build(self) -> BuiltNetwork:
        options = {"backbone": "resnet50", "dilated_c5": True, "frozen_bn": True, "trainable_layers": 3}
        return build_detector("yolof", self.classes, {**SMALL, **options})


def on_meta(classes: int = 80, **options) -> YOLOF:
    with torch.device("meta"):
        network = build_detector("yolof", classes, options).network
    assert isinstance(network, YOLOF)
    return network


class TestPublished:
    @pytest.mark.parametrize(
        ("options", "trunk", "in_channels", "anchors"),
        [
            ({}, 25_557_032 - 2_049_000, 2048, 5),  # ResNet-50 without its classifier
            ({"backbone": "resnet18"}, 11_689_512 - 513_000, 512, 5),
            ({"dilated_c5": True}, 25_557_032 - 2_049_000, 2048, 6),
        ],
    )
    def test_parameters_by_hand(self, options, trunk, in_channels, anchors):
        def conv(c_in, c_out, kernel):
            return c_in * c_out * kernel**2 + c_out

        norm = lambda channels: 2 * channels  # noqa: E731
        projector = conv(in_channels, 512, 1) + conv(512, 512, 3) + 2 * norm(512)
        block = conv(512, 128, 1) + conv(128, 128, 3) + conv(128, 512, 1) + 2 * norm(128) + norm(512)
        decoder = 6 * (conv(512, 512, 3) + norm(512)) + conv(512, anchors * (80 + 4 + 1), 3)
        total = sum(p.numel() for p in on_meta(**options).parameters())
        assert total == trunk + projector + 4 * block + decoder
        if not options:
            assert round(total / 1e6) == 44  # table 1 of the paper

    def test_strides_anchors_and_dilations(self):
        for options, stride, scales, dilations, matches in (
            ({}, 32, (32, 64, 128, 256, 512), [2, 4, 6, 8], 4),
            ({"dilated_c5": True}, 16, (16, 32, 64, 128, 256, 512), [4, 8, 12, 16], 8),
            ({"dilations": [1, 3], "anchor_scales": [40], "matches": 2}, 32, (40,), [1, 3], 2),
        ):
            network = on_meta(**options)
            side = network.backbone(torch.empty(1, 3, 256, 256, device="meta")).shape[-1]
            assert 256 // side == network.stride == stride
            assert network.anchor_scales == scales
            assert network.matches == matches
            convs = [m for m in network.neck.blocks.modules() if isinstance(m, nn.Conv2d)]
            assert [m.dilation[0] for m in convs if m.kernel_size == (3, 3)] == dilations

    def test_layers_that_are_trained(self):
        trunk = on_meta(trainable_layers=3).backbone
        trained = {key.partition(".")[0] for key, p in trunk.named_parameters() if p.requires_grad}
        assert trained == {"layer2", "layer3", "layer4"}
        network = on_meta(frozen_bn=True)
        assert not any(type(m) is nn.BatchNorm2d for m in network.backbone.modules())
        assert any(isinstance(m, FrozenBatchNorm2d) for m in network.backbone.modules())
        assert not any(isinstance(m, FrozenBatchNorm2d) for m in network.neck.modules())

    def test_the_authors_sites(self):
        """ELA before and after the projector, residual."""
        network = build_detector("yolof", 3, SMALL).network
        names = [child for child, _ in network.neck.projector.named_children()]
        assert names == ["lateral", "lateral_norm", "output", "output_norm"]
        sites = attach(network, "ela_t", at="neck.projector.output_norm", mode="residual")
        assert [(site.name, site.channels) for site in sites] == [("neck.projector.output_norm", 512)]


class TestFormulas:
    def test_score_is_the_product(self):
        classes = torch.randn(4, 7, dtype=torch.float64) * 4
        objectness = torch.randn(4, 1, dtype=torch.float64) * 4
        product = classes.sigmoid() * objectness.sigmoid()
        torch.testing.assert_close(with_objectness(classes, objectness).sigmoid(), product)
        huge = with_objectness(torch.tensor([[200.0, -200.0]]), torch.tensor([[300.0]]))
        torch.testing.assert_close(huge, torch.tensor([[200.0, -200.0]]))

    def test_anchors_are_those_of_torchvision(self):
        sides = (32, 64, 128)
        generator = AnchorGenerator((sides,), ((1.0,),))
        images = ImageList(torch.zeros(1, 3, 96, 160), [(96, 160)])
        theirs = generator(images, [torch.zeros(1, 8, 3, 5)])[0]
        assert torch.equal(square_anchors(3, 5, 32, sides, torch.device("cpu")), theirs)

    def test_decoding_by_hand(self):
        anchor = torch.tensor([[100.0, 100, 164, 164]])  # centre 132, side 64
        deltas = torch.tensor([[[0.25, -0.5, math.log(2), 0.0]], [[9.0, -9.0, 99.0, -99.0]]])
        boxes = decode(anchor, deltas)
        # Centre (148, 100), 128 x 64.
        torch.testing.assert_close(boxes[0, 0], torch.tensor([84.0, 68, 212, 132]))
        # Shifted by 32 pixels and no more; the width 62.5 times the anchor's and no more; no height.
        torch.testing.assert_close(boxes[1, 0], torch.tensor([164 - 2000.0, 100, 164 + 2000, 100]))

    def test_losses_by_hand(self):
        """Two objects, one image, all that the decoder says chosen: anchors and classes one by one."""
        network = build_detector("yolof", 2, {**SMALL, "anchor_scales": [32, 64], "matches": 1}).network
        anchors = square_anchors(3, 3, 32, [32, 64], torch.device("cpu"))
        logits = torch.randn(1, 18, 2)
        boxes = torch.stack([anchors[0] + 3, anchors[9] + torch.tensor([0.0, 0, 8, -8])])
        losses = network._losses(
            logits, anchors[None], anchors, [{"boxes": boxes, "labels": torch.tensor([1, 0])}]
        )
        focal = 0.0
        for anchor in range(18):
            for k in range(2):
                p = torch.sigmoid(logits[0, anchor, k]).item()
                if (anchor, k) in ((0, 1), (9, 0)):
                    focal -= 0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    focal -= 0.75 * p**2 * math.log(1 - p)
        assert losses["class"].item() == pytest.approx(focal / 2, rel=1e-4)
        # GIoU of two squares of side 32 shifted by 3, and of 64 x 64 with 72 x 56 of the same corner.
        shared, hull = 29 * 29, 35 * 35
        union = 2 * 32 * 32 - shared
        first = shared / union - (hull - union) / hull
        shared, hull = 64 * 56, 72 * 64
        union = 64 * 64 + 72 * 56 - shared
        second = shared / union - (hull - union) / hull
        # Each pair counts twice: the anchor is nearest, and so is what it predicts.
        assert losses["box"].item() == pytest.approx((2 * (1 - first) + 2 * (1 - second)) / 2, rel=1e-4)


class TestDetections:
    def test_boxes_return_to_the_image(self):
        """One confident anchor: its box in the pixels of an image that was enlarged by 96 / 48."""
        network = build_detector("yolof", 2, {**SMALL, "anchor_scales": [64], "score_threshold": 0.5}).network
        for layer in (network.decoder.class_logits, network.decoder.box_deltas, network.decoder.objectness):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        network.decoder.class_logits.bias.data = torch.tensor([-9.0, 9.0])
        network.decoder.objectness.bias.data.fill_(9.0)
        with torch.no_grad():
            found = network.eval()([torch.rand(3, 48, 48)])[0]
        # The 3x3 anchors overlap by a third at most: all stay. Those at the border are clipped.
        assert len(found["boxes"]) == 9
        assert found["labels"].tolist() == [1] * 9
        wanted = [
            [max(0, x - 16), max(0, y - 16), min(48, x + 16), min(48, y + 16)]
            for x in (0, 16, 32)
            for y in (0, 16, 32)
        ]
        assert sorted(found["boxes"].round().tolist()) == sorted(map(list, wanted))


class FreeDecoder(nn.Module):
    """Logits and deltas that are parameters, whatever the map shows."""

    def __init__(self, images: int, anchors: int, classes: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.logits = nn.Parameter(torch.randn(images, anchors, classes, generator=random) / 2)
        self.deltas = nn.Parameter(torch.randn(images, anchors, 4, generator=random) / 100)

    def forward(self, encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits, self.deltas


class TestLearning:
    """Two images of 64 pixels that are enlarged to 128, of 4 x 4 positions with two anchors each."""

    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 10:30, 15:45] = 1.0
    images[1, 0, 30:60, 5:35] = 1.0
    images[1, 2, 5:20, 40:60] = 1.0
    targets = (
        target(0, [[15, 10, 45, 30]], [0]),
        target(0, [[5, 30, 35, 60], [40, 5, 60, 20]], [1, 0]),
    )

    def network(self, backbone: nn.Module, neck: nn.Module, decoder: nn.Module) -> YOLOF:
        return YOLOF(
            backbone,
            neck,
            decoder,
            ShortSide(128, 128),
            stride=32,
            anchor_scales=(32, 64),
            matches=1,
            positive_threshold=0.15,
            score_threshold=0.5,
            nms_threshold=0.6,
            max_detections=100,
        )

    def test_minimal_losses_decode_to_the_truth(self):
        """Predictions that are free parameters: matching, losses, decoding and suppression must agree."""
        network = self.network(nn.AvgPool2d(32), nn.Identity(), FreeDecoder(2, 32, 2))
        steps = 150
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            sum(network(self.images, list(self.targets)).values()).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            found = network.eval()(self.images)
        for detections, truth in zip(found, self.targets, strict=True):
            order = detections["labels"].argsort()
            assert detections["labels"][order].tolist() == list(range(len(truth["labels"])))
            wanted = truth["boxes"][truth["labels"].argsort()]
            assert (detections["boxes"][order] - wanted).abs().max() < 1

    def test_the_network_learns_two_images(self):
        torch.manual_seed(0)
        strided = [
            nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU())
            for c_in, c_out in ((3, 16), (16, 16), (16, 32), (32, 32), (32, 32))
        ]
        network = self.network(nn.Sequential(*strided), DilatedEncoder(32, 32, 16, (1, 2)), Decoder(32, 2, 2))
        shares = least_shares(network, list(self.images), list(self.targets), steps=60, lr=3e-3)
        assert shares["box"] < 0.75
        assert shares["class"] < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "mobilenet_v2"}, "Unknown backbone of yolof 'mobilenet_v2'"),
        ({"backbone": "resnet18", "dilated_c5": True}, "blocks of resnet18 cannot be dilated"),
        ({"min_size": 800, "max_size": 600}, "at most max_size, got 800 and 600"),
        ({"dilations": []}, r"dilations of yolof must be integers of at least 1, got \(\)"),
        ({"anchor_scales": [32, 0]}, "anchor_scales of yolof must"),
        ({"matches": 0}, "matches of yolof must"),
        ({"trainable_layers": 6}, r"trainable_layers must be in 0..5"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(AttnlabError, match=message):
        build_detector("yolof", 3, options)


def test_training_without_targets():
    with pytest.raises(AttnlabError, match="needs targets"):
        build_detector("yolof", 3, SMALL).network([torch.rand(3, 64, 64)])
