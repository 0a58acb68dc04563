"""Segmentation networks by name."""

import pytest
import torch
from torch import nn

from attnlab.attention import attach
from attnlab.attention.rules import BatchNorm2d, allow_single_values
from attnlab.errors import AttnlabError
from attnlab.models import build_segmenter
from tests.models.tester import NetworkTester

NETWORKS = [
    ("DeepLabV3", "resnet18"),
    ("DeepLabV3Plus", "mobilenet_v2"),
    ("PSPNet", "resnet18"),
    ("FPN", "tu-regnetx_002"),
    ("Unet", "resnet18"),
    ("UPerNet", "tu-resnet10t"),
]


@pytest.mark.parametrize(("architecture", "encoder"), NETWORKS, scope="class")
class TestSegmenters(NetworkTester):
    @pytest.fixture(autouse=True)
    def _choose(self, architecture: str, encoder: str) -> None:
        self.choice = architecture, encoder

    def build(self) -> nn.Module:
        network = build_segmenter(*self.choice, num_classes=self.classes).network
        attach(network, "ela_t", at="auto")
        return network


def test_padding_is_decided_by_the_image_alone():
    network = build_segmenter("DeepLabV3Plus", "resnet18", 3).network.eval()
    seen = []
    network.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    image = torch.randn(1, 3, 50, 33)
    network(image)
    (padded,) = seen
    assert padded.shape[-2:] == (64, 48)
    assert torch.equal(padded[..., :50, :33], image)
    assert padded[..., 50:, :].count_nonzero() == padded[..., :, 33:].count_nonzero() == 0


def test_unused_stages_are_taken_out():
    shallow = build_segmenter("PSPNet", "resnet18", 3)
    assert shallow.dropped == ("layer3", "layer4")
    assert not any(key.startswith("model.encoder.layer4") for key in shallow.network.state_dict())
    assert build_segmenter("PSPNet", "resnet18", 3, {"encoder_depth": 5}).dropped == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("DeepLab3", "resnet18", 3), "Did you mean 'DeepLabV3'"),
        (("Unet", "resnet19", 3), "Did you mean 'resnet18'"),
        (("Unet", "tu-resnet19", 3), "Unknown timm network 'resnet19'"),
        (("DeepLabV3Plus", "resnet18", 3, {"decoder_chanels": 8}), "Did you mean 'decoder_channels'"),
        # Taken by Unet alone; other architectures of the library swallow it.
        (("DeepLabV3Plus", "resnet18", 3, {"decoder_attention_type": "scse"}), "Unknown option"),
        (("DeepLabV3Plus", "densenet121", 3), "cannot build DeepLabV3Plus on encoder 'densenet121'"),
    ],
)
def test_what_cannot_be_built_is_one_clear_error(arguments, message):
    with pytest.raises(AttnlabError, match=message):
        build_segmenter(*arguments)


class TestSingleValues:
    def test_one_value_a_channel_uses_the_running_statistics(self):
        layer = BatchNorm2d(4)
        layer.running_mean.copy_(torch.arange(4.0))
        layer.running_var.fill_(4.0)
        before = layer.running_mean.clone()
        x = torch.randn(1, 4, 1, 1)
        expected = (x - torch.arange(4.0)[None, :, None, None]) / (4.0 + layer.eps) ** 0.5
        torch.testing.assert_close(layer.train()(x), expected)
        assert torch.equal(layer.running_mean, before)

    def test_anything_larger_is_batchnorm(self):
        x = torch.randn(2, 4, 1, 1)
        ours, theirs = BatchNorm2d(4), nn.BatchNorm2d(4)
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.running_var, theirs.running_var)

    def test_weights_and_keys_stay(self):
        decoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        keys = list(decoder.state_dict())
        assert allow_single_values(decoder) == 1
        assert list(decoder.state_dict()) == keys
        assert isinstance(decoder[1], BatchNorm2d)
