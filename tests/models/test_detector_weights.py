"""Weights of detectors: what loads, what starts anew, what is refused."""

from pathlib import Path

import pytest
import torch
from torchvision.models import detection

from attnlab.attention import attach, attention_keys
from attnlab.errors import AttnlabError
from attnlab.models import build_classifier, build_detector, load_weights, read_state_dict

SHARED = Path(__file__).parents[2].parent / "shared" / "weights"
SMALL = {"backbone": "resnet18", "min_size": 64, "max_size": 96}
IMAGE = torch.zeros(1, 3, 64, 64)
SSDLITE = {"backbone": "mobilenet_v3_small", "size": 64}
DETECTORS = {
    "faster_rcnn": (SMALL, {"roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"}),
    "retinanet": (SMALL, {"head.classification_head.cls_logits"}),
    "fcos": (SMALL, {"head.classification_head.cls_logits"}),
    "ssdlite": (SSDLITE, {f"head.classification_head.module_list.{level}.1" for level in range(6)}),
    "yolof": (SMALL, {"decoder.class_logits"}),
    "yolox_nano": ({}, {f"head.class_logits.{level}" for level in range(3)}),
}


def build(name: str, classes: int = 3, **options):
    return build_detector(name, classes, {**DETECTORS[name][0], **options})


def other_values(network) -> dict[str, torch.Tensor]:
    """A state dict of the network's shapes with values of its own."""
    return {
        key: torch.rand_like(value) + 2 if value.is_floating_point() else value.clone()
        for key, value in network.state_dict().items()
    }


def loaded_keys(network, state) -> set[str]:
    return {
        key
        for key, value in network.state_dict().items()
        if key in state and value.shape == state[key].shape and torch.equal(value, state[key])
    }


class TestWholeDetectors:
    @pytest.mark.parametrize("name", DETECTORS)
    @pytest.mark.parametrize("prefix", ["", "network."])
    def test_the_same_classes_load_all(self, name, prefix):
        built = build(name)
        state = other_values(built.network)
        given = {prefix + key: value for key, value in state.items()}
        report = load_weights(built, given)
        assert loaded_keys(built.network, state) == set(state)
        assert (report.part, report.loaded, report.restarted, report.unused) == (
            "network",
            len(state),
            [],
            [],
        )

    @pytest.mark.parametrize("name", DETECTORS)
    def test_other_classes_restart_the_layers_of_classes(self, name):
        built = build(name, 3)
        state = other_values(build(name, 7).network)
        before = {key: value.clone() for key, value in built.network.state_dict().items()}
        report = load_weights(built, state)
        anew = {f"{layer}.{kind}" for layer in DETECTORS[name][1] for kind in ("weight", "bias")}
        assert set(report.restarted) == anew
        assert loaded_keys(built.network, state) == set(state) - anew
        assert loaded_keys(built.network, before) >= anew
        assert all(key in str(report) for key in anew)
        assert "\n" not in str(report)

    @pytest.mark.parametrize("frozen", [True, False])
    def test_between_frozen_batchnorm_and_the_usual(self, frozen):
        built = build("retinanet", frozen_bn=frozen)
        state = other_values(build("retinanet", frozen_bn=not frozen).network)
        load_weights(built, state)
        ours = {key for key in built.network.state_dict() if "num_batches" not in key}
        assert loaded_keys(built.network, state) >= ours

    @pytest.mark.parametrize("name", ["faster_rcnn", "yolof"])
    def test_attention_may_be_new(self, name):
        built = build(name)
        state = other_values(built.network)
        attach(built.network, "ela_t", at="resnet.block", mode="rezero")
        keys = attention_keys(built.network)
        report = load_weights(built, state)
        assert set(report.new) == keys
        assert loaded_keys(built.network, state) == set(state)

    def test_attention_in_the_file(self):
        attended = build("fcos")
        attach(attended.network, "ela_t", at="resnet.block", mode="rezero")
        state = other_values(attended.network)
        load_weights(attended, state)
        assert loaded_keys(attended.network, state) == set(state)
        plain = build("fcos")
        with pytest.raises(AttnlabError, match="the given state dict has weights of attention modules that"):
            load_weights(plain, state)

    def test_attention_that_is_shared(self):
        """One module under several names, once for each in the file."""
        built = build("yolox_nano")
        attach(built.network, "ela_t", at="yolox.neck", example=IMAGE)
        state = other_values(built.network)
        for key in list(state):
            if "inputs.c4.attention." in key:
                for site in ("merge.p3", "merge.n4"):
                    state[key.replace("inputs.c4", site)] = state[key]
            elif "inputs.c5.attention." in key:
                for site in ("merge.p4", "merge.n5"):
                    state[key.replace("inputs.c5", site)] = state[key]
        report = load_weights(built, state)
        assert loaded_keys(built.network, state) == set(state)
        assert report.new == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("rpn.head.bbox_pred.weight"), "missing in the file: rpn.head.bbox_pred.weight"),
            (lambda s: s.update({"extra.weight": torch.ones(1)}), "not in the network: extra.weight"),
            (
                lambda s: s.update({"rpn.head.cls_logits.bias": torch.ones(9)}),
                r"of another shape: rpn.head.cls_logits.bias: \(9,\) in the file",
            ),
            (
                lambda s: s.update({"roi_heads.box_predictor.cls_score.weight": torch.ones(4, 9)}),
                r"of another shape: roi_heads.box_predictor.cls_score.weight: \(4, 9\) in the file",
            ),
        ],
    )
    def test_what_does_not_fit_is_named_and_changes_nothing(self, change, message):
        built = build("faster_rcnn")
        before = {key: value.clone() for key, value in built.network.state_dict().items()}
        state = other_values(built.network)
        change(state)
        with pytest.raises(
            AttnlabError, match=f"The weights of the given state dict do not fit the network.*{message}"
        ):
            load_weights(built, state)
        assert loaded_keys(built.network, before) == set(before)

    def test_neither_detector_nor_backbone(self):
        built = build("yolof")
        with pytest.raises(AttnlabError, match=r"neither YOLOF nor its backbone: its keys are a\.b"):
            load_weights(built, {"a.b": torch.ones(1)})


class TestOlderFiles:
    """torchvision's published files of version 0.12 and before, which it translates itself in loading."""

    @pytest.mark.parametrize(
        ("name", "theirs"),
        [
            ("faster_rcnn", detection.fasterrcnn_resnet50_fpn),
            ("retinanet", detection.retinanet_resnet50_fpn),
        ],
    )
    def test_as_the_library(self, name, theirs):
        labels = 4 if name == "faster_rcnn" else 3
        library = theirs(weights=None, weights_backbone=None, num_classes=labels, min_size=64)
        state = {}
        for key, value in other_values(library).items():
            if "num_batches_tracked" in key:
                continue
            key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
            for block in range(4):
                for kind in ("inner", "layer"):
                    key = key.replace(f"{kind}_blocks.{block}.0.", f"{kind}_blocks.{block}.")
                key = key.replace(f"_head.conv.{block}.0.", f"_head.conv.{2 * block}.")
            state[key] = value
        assert not set(state) <= set(library.state_dict())
        library.load_state_dict(state)
        built = build(name, backbone="resnet50")
        load_weights(built, state)
        wanted = {key for key in library.state_dict() if "num_batches" not in key}
        assert loaded_keys(built.network, library.state_dict()) >= wanted


class TestBackbones:
    @pytest.mark.parametrize(
        ("name", "frozen", "prefix"),
        [
            ("faster_rcnn", True, ""),
            ("faster_rcnn", False, "network."),
            ("retinanet", False, ""),
            ("fcos", True, "network."),
            ("yolof", True, "network."),
            ("yolof", False, ""),
        ],
    )
    def test_a_resnet(self, name, frozen, prefix):
        classifier = build_classifier("resnet18", 10).network
        state = other_values(classifier)
        built = build(name, frozen_bn=frozen)
        given = {prefix + key: value for key, value in state.items()}
        report = load_weights(built, given)
        trunk = built.network.get_submodule(built.backbone)
        ours = {key for key in trunk.state_dict() if "num_batches" not in key}
        assert loaded_keys(trunk, state) >= ours
        assert (report.part, report.restarted) == ("backbone", [])
        assert set(report.unused) == {"fc.weight", "fc.bias"}

    @pytest.mark.parametrize("backbone", ["mobilenet_v2", "mobilenet_v3_small"])
    def test_a_mobilenet(self, backbone):
        state = other_values(build_classifier(backbone, 10).network)
        built = build("fcos", backbone=backbone)
        load_weights(built, state)
        trunk = built.network.get_submodule(built.backbone)
        features = {key.removeprefix("features."): value for key, value in state.items()}
        assert loaded_keys(trunk, features) == set(trunk.state_dict())

    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_the_mobilenet_of_ssdlite(self, prefix):
        classifier = build_classifier("mobilenet_v3_small", 10).network.eval()
        state = other_values(classifier)
        built = build("ssdlite")
        given = {prefix + key: value * 0.1 for key, value in state.items()}
        report = load_weights(built, given)
        classifier.load_state_dict({key: given[prefix + key] for key in state})
        image = torch.rand(1, 3, 64, 64)
        trunk = built.network.eval().get_submodule(built.backbone)
        with torch.no_grad():
            assert torch.equal(trunk(image), classifier.features(image))
        assert report.part == "backbone"

    def test_attention_may_be_new_in_the_backbone_and_outside(self):
        state = other_values(build_classifier("resnet18", 10).network)
        built = build("faster_rcnn")
        attach(built.network, "ela_t", at=["resnet.block", "fpn"])
        keys = attention_keys(built.network)
        report = load_weights(built, state)
        assert set(report.new) == keys

    def test_attention_in_a_classifiers_file(self):
        classifier = build_classifier("resnet18", 10).network
        attach(classifier, "ela_t", at="resnet.block")
        built = build("retinanet")
        for prefix in ("", "network."):
            state = {prefix + key: value for key, value in classifier.state_dict().items()}
            with pytest.raises(AttnlabError, match="has weights of attention modules that"):
                load_weights(built, state)

    def test_another_network(self):
        state = other_values(build_classifier("resnet34", 10).network)
        built = build("yolof")
        with pytest.raises(AttnlabError, match=r"do not fit the backbone .*not in the network"):
            load_weights(built, state)


class TestLibrary:
    def test_without_published_weights(self):
        with pytest.raises(AttnlabError, match="no published ImageNet weights for yolox_nano's") as error:
            build_detector("yolox_nano", 3, {"size": 416}).imagenet()
        assert "https://github.com/Megvii-BaseDetection/YOLOX/releases" in str(error.value)
        with pytest.raises(AttnlabError, match="Set reduced_tail of ssdlite to false"):
            build_detector("ssdlite", 3, {"reduced_tail": True}).imagenet()

    @pytest.mark.parametrize(
        ("name", "options", "backbone"),
        [
            ("retinanet", {}, "torchvision/resnet50"),
            ("yolof", {"backbone": "resnet18"}, "torchvision/resnet18"),
            ("ssdlite", None, "torchvision/mobilenet_v3_large"),
        ],
    )
    def test_whose_they_are(self, monkeypatch, name, options, backbone):
        monkeypatch.setattr(
            "attnlab.models.detectors.build.library_classifier_weights", lambda network: {network: None}
        )
        assert build_detector(name, 3, options).imagenet() == {backbone: None}


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no weights in {SHARED}")
class TestFilesOfOthers:
    def test_yolox_of_coco(self):
        built = build("yolox_nano", 80)
        report = load_weights(built, read_state_dict(SHARED / "yolox_nano_coco.pth"))
        assert report.part == "network"
        assert report.restarted == report.new == report.unused == []
        built = build("yolox_nano", 20)
        report = load_weights(built, read_state_dict(SHARED / "yolox_nano_coco.pth"))
        assert len(report.restarted) == 6

    def test_the_authors_yolox(self):
        state = read_state_dict(SHARED / "yolox_nano_ela_voc_authors.pth")
        built = build("yolox_nano", 20)
        with pytest.raises(AttnlabError, match="has weights of attention modules that"):
            load_weights(built, state)
        attach(built.network, "ela_t", at="yolox.neck", example=IMAGE)
        report = load_weights(built, state)
        assert report.part == "network"
        assert report.restarted == report.new == report.unused == []

    def test_mobilenet_of_imagenet(self):
        built = build("fcos", backbone="mobilenet_v2")
        state = read_state_dict(SHARED / "mobilenet_v2_imagenet_dequantized.pth")
        report = load_weights(built, state)
        assert (report.part, report.loaded) == ("backbone", len(built.network.backbone.body.state_dict()))
