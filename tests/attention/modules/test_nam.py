from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlab.attention.modules.nam import NAM
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(nam: NAM, x: Tensor) -> Tensor:
    normal, y = naive.batch_norm(x, nam.norm), torch.empty_like(x)
    total = sum(abs(float(scale)) for scale in nam.norm.weight.detach())
    for channel in range(x.shape[1]):
        share = abs(float(nam.norm.weight.detach()[channel])) / total
        y[:, channel] = x[:, channel] * naive.sigmoid(share * normal[:, channel])
    return y


class TestNAM(AttentionProof):
    name = "nam"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 2 * channels)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


def test_at_initialisation_all_channels_have_the_same_share() -> None:
    x = torch.randn(4, 8, 6, 5)
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
    normal = (x - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(NAM(8)(x), x * naive.sigmoid(normal / 8))


def test_a_channel_without_scale_is_halved() -> None:
    nam, x = NAM(8), torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        nam.norm.weight[3] = 0
    y = nam(x)
    torch.testing.assert_close(y[:, 3], x[:, 3] / 2)
    assert not torch.allclose(y[:, 4], x[:, 4] / 2)


def test_without_any_scale_all_is_halved_and_gradients_are_finite() -> None:
    nam, x = NAM(8), torch.randn(2, 8, 6, 5, requires_grad=True)
    nn.init.zeros_(nam.norm.weight)
    y = nam(x)
    torch.testing.assert_close(y, x / 2)
    y.square().sum().backward()
    for tensor in (x, *nam.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_one_image_of_one_pixel_trains() -> None:
    x = torch.randn(1, 8, 1, 1)
    # By the running statistics, which start at 0 and 1; each channel's share of the scales is an eighth.
    normal = x / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(NAM(8)(x), x * (normal / 8).sigmoid())
