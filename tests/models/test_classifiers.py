"""Classification networks by name."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from attnlab.attention import attach
from attnlab.errors import AttnlabError
from attnlab.models import build_classifier
from attnlab.models.classifiers import is_cnn
from attnlab.models.published import find_network
from tests.models.tester import ClassifierTester

NETWORKS = [
    ("squeezenet1_1", None, 1),
    ("timm/resnet18", {"channels": [16, 32, 64, 128], "drop_path_rate": 0.1}, 2),
    ("convnext_atto", None, None),
]


@pytest.mark.parametrize("choice", NETWORKS, scope="class", ids=lambda choice: choice[0])
class TestClassifiers(ClassifierTester):
    @pytest.fixture(autouse=True)
    def _choose(self, choice: tuple) -> None:
        self.choice = choice

    def build(self) -> nn.Module:
        name, options, stem_stride = self.choice
        network = build_classifier(name, self.classes, options, stem_stride).network
        attach(network, "ela_t", at="auto")
        return network


def on_meta(name: str, classes: int = 7, **arguments) -> nn.Module:
    with torch.device("meta"):
        return build_classifier(name, classes, **arguments).network


class TestNames:
    @pytest.mark.parametrize(
        ("name", "library"),
        [
            ("resnet18", "torchvision"),
            ("torchvision/resnet18", "torchvision"),
            ("timm/resnet18", "timm"),
            ("resnet18d", "timm"),
        ],
    )
    def test_the_class_is_the_librarys_own(self, name, library):
        network = on_meta(name)
        assert (
            type(network) is {"torchvision": torchvision.models.ResNet, "timm": timm.models.ResNet}[library]
        )
        assert find_network(name) == (library, name.rpartition("/")[2])

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("resnt18", "Unknown network 'resnt18'. Did you mean 'resnet18'"),
            ("convnext_ato", "Did you mean 'convnext_atto'"),
            ("torchvision/resnet18d", "Unknown network of torchvision 'resnet18d'. Did you mean 'resnet18'"),
            ("timm/mobilenet_v2", "Unknown network of timm 'mobilenet_v2'"),
            ("trochvision/resnet18", "Unknown library of networks 'trochvision'. Did you mean 'torchvision'"),
            # Of torchvision, but no classifiers of images.
            ("torchvision/fcn_resnet50", "Unknown network of torchvision"),
            ("torchvision/r3d_18", "Unknown network of torchvision"),
            ("torchvision/quantized_resnet18", "Unknown network of torchvision"),
            ("timm/", "Unknown network of timm ''"),
            ("", "Unknown network ''"),
        ],
    )
    def test_unknown(self, name, message):
        with pytest.raises(AttnlabError, match=message):
            build_classifier(name, 5)


class TestOptions:
    def test_they_reach_the_network(self):
        narrow = build_classifier("mobilenet_v2", 5, {"width_mult": 0.5}).network
        assert narrow.features[0][0].out_channels == 16
        options = {"channels": [16, 32, 64, 128], "drop_path_rate": 0.1}
        slim = build_classifier("timm/resnet18", 5, options).network
        assert slim.fc.in_features == 128
        assert slim.layer4[1].drop_path.drop_prob == pytest.approx(0.1)

    def test_through_functions_that_swallow_the_rest(self):
        """A function of torchvision's MobileNetV3 takes `width_mult`; its class takes anything."""
        narrow = build_classifier("mobilenet_v3_small", 5, {"width_mult": 0.5}).network
        assert narrow.features[1].out_channels == 8
        scaled = build_classifier("convnext_tiny", 5, {"layer_scale": 0.5}).network
        assert scaled.features[1][0].layer_scale[0] == 0.5

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            (
                "mobilenet_v2",
                {"widht_mult": 0.5},
                "Unknown option of mobilenet_v2 'widht_mult'. Did you mean",
            ),
            ("timm/resnet18", {"chanels": [8, 8, 8, 8]}, "'chanels'. Did you mean 'channels'"),
            ("mobilenet_v3_small", {"widht_mult": 0.5}, "'widht_mult'. Did you mean 'width_mult'"),
            ("convnext_tiny", {"layer_scal": 0.5}, "'layer_scal'. Did you mean 'layer_scale'"),
            ("timm/hrnet_w18_small", {"drop_rat": 0.5}, "'drop_rat'. Did you mean 'drop_rate'"),
            ("resnet18", {"num_classes": 3}, "'num_classes' cannot be an option"),
            ("googlenet", {"aux_logits": True}, "'aux_logits' cannot be an option"),
            ("timm/resnet18", {"features_only": True}, "'features_only' cannot be an option"),
            ("resnet18", {"groups": 3}, r"cannot build resnet18 with the options \{'groups': 3\}"),
        ],
    )
    def test_what_would_be_refused_or_swallowed(self, name, options, message):
        with pytest.raises(AttnlabError, match=message):
            build_classifier(name, 5, options)


CNNS = [
    *(
        "resnet18",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "densenet121",
        "vgg11_bn",
        "alexnet",
    ),
    *("squeezenet1_0", "shufflenet_v2_x0_5", "mnasnet0_5", "convnext_tiny", "timm/regnety_002"),
    *(
        "timm/resnet10t",
        "timm/convnextv2_atto",
        "timm/ghostnet_050",
        "timm/hrnet_w18_small",
        "timm/repvgg_a0",
    ),
    *(
        "timm/dla34",
        "timm/convmixer_768_32",
        "timm/xception41",
        "timm/tf_efficientnetv2_b0",
        "timm/nf_resnet26",
    ),
    *("timm/mobilenetv4_conv_small", "timm/botnet26t_256"),
]
OTHERS = [
    *("vit_b_16", "swin_t", "swin_v2_t", "maxvit_t", "timm/deit_tiny_patch16_224", "timm/mixer_s32_224"),
    *("timm/gmlp_s16_224", "timm/resmlp_12_224", "timm/beit_base_patch16_224", "timm/levit_128s"),
    *("timm/cait_xxs24_224", "timm/vit_tiny_r_s16_p8_224", "timm/pvt_v2_b0", "timm/xcit_nano_12_p8_224"),
    *("timm/twins_svt_small", "timm/eva02_tiny_patch14_224", "timm/swinv2_tiny_window8_256"),
]


class TestConvolutional:
    @pytest.mark.parametrize("name", CNNS)
    def test_cnns_pass(self, name):
        assert is_cnn(on_meta(name))

    @pytest.mark.parametrize("name", OTHERS)
    def test_others_are_refused(self, name):
        with pytest.raises(AttnlabError, match=r"is not a CNN.*resnet18"):
            on_meta(name)

    def test_the_rule_by_hand(self):
        mixing, pointwise, patches = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 2, stride=2)
        one_in_eight = [mixing, *[nn.Conv2d(4, 4, 1) for _ in range(7)]]
        assert is_cnn(nn.Sequential(*one_in_eight[::-1]))
        assert not is_cnn(nn.Sequential(*one_in_eight[::-1], nn.Linear(4, 4)))  # one in nine
        assert not is_cnn(nn.Sequential(mixing, pointwise))  # only in the first half
        assert is_cnn(nn.Sequential(pointwise, mixing))
        assert not is_cnn(nn.Sequential(pointwise, patches))
        assert not is_cnn(nn.Sequential(mixing, nn.MultiheadAttention(4, 2), nn.Conv2d(4, 4, 3)))
        assert not is_cnn(nn.Flatten())


class TestHead:
    @pytest.mark.parametrize(
        ("name", "head"),
        [
            ("resnet18", "fc"),
            ("mobilenet_v2", "classifier.1"),
            ("mobilenet_v3_small", "classifier.3"),
            ("squeezenet1_1", "classifier.1"),
            ("vgg11", "classifier.6"),
            ("densenet121", "classifier"),
            ("googlenet", "fc"),
            ("convnext_tiny", "classifier.2"),
            ("timm/convnext_atto", "head.fc"),
            ("timm/regnetx_002", "head.fc"),
            ("timm/legacy_seresnet18", "last_linear"),
        ],
    )
    def test_published_names(self, name, head):
        with torch.device("meta"):
            assert build_classifier(name, 7).class_layers == (head,)

    def test_of_the_librarys_own_classes(self):
        with torch.device("meta"):
            built = build_classifier("mobilenet_v2")
        assert built.class_layers == ("classifier.1",)
        assert built.network.get_submodule("classifier.1").out_features == 1000


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_no_auxiliary_heads(name):
    network = on_meta(name)
    images = torch.empty(2, 3, 299, 299, device="meta")
    assert network.train()(images).shape == network.eval()(images).shape == (2, 7)
    assert not any("aux" in key.lower() for key in network.state_dict())


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_googlenet_takes_images_normalised_as_the_others():
    """Its published weights are for pixels in -1..1, not for ImageNet's normalisation."""
    seen = []
    network = build_classifier("googlenet", 7).network.eval()
    network.conv1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        network((pixels - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(seen[0], 2 * pixels - 1)


class TestStem:
    """Sizes of maps, measured on an image of 64 pixels."""

    def first_maps(self, network: nn.Module, *names: str) -> list[int]:
        sides = {}

        def note(name: str, output: torch.Tensor) -> None:
            sides[name] = output.shape[-1]
            if len(sides) == len(names):
                raise StopIteration

        for name in names:
            network.get_submodule(name).register_forward_hook(
                lambda module, args, output, name=name: note(name, output)
            )
        with pytest.raises(StopIteration):
            network.eval()(torch.empty(1, 3, 64, 64, device="meta"))
        return [sides[name] for name in names]

    @pytest.mark.parametrize("name", ["resnet18", "timm/resnet18", "resnet18d", "shufflenet_v2_x0_5"])
    @pytest.mark.parametrize(
        ("stride", "sides"), [(None, [32, 16]), (4, [32, 16]), (2, [32, 32]), (1, [64, 64])]
    )
    def test_resnet_family(self, name, stride, sides):
        assert self.first_maps(on_meta(name, stem_stride=stride), "conv1", "maxpool") == sides

    @pytest.mark.parametrize("stride", [1, 2])
    def test_small_kernel(self, stride):
        torch.manual_seed(0)
        conv = build_classifier("resnet18", 5, stem_stride=stride).network.conv1
        assert (conv.kernel_size, conv.padding, conv.stride) == ((3, 3), (1, 1), (stride, stride))
        assert conv.bias is None
        assert conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)  # He, fan out

    def test_branches_beside_the_first_convolution(self):
        """RepVGG's stem adds a 3x3 and a 1x1 convolution, both of stride 2."""
        with pytest.raises(
            AttnlabError, match=r"stem of timm/repvgg_a0 cannot have stride 1: layers parallel"
        ):
            on_meta("timm/repvgg_a0", stem_stride=1)

    def test_four_changes_nothing(self):
        own, four = on_meta("resnet18"), on_meta("resnet18", stem_stride=4)
        assert str(own) == str(four)

    @pytest.mark.parametrize(
        ("name", "stem"),
        [
            ("mobilenet_v2", "features.0.0"),
            ("googlenet", "conv1.conv"),
            ("timm/regnetx_002", "stem.conv"),
        ],
    )
    def test_others(self, name, stem):
        assert self.first_maps(on_meta(name, stem_stride=1), stem) == [64]
        assert self.first_maps(on_meta(name, stem_stride=2), stem) == [32]
        assert str(on_meta(name, stem_stride=2)) == str(on_meta(name))

    @pytest.mark.parametrize(
        ("name", "stride", "message"),
        [
            (
                "resnet18",
                3,
                r"convolution of stride 2 \(conv1\) and a pooling of stride 2; .* must be 1, 2 or 4",
            ),
            ("mobilenet_v2", 4, r"3x3 convolution of stride 2 \(features.0.0\); .* must be 1 or 2"),
            ("convnext_tiny", 1, r"4x4 convolution of stride 4 \(features.0.0\); .* must be 4 "),
            ("vgg11", 2, r"3x3 convolution of stride 1 \(features.0\); .* must be 1 "),
        ],
    )
    def test_what_a_stem_cannot_have(self, name, stride, message):
        with pytest.raises(AttnlabError, match=f"The stem of {name} is a .*{message}"):
            on_meta(name, stem_stride=stride)
