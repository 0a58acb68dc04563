"""torchvision's detectors: what it publishes of them, and what every detector must stand."""

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from attnlab.errors import AttnlabError
from attnlab.models import build_classifier
from attnlab.models.built import BuiltNetwork
from attnlab.models.detectors import build_detector
from tests.models.detectors.tester import DetectorTester

SMALL = {"backbone": "resnet18", "min_size": 96, "max_size": 128, "score_threshold": 0.0}
DETECTORS = [
    ("faster_rcnn", {**SMALL, "frozen_bn": True}, ("resnet.block", "fpn")),
    ("retinanet", {**SMALL, "trainable_layers": 3}, ("stage",)),
    ("fcos", {**SMALL, "backbone": "mobilenet_v2"}, ("mobilenetv2.depthwise",)),
    ("ssdlite", {"backbone": "mobilenet_v3_small", "size": 96, "score_threshold": 0.0}, ("*.block.0",)),
]


@pytest.mark.parametrize("choice", DETECTORS, scope="class", ids=lambda choice: choice[0])
class TestDetectors(DetectorTester):
    @pytest.fixture(autouse=True)
    def _choose(self, choice: tuple) -> None:
        self.choice = choice
        self.placements = choice[2]

    def build(self) -> BuiltNetwork:
        built = build_detector(self.choice[0], self.classes, self.choice[1])
        if self.choice[0] == "faster_rcnn":
            # Hundreds of boxes for the second stage would prove nothing more, and take most of the time.
            built.network.rpn._post_nms_top_n = {"training": 40, "testing": 40}
        return built


def on_meta(name: str, classes: int, **options) -> nn.Module:
    with torch.device("meta"):
        return build_detector(name, classes, options).network


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("faster_rcnn", {}, detection.FasterRCNN_ResNet50_FPN_Weights),
        ("retinanet", {}, detection.RetinaNet_ResNet50_FPN_Weights),
        ("fcos", {}, detection.FCOS_ResNet50_FPN_Weights),
        ("ssdlite", {"reduced_tail": True}, detection.SSDLite320_MobileNet_V3_Large_Weights),
    ],
)
def test_published_size_and_keys(name, options, published):
    """torchvision counts its 91 categories with the background, frozen BatchNorms without weights."""
    frozen = {} if name == "ssdlite" else {"frozen_bn": True}
    classes = 90 if name in ("faster_rcnn", "ssdlite") else 91
    network = on_meta(name, classes, **options, **frozen)
    weights = published.COCO_V1
    assert sum(p.numel() for p in network.parameters()) == weights.meta["num_params"]
    builder = {
        "faster_rcnn": detection.fasterrcnn_resnet50_fpn,
        "retinanet": detection.retinanet_resnet50_fpn,
        "fcos": detection.fcos_resnet50_fpn,
        "ssdlite": detection.ssdlite320_mobilenet_v3_large,
    }[name]
    with torch.device("meta"):
        theirs = builder(weights=None, weights_backbone=None, num_classes=91).state_dict()
    ours = network.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape
        for key, value in theirs.items()
        if name == "ssdlite" or not key.startswith("backbone.body") or "num_batches" not in key
    }


class TestOptions:
    @pytest.mark.parametrize("name", ["faster_rcnn", "retinanet", "fcos"])
    def test_layers_that_are_trained(self, name):
        body = on_meta(name, 3, backbone="resnet18", trainable_layers=2).backbone.body
        trained = {key.partition(".")[0] for key, p in body.named_parameters() if p.requires_grad}
        assert trained == {"layer3", "layer4"}
        body = on_meta(name, 3, backbone="resnet18").backbone.body
        assert all(p.requires_grad for p in body.parameters())

    def test_layers_of_ssdlite(self):
        first, second = on_meta("ssdlite", 3, trainable_layers=2).backbone.features
        assert not any(p.requires_grad for p in first[:13].parameters())  # the fifth part begins at block 13
        assert all(p.requires_grad for p in [*first[13].parameters(), *second.parameters()])

    @pytest.mark.parametrize("name", ["faster_rcnn", "retinanet", "fcos", "ssdlite"])
    @pytest.mark.parametrize("frozen", [True, False])
    def test_frozen_batchnorm_is_of_the_backbone_alone(self, name, frozen):
        built = on_meta(name, 3, backbone="mobilenet_v3_small", frozen_bn=frozen)
        trunk = built.backbone.features if name == "ssdlite" else built.backbone.body
        kind = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
        norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
        assert norms
        assert all(isinstance(norm, kind) and norm.eps == 0.001 for norm in norms)
        assert sum(isinstance(m, FrozenBatchNorm2d) for m in built.modules()) == frozen * len(norms)

    def test_anchors(self):
        sizes = on_meta("faster_rcnn", 3, backbone="resnet18", smallest_anchor=16).rpn.anchor_generator.sizes
        assert sizes == ((16,), (32,), (64,), (128,), (256,))
        sizes = on_meta("retinanet", 3, backbone="resnet18").anchor_generator.sizes
        assert sizes[0] == (32, 40, 50)
        assert [level[0] for level in sizes] == [32, 64, 128, 256, 512]
        boxes = build_detector("ssdlite", 3, {"size": 200, "smallest_anchor": 20}).network.anchor_generator
        assert boxes.scales[0] == pytest.approx(0.1)

    @pytest.mark.parametrize("name", ["faster_rcnn", "retinanet", "fcos", "ssdlite"])
    def test_anchors_do_not_depend_on_the_precision(self, name):
        network = build_detector(name, 3, {} if name == "ssdlite" else {"backbone": "resnet18"}).network
        generator = network.rpn.anchor_generator if name == "faster_rcnn" else network.anchor_generator
        images = ImageList(torch.zeros(1, 3, 64, 2048), [(64, 2048)])
        sizes = [(8, 256), (4, 128), (2, 64), (1, 32), (1, 16), (1, 8)][: 6 if name == "ssdlite" else 5]
        found = {
            dtype: generator(images, [torch.zeros(1, 8, *size, dtype=dtype) for size in sizes])[0]
            for dtype in (torch.float32, torch.bfloat16)
        }
        assert found[torch.bfloat16].dtype == torch.float32
        assert torch.equal(found[torch.bfloat16], found[torch.float32])

    @pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "mobilenet_v3_large"])
    @pytest.mark.parametrize(
        ("name", "strides"), [("faster_rcnn", [4, 8, 16, 32, 64]), ("fcos", [8, 16, 32, 64, 128])]
    )
    def test_strides(self, backbone, name, strides):
        network = on_meta(name, 3, backbone=backbone)
        maps = network.backbone(torch.empty(1, 3, 256, 256, device="meta"))
        assert [256 // level.shape[-1] for level in maps.values()] == strides

    def test_thresholds_reach_the_network(self):
        options = {"score_threshold": 0.3, "nms_threshold": 0.4, "max_detections": 7}
        heads = on_meta("faster_rcnn", 3, **options).roi_heads
        assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.3, 0.4, 7)
        for name in ("retinanet", "fcos", "ssdlite"):
            network = build_detector(name, 3, options).network
            found = (network.score_thresh, network.nms_thresh, network.detections_per_img)
            assert found == (0.3, 0.4, 7)

    def test_sizes(self):
        """The shorter side to one of those given, in evaluation to the last; the longer one limited."""
        network = build_detector("fcos", 3, {**SMALL, "min_size": [64, 96]}).network
        image, target = torch.rand(3, 40, 80), {"boxes": torch.tensor([[10.0, 10, 20, 20]])}
        seen = {tuple(network.transform([image], [dict(target)])[0].image_sizes[0]) for _ in range(20)}
        assert seen == {(64, 128)}
        network.transform.max_size = 1000
        seen = {tuple(network.transform([image])[0].image_sizes[0]) for _ in range(30)}
        assert seen == {(64, 128), (96, 192)}
        assert network.eval().transform([image])[0].image_sizes[0] == (96, 192)
        network.transform.max_size = 128
        images, targets = network.transform([torch.rand(3, 20, 4000)], [{"boxes": target["boxes"] * 1.0}])
        assert images.image_sizes == [(1, 128)]
        torch.testing.assert_close(targets[0]["boxes"], torch.tensor([[0.32, 0.5, 0.64, 1.0]]))

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("retinanet", {"backbone": "resnt18"}, "Unknown backbone 'resnt18'. Did you mean 'resnet18'"),
            (
                "ssdlite",
                {"backbone": "mobilenet_v2"},
                "of ssdlite 'mobilenet_v2'.*other networks do not",
            ),
            ("ssdlite", {"size": 16}, "at least 32 pixels"),
            ("ssdlite", {"smallest_anchor": 320}, r"smallest_anchor must be in 1..304 pixels"),
            ("ssdlite", {"trainable_layers": 7}, r"trainable_layers must be in 0..6"),
            ("fcos", {"trainable_layers": 6}, r"trainable_layers must be in 0..5"),
            ("fcos", {"min_size": []}, "min_size must be a number of pixels"),
            ("faster_rcnn", {"min_size": [96, "x"]}, "min_size must be a number of pixels"),
            ("faster_rcnn", {"max_size": 0}, "min_size must be a number of pixels"),
        ],
    )
    def test_what_cannot_be(self, name, options, message):
        with pytest.raises(AttnlabError, match=message):
            build_detector(name, 3, options)


class TestTrunkOfSSDLite:
    @pytest.mark.parametrize("backbone", ["mobilenet_v3_large", "mobilenet_v3_small"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_every_tensor_of_the_classifier_has_its_place(self, backbone, prefix):
        """The same maps out of both, whatever the names."""
        classifier = build_classifier(backbone, 10).network.eval()
        for tensor in classifier.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) * 0.1 + 0.05)
        built = build_detector("ssdlite", 3, {"backbone": backbone, "size": 64})
        trunk = built.network.eval().get_submodule(built.backbone)
        state = {prefix + key: value for key, value in classifier.state_dict().items()}
        trunk.load_state_dict(trunk.rename_classifier_keys(state))
        image = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(trunk(image), classifier.features(image))
