from __future__ import annotations

import warnings
from collections.abc import Collection
from types import MappingProxyType

import pytest
import torch
from timm.layers.non_local_attn import NonLocalAttn
from torch import Tensor, nn

from attnlab.attention.modules.non_local import NonLocal
from attnlab.attention.testing import AttentionProof, Symmetry
from tests.attention import naive
from tests.attention.exporting import free_pooling


def formula(block: NonLocal, x: Tensor) -> Tensor:
    seen = pool(x) if block.subsample else x
    points, others = x.flatten(2), seen.flatten(2)  # (B,C,N), (B,C,M)

    def layer(conv: nn.Module, values: Tensor) -> Tensor:
        assert isinstance(conv, nn.Conv2d)
        return naive.conv(values[..., None], conv)[..., 0]

    y = torch.zeros_like(layer(block.g, points))
    for i in range(points.shape[2]):
        if block.pairwise == "gaussian":
            f = torch.einsum("bc,bcm->bm", points[:, :, i], others)
        else:
            one, other = layer(block.theta, points[:, :, [i]]), layer(block.phi, others)  # (B,R,1), (B,R,M)
            f = torch.einsum("bro,brm->bm", one, other)
        if block.pairwise == "concatenation":
            assert block.pair is not None
            both = torch.cat([one.expand_as(other), other], dim=1)
            f = naive.relu(torch.einsum("c,bcm->bm", block.pair.weight[0], both))
        if block.pairwise in ("gaussian", "embedded_gaussian"):
            terms = points.shape[1] if block.pairwise == "gaussian" else one.shape[1]
            f = naive.softmax(f / (terms**0.5 if block.scale != 1 else 1), dim=1)
        else:
            f = f / others.shape[2]
        y[:, :, i] = torch.einsum("bm,brm->br", f, layer(block.g, others))
    z = naive.conv(y.reshape(*y.shape[:2], *x.shape[2:]), block.w_z)
    return x + (naive.batch_norm(z, block.norm) if isinstance(block.norm, nn.BatchNorm2d) else z)


def pool(x: Tensor) -> Tensor:
    """The maximum of every 2x2 cell; cells at an odd end are cut."""
    rows = [
        torch.stack(
            [x[:, :, i : i + 2, j : j + 2].flatten(2).max(dim=2).values for j in range(0, x.shape[3], 2)], 2
        )
        for i in range(0, x.shape[2], 2)
    ]
    return torch.stack(rows, dim=2)


class TestNonLocal(AttentionProof):
    name = "non_local"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 4 * channels * (channels // 2) + 2 * channels)
    symmetries: Collection[Symmetry] = ("flip_height", "flip_width", "transpose", "permute_places")

    def build(self, channels: int = 16) -> nn.Module:
        """Narrower weights: bfloat16 keeps 8 bits of logits and sums, which grow with their square."""
        module = super().build(channels)
        for name, parameter in module.named_parameters():
            if not name.startswith("norm"):
                nn.init.normal_(parameter, std=0.2)
        return module


class TestGaussian(TestNonLocal):
    options = MappingProxyType({"pairwise": "gaussian", "scale": True})
    count = staticmethod(lambda channels: 2 * channels * (channels // 2) + 2 * channels)


class TestDotProduct(TestNonLocal):
    options = MappingProxyType({"pairwise": "dot_product", "norm": "none", "bias": True})
    count = staticmethod(lambda channels: 4 * channels * (channels // 2) + 3 * (channels // 2) + channels)


class TestConcatenation(TestNonLocal):
    options = MappingProxyType({"pairwise": "concatenation", "reduction": 4})
    count = staticmethod(lambda channels: channels * channels + 2 * (channels // 4) + 2 * channels)


class TestSubsampled(TestNonLocal):
    options = MappingProxyType({"subsample": True, "scale": True, "reduction": 8})
    count = staticmethod(lambda channels: 4 * channels * (channels // 8) + 2 * channels)
    symmetries = ("flip_height", "flip_width", "transpose")

    @free_pooling
    def test_exports(self) -> None:
        # From 3 on: a size of 2 becomes 1, which torch.export takes for a constant.
        module, x = self.build().eval(), torch.randn(2, 16, 6, 5)
        size = {2: torch.export.Dim("height", min=3), 3: torch.export.Dim("width", min=3)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own future
            exported = torch.export.export(module, (x,), dynamic_shapes=(size,)).module()
        for other in (x, torch.randn(2, 16, 9, 4)):
            torch.testing.assert_close(exported(other), module(other))


@pytest.mark.parametrize("norm", ["bn", "none"])
@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
def test_starts_as_the_identity(pairwise: str, norm: str) -> None:
    x = torch.randn(2, 16, 6, 5)
    torch.testing.assert_close(NonLocal(16, pairwise=pairwise, norm=norm)(x), x)  # type: ignore[arg-type]


def test_one_pixel_sees_itself_with_weight_one() -> None:
    block, x = NonLocal(16, norm="none"), torch.randn(2, 16, 1, 1)
    nn.init.normal_(block.w_z.weight)
    torch.testing.assert_close(block(x), x + block.w_z(block.g(x)))


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
def test_half_precision_of_a_large_map_is_finite(pairwise: str) -> None:
    block, x = NonLocal(64, pairwise=pairwise), torch.randn(1, 64, 40, 40) * 20  # type: ignore[arg-type]
    assert isinstance(block.norm, nn.BatchNorm2d)
    nn.init.ones_(block.norm.weight)
    assert block.half().eval()(x.half()).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_is_timms_whose_scale_is_of_the_wide_map(training: bool) -> None:
    ours, theirs = (
        NonLocal(64, bias=True).double(),
        NonLocalAttn(64, use_scale=False, rd_ratio=1 / 2).double(),
    )
    for mine, other in ((ours.theta, theirs.t), (ours.phi, theirs.p), (ours.g, theirs.g)):
        for parameter in mine.parameters():
            nn.init.normal_(parameter, std=0.1)
        other.load_state_dict(mine.state_dict())
    theirs.z.weight = ours.w_z.weight
    assert isinstance(ours.norm, nn.BatchNorm2d)
    nn.init.normal_(ours.norm.weight)
    theirs.norm.load_state_dict(ours.norm.state_dict())
    x = torch.randn(2, 64, 6, 5, dtype=torch.float64) * 3
    torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))
