from __future__ import annotations

import torch
from torch import Tensor

from attnlab.attention.modules.style_recalibration import StyleRecalibration
from attnlab.attention.testing import AttentionProof
from tests.attention import naive


def formula(srm: StyleRecalibration, x: Tensor) -> Tensor:
    size = x.shape[2:].numel()
    mean = x.sum(dim=(2, 3)) / size
    std = ((x - mean[:, :, None, None]).square().sum(dim=(2, 3)) / size + 1e-5).sqrt()
    style = torch.einsum("bcs,cs->bc", torch.stack([mean, std], dim=2), srm.weight)
    return torch.einsum("bchw,bc->bchw", x, naive.sigmoid(naive.batch_norm(style, srm.norm)))


class TestSRM(AttentionProof):
    name = "srm"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 2 * channels + 2 * channels)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


def test_starts_as_a_half_and_learns_from_there() -> None:
    srm, x = StyleRecalibration(8), torch.randn(3, 8, 4, 5)
    y = srm(x)
    torch.testing.assert_close(y, x / 2)
    y.square().sum().backward()
    assert srm.weight.grad is not None
    assert (srm.weight.grad != 0).all()


def test_tells_maps_of_one_mean_apart_by_their_deviation() -> None:
    srm = StyleRecalibration(4).eval()
    srm.weight.data = torch.tensor([0.0, 1.0]).repeat(4, 1)
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).expand(1, 4, 2, 2)
    for deviation in (0.5, 2.0):
        expected = deviation * pattern * torch.sigmoid(torch.tensor(deviation))
        torch.testing.assert_close(srm(deviation * pattern), expected, rtol=1e-4, atol=1e-4)


def test_a_single_position_has_no_deviation_and_no_slope() -> None:
    srm, x = StyleRecalibration(8).double().eval(), torch.randn(2, 8, 1, 1, dtype=torch.float64)
    srm.weight.data = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(8, 1)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(srm(x).sum(), x)
    gate = torch.sigmoid(torch.tensor(1e-5**0.5 / (1 + 1e-5) ** 0.5, dtype=torch.float64))
    torch.testing.assert_close(srm(x), x * gate)
    torch.testing.assert_close(gradient, gate.expand(x.shape))
